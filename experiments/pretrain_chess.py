"""Rebuilds the built-in chess ladder: games, puzzles, weights, model card. Needs Stockfish and the extra `chess`.

  python -m experiments.pretrain_chess --build=runs/chess_build --stage=positions
  python -m experiments.pretrain_chess --build=runs/chess_build --stage=puzzles
  python -m experiments.pretrain_chess --build=runs/chess_build --stage=train --model=chess-xs   # and -s, -m, -l
  python -m experiments.pretrain_chess --build=runs/chess_build --stage=install                  # into w2s_jax/assets

Every stage goes on where it was stopped.
"""
import dataclasses
import json
import pathlib
import time

from absl import app, flags

from w2s_jax.runtime import process

FLAGS = flags.FLAGS
flags.DEFINE_string('build', 'runs/chess_build', 'folder for games, checkpoints and weights')
flags.DEFINE_enum('stage', None, ['positions', 'puzzles', 'train', 'install'], 'what to do', required=True)
flags.DEFINE_integer('chunks', 0, 'positions, puzzles: how many chunks of games (0: as in the shipped ladder)')
flags.DEFINE_integer('workers', 2, 'positions, puzzles: processes')
flags.DEFINE_string('model', 'chess-xs', 'train: the rung')
flags.DEFINE_string('assets', '', 'install: where to (default: the package)')

SEED = 0
# samples seen, batch size, learning rate, the rung it grows from, chunks of positions (None: all); from one short trial
# a rung, not tuned further. chess-s-1 to chess-s-3 are one model at three points of its training.
RECIPES: dict[str, tuple] = {
    'chess-xs': (128_000, 64, 4e-3, None, None),
    'chess-s': (800_000, 64, 2e-3, None, None),
    'chess-m': (450_000, 64, 2e-3, None, None),
    'chess-l': (160_000, 64, 6e-4, 'chess-m', None),
    'chess-s-1': (32_000, 64, 2e-3, None, 12),
    'chess-s-2': (32_000, 64, 2e-3, 'chess-s-1', 12),
    'chess-s-3': (80_000, 64, 2e-3, 'chess-s-2', 12),
}


def read_chunks(folder: pathlib.Path, first: int | None = None):
    """All chunks of a folder, or the first ones, as one dict of arrays."""
    import numpy as np
    files = sorted(folder.glob('[0-9]*.npz'))
    files = [f for f in files if '.part' not in f.name][:first]
    chunks = [np.load(f, allow_pickle=False) for f in files]
    return {k: np.concatenate([c[k] for c in chunks]) for k in chunks[0]}


def distinct(rows):
    """The first place of each distinct row of `[N, 64]`: a sorted index array."""
    import numpy as np
    return np.sort(np.unique(rows, axis=0, return_index=True)[1])


def grown(model, smaller: dict):
    """The model, starting as a shallower one of the same width: the layers it has more begin as the identity.

    In the spirit of progressive stacking (Gong et al. 2019, ICML): a larger model for fewer steps.
    """
    import jax
    import numpy as np

    def place(path, new, old):
        if new.shape == old.shape:
            return old
        adds_to_stream = any(k.key in ('out', 'down') for k in path)
        rest = np.zeros_like(new[len(old):]) if adds_to_stream else np.asarray(new[len(old):])
        return np.concatenate([old, rest])
    params = jax.tree_util.tree_map_with_path(place, jax.device_get(model.init(jax.random.key(SEED + 1))), smaller)
    return dataclasses.replace(model, load=lambda shardings: params)


def train(build: pathlib.Path, name: str) -> None:
    """Trains one rung to predict the engine's move and writes weights and `card.json`."""
    import numpy as np

    from w2s_jax.models import chess_moves, modes, zoo
    from w2s_jax.runtime import sharding
    from w2s_jax.store import trees
    from w2s_jax.train import step as steps
    from w2s_jax.train import trainer as training
    from w2s_jax.train.checkpoint import Checkpoint

    samples, batch_size, learning_rate, smaller, chunks = RECIPES[name]
    positions, puzzles = read_chunks(build / 'positions', chunks), read_chunks(build / 'puzzles')
    pool, held_out = distinct(positions['tokens']), np.arange(1000)
    inputs = {'tokens': positions['tokens'][pool][:, None]}
    hyper = steps.hyper(*(np.array([x], np.float32) for x in (learning_rate, .01, .98, 1., .03)))
    runs = training.Runs(inputs, np.arange(len(pool))[None], positions['move'][pool].astype(np.int32)[None],
                         np.array([SEED]), hyper, {'tokens': puzzles['tokens'][held_out][:, None]}, evaluations=20,
                         num_classes=chess_moves.NUM_MOVES)
    static = steps.Static('xent', samples // batch_size, batch_size, chess_moves.NUM_MOVES)
    model = modes.bind(zoo.untrained_chess(name), 'full', ())
    if smaller:
        model = grown(model, trees.load(build / f'{smaller}.safetensors'))
    trainer = training.Trainer(model, static, sharding.make_mesh(), how='map')
    checkpoint = Checkpoint(build / 'checkpoints' / name)
    start = time.time()

    def log(step, steps, metrics):
        if step % 160 < 16:
            print(f'{name}: step {step}/{steps} loss {metrics["loss"][0]:.3f} {time.time() - start:.0f} s', flush=True)

    params, history = trainer.fit(runs, checkpoint, 500, log)
    checkpoint.close()
    import jax
    params = jax.tree.map(lambda x: np.asarray(x[0]), params)
    accuracy = [float((w[0] == puzzles['move'][held_out]).mean()) for w in history.watched]
    card = {'model': name, 'parameters': modes.count(params), 'seed': SEED, 'positions': len(pool),
            'grown_from': smaller, 'samples_seen': samples, 'steps': static.steps, 'batch_size': batch_size,
            'learning_rate': learning_rate, 'final_loss': float(history.loss[-200:].mean()),
            'puzzle_accuracy': accuracy[-1], 'puzzle_accuracy_curve': accuracy}
    trees.save(build / f'{name}.safetensors', params, 'float16', {'model': name})
    (build / f'{name}.json').write_text(json.dumps(card, indent=1))
    print(json.dumps(card))


def install(build: pathlib.Path, assets: pathlib.Path) -> None:
    """Puts puzzles, weights and the model card where the package finds them."""
    import shutil

    import numpy as np

    from w2s_jax.tasks.chess import puzzles as chess
    assets.mkdir(parents=True, exist_ok=True)
    puzzles, positions = read_chunks(build / 'puzzles'), read_chunks(build / 'positions')
    seen = {t.tobytes() for t in positions['tokens']}
    keep = np.array([i for i in distinct(puzzles['tokens']) if puzzles['tokens'][i].tobytes() not in seen])
    chess.save_puzzles(assets / 'puzzles.npz', *(puzzles[k][keep] for k in ('tokens', 'move', 'game', 'legal')))
    cards = []
    for name in RECIPES:
        if (build / f'{name}.json').exists():
            shutil.copyfile(build / f'{name}.safetensors', assets / f'{name}.safetensors')
            cards.append(json.loads((build / f'{name}.json').read_text()) | puzzle_accuracy(name, assets))
    (assets / 'MODEL_CARD.md').write_text(model_card(cards, len(keep), len(np.unique(puzzles['game'][keep]))))


def puzzle_accuracy(name: str, assets: pathlib.Path) -> dict:
    """Accuracy and share of legal answers of a shipped rung on all shipped puzzles, none of which it has seen."""
    import numpy as np

    from w2s_jax import metrics
    from w2s_jax.models import modes, zoo
    from w2s_jax.runtime import sharding
    from w2s_jax.store import trees
    from w2s_jax.tasks.chess import puzzles as chess
    from w2s_jax.train import step as steps
    from w2s_jax.train import trainer as training
    rows, model = chess.read_puzzles(assets / 'puzzles.npz'), modes.bind(zoo.untrained_chess(name), 'full', ())
    trainer = training.Trainer(model, steps.Static('xent', 1, 1, 1), sharding.make_mesh(), eval_batch_size=256)
    params = training.stack([trees.load(assets / f'{name}.safetensors')])
    first = trainer.predict(params, rows.inputs, reduce=metrics.best)['top'][0, :, 0].astype(np.int64)
    return {'all_puzzles': metrics.accuracy(first, rows.truth),
            'legal': metrics.share_allowed(first, rows.extras['allowed'])}


CARD = """# The built-in chess ladder

Small transformers that look at a position and name a move, pretrained from scratch on the choices of Stockfish
15.1 in games that it played against itself, and puzzles from other games of the same kind. Weights are float16,
Apache-2.0 like the project; no human games and no other data went in.

**Positions**: {positions:,} distinct ones from 13,200 games: 2 to 12 random plies, then the engine at 400 nodes a
move with a quarter of the moves random; the label is the engine's own choice.
**Puzzles**: {puzzles:,} from {games:,} other games: the best move is at least 200 centipawns better than the second
at 30,000 nodes (both lines), does not take what just moved, the solver is not lost after it nor winning without
it. No puzzle's position is among the training positions.
**Training**: cross-entropy on the engine's move, AdamW (weight decay 0.01, beta2 0.98, clip 1), cosine schedule with
3 % warm-up, batch 64, seed 0, one CPU core a rung. A rung that grew from a smaller one starts as that one, its further
layers the identity (progressive stacking); samples, steps and loss are those of its own part. Larger rungs saw fewer
samples: all of them are far from converged. `chess-s-1` to `chess-s-3` are one model at three points of its training,
on the positions of the first 2,400 games: each goes on from the one before, with a schedule of its own.
**Intended use**: a quick and honest ladder for weak-to-strong experiments. They play bad chess.

| rung | parameters | grown from | samples seen | steps | learning rate | loss | puzzle accuracy | legal answers |
|---|---|---|---|---|---|---|---|---|
{rows}

Rebuild: the commands on top of `experiments/pretrain_chess.py`.
"""


def model_card(cards: list[dict], puzzles: int, games: int) -> str:
    """The model card, in Markdown."""
    rows = '\n'.join(
        f'| {c["model"]} | {c["parameters"]:,} | {c.get("grown_from") or ""} | {c["samples_seen"]:,} | {c["steps"]:,} '
        f'| {c["learning_rate"]} | {c["final_loss"]:.3f} | {c["all_puzzles"]:.1%} | {c["legal"]:.1%} |' for c in cards)
    return CARD.format(positions=cards[0]['positions'], puzzles=puzzles, games=games, rows=rows)


def main(_):
    """Runs one stage."""
    process.quiet()
    process.keep_freed_memory()
    build = pathlib.Path(FLAGS.build).resolve()
    if FLAGS.stage in ('positions', 'puzzles'):
        from w2s_jax.tasks.chess import engine
        make, seed, chunks, games = {'positions': (engine.positions, 0, 66, 200),
                                     'puzzles': (engine.puzzles, 1, 77, 50)}[FLAGS.stage]
        engine.generate(make, engine.Play(seed=seed), FLAGS.chunks or chunks, games, build / FLAGS.stage, FLAGS.workers)
    elif FLAGS.stage == 'train':
        train(build, FLAGS.model)
    else:
        from w2s_jax.models.zoo import ASSETS
        install(build, pathlib.Path(FLAGS.assets or ASSETS / 'chess'))


if __name__ == '__main__':
    app.run(main)
