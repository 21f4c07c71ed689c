"""Which of two moves is best: weak rungs of the chess ladder judge what stronger ones, or weaker, show them. Every rung
judges every rung under every protocol; tables of accuracy with intervals, oversight.csv in the work directory. Resumes.

  python -m experiments.chess_oversight --workdir=runs/oversight [--rungs=chess-s-1,chess-xs,chess-s,chess-m]
      [--seeds=0,1,2] [--questions=200] [--plies=2] [--width=3]

A judge (w2s_jax/protocols/chess_lines.py) learns, from TAUGHT puzzles of the pool and lines that it played itself, to
compare the positions in which lines end. An agent takes, out of `width` moves that its policy likes, the one after
which the judge thinks best of its claim. `plies`: moves of a line after the claim. A seed draws the judge's puzzles
and the wrong moves.
"""
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import flags
from jax.tree_util import Partial
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold

from experiments import published
from w2s_jax import cli, config
from w2s_jax.errors import ConfigError
from w2s_jax.models import chess_moves, zoo
from w2s_jax.protocols import Question, Transcript, chess_lines, held, sandwich, scores
from w2s_jax.protocols.protocols import pushing
from w2s_jax.tasks.chess import choices, puzzles

TAUGHT, CHUNK = 1000, 50
STRENGTHS = (1e-4, 1e-3, 1e-2, .1, 1.)  # C of scikit-learn, the inverse weight of the penalty; chosen by 5 folds
ALONE = ('answers_only', 'direct')  # protocols without agents
GAINS = ('mean', 'low', 'high', 'p')
TOLD = {'debate': 'debate', 'consultancy': 'consultancy', 'open_consultancy': 'open consultancy',
        'critique': 'critique', 'colluders': 'control: both for the lie'}


@functools.cache
def rung(name: str) -> dict[str, Partial]:
    """A pretrained rung's policy and what it sees of a board: the mean of its squares' hidden states."""
    params = jax.tree.map(jnp.asarray, zoo.pretrained_chess(name).load(None))
    return {'policy': Partial(_policy(name), params), 'states': Partial(_states(name), params)}


@functools.cache
def _states(name: str):
    parts = zoo.pretrained_chess(name)
    return lambda params, tokens: _hidden(parts, params, tokens)[0].mean(0)


@functools.cache
def _policy(name: str):
    parts = zoo.pretrained_chess(name)
    return lambda params, tokens: parts.head.apply({'params': params['head']}, _hidden(parts, params, tokens))[0]


def _hidden(parts, params, tokens):
    return parts.read({'params': params['backbone']}, {'tokens': tokens[None, None]})


def questions(rows, seed: int) -> tuple[Question, np.ndarray]:
    """Puzzles as questions, and which claim is right."""
    found = choices.choices(rows, seed)
    index = np.vectorize(lambda a, b: chess_moves.move_index(int(a), int(b)))
    claims = index(found.inputs['squares'][..., 0], found.inputs['squares'][..., 1]).astype(np.int32)
    boards = found.inputs['tokens'][:, 0].astype(np.int32)
    return Question(boards, np.zeros(len(boards), np.int32), claims), np.asarray(found.truth)


def of_seed(seed: int, count: int) -> dict:
    """{'taught', 'asked'} -> (questions, right). The puzzles that are asked are the same for all seeds."""
    c = config.default_config()
    c.task.name, c.task.test_size = 'chess', 2 * count
    found = puzzles.load(c.task, log=lambda *_: None)
    taught = found.pool.take(np.random.default_rng(seed).permutation(len(found.pool))[:2 * TAUGHT])
    asked = questions(found.tests['test'], seed)
    if len(asked[1]) < count:
        raise ConfigError(f'--questions: {count}, expected at most {len(asked[1])}')
    first = lambda some, n: jax.tree.map(lambda x: x[:n], some)
    return {'taught': first(questions(taught, seed), TAUGHT), 'asked': first(asked, count)}


def in_chunks(name: str, judge, agents, asked: Question, seed: int, **given) -> Transcript:
    """`held` of so many questions at a time: memory."""
    parts = []
    for at in range(0, len(asked.claims), CHUNK):
        some = jax.tree.map(lambda x, at=at: x[at:at + CHUNK], asked)
        parts.append(jax.device_get(held(name, judge, agents, some, jax.random.key(seed * 1000 + at), **given)))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@jax.jit
def seen(judge_rung: dict, found: Transcript) -> jax.Array:
    """`[N, F]`, what a judge compares of each transcript."""
    one = lambda one: chess_lines.compared(judge_rung, one.public, one.claims, chess_lines.ends(one))
    return jax.vmap(one)(found)


def fitted(name: str, learned: tuple[Question, np.ndarray], seed: int, plies: int) -> np.ndarray:
    """Weights of a judge: logistic regression without an intercept on lines of its own of every length up to `plies`.
    Five folds over questions choose its strength."""
    (taught, right), features, model = learned, [], rung(name)
    nothing = jnp.zeros(seen_width(model, taught))
    found = in_chunks('direct', chess_lines.judge(model, nothing), (), taught, seed, turns=2 * plies)
    for moves in range(plies + 1):
        part = found._replace(said=jnp.broadcast_to(jnp.arange(2 * plies)[None] < 2 * moves, found.said.shape))
        features.append(np.concatenate([np.asarray(seen(model, jax.tree.map(lambda x, at=at: x[at:at + CHUNK], part)))
                                        for at in range(0, len(right), CHUNK)]))
    x, y = np.concatenate(features), np.tile(right == 0, plies + 1)
    scale = np.sqrt((x ** 2).mean(0)) + 1e-6
    folds = GroupKFold(5).split(x, y, np.tile(np.arange(len(right)), plies + 1))
    plain = LogisticRegression(fit_intercept=False, max_iter=500)
    fit = GridSearchCV(plain, {'C': STRENGTHS}, cv=list(folds), scoring='neg_log_loss').fit(x / scale, y)
    return (fit.best_estimator_.coef_[0] / scale).astype(np.float32)


def seen_width(model: dict, taught: Question) -> int:
    """How many weights a judge has."""
    return 1 + 2 * (chess_lines.KINDS + 2 + jax.eval_shape(model['states'], taught.public[0]).shape[0])


def judged(names: tuple[str, str | None], world: dict, weights: np.ndarray, seed: int, given) -> dict[str, np.ndarray]:
    """Protocol -> `correct` of each question (of both assignments the mean), of a judge and agents of one rung; None:
    of the protocols without."""
    asked, right = world['asked']
    model, turns = rung(names[0]), 2 * given.plies
    judge = chess_lines.judge(model, jnp.asarray(weights))
    run = lambda name, *agents, **more: in_chunks(name, judge, agents, asked, seed, **more)
    if names[1] is None:
        return {'answers_only': scores.correct(run('answers_only').verdict, right),
                'direct': scores.correct(run('direct', turns=turns).verdict, right)}
    agent = chess_lines.advocate(rung(names[1]), model, jnp.asarray(weights), given.width)
    # One that moves for both sides does the same whoever sent it: all protocols of one voice are read off two runs.
    voices = np.stack([run('consultancy', pushing(agent, side), turns=turns).verdict for side in (0, 1)])
    believed = np.asarray(_believed(rung(names[1])['policy'], asked, None))
    of = lambda side: scores.correct(np.take_along_axis(voices, side[None, :, None], 0)[0], right)
    return {'debate': scores.correct(run('debate', agent, agent, rounds=given.plies).verdict, right),
            'consultancy': (of(right) + of(1 - right)) / 2, 'open_consultancy': of(believed),
            'critique': of(1 - believed), 'colluders': of(1 - right)}


_believed = jax.jit(jax.vmap(chess_lines.believed, (None, 0, None)), static_argnums=2)


def cells(given, workdir: pathlib.Path) -> dict[tuple[str, str | None], dict[str, np.ndarray]]:
    """(judge, agent or None) -> protocol -> `correct` `[seeds, questions]`. A file a cell and seed, made once."""
    found: dict = {}
    for seed in given.seeds:
        world, folder = of_seed(int(seed), given.questions), workdir / f'seed{seed}'
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.rungs:
            weights = once(folder / f'{name}.weights.npz', lambda name=name, world=world, seed=seed: {
                'weights': fitted(name, world['taught'], int(seed), given.plies)})['weights']
            for agent in (None, *given.rungs):
                one = once(folder / f'{name}.{agent}.npz', lambda name=name, agent=agent, world=world, seed=seed,
                           weights=weights: judged((name, agent), world, weights, int(seed), given))
                print(f'seed {seed}, judge {name}, agents {agent or "none"}: '
                      + ', '.join(f'{k} {v.mean():.3f}' for k, v in one.items()), flush=True)
                found.setdefault((name, agent), []).append(one)
    return {k: {name: np.stack([one[name] for one in v]) for name in v[0]} for k, v in found.items()}


def once(path: pathlib.Path, make) -> dict[str, np.ndarray]:
    """The arrays of a file, which is written if it is not there."""
    if not path.exists():
        part = path.with_suffix('.part.npz')
        np.savez(part, **make())
        part.rename(path)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def table(found: dict, rungs: list[str]) -> pd.DataFrame:
    """A row a judge, agent and protocol: accuracy, what it gains over the judge's own lines and over claims alone with
    intervals over seeds and questions, what of the way to the truth it recovers, and what the audit predicts."""
    rows = []
    for judge, agent in itertools.product(rungs, rungs):
        alone = found[judge, None]
        audit = found[agent, None]['answers_only'].mean() - alone['answers_only'].mean()
        for name, right in found[judge, agent].items():
            gains = {f'{key} {base}': value for base in ALONE
                     for key, value in scores.compared(right, alone[base]).items() if key in GAINS}
            recovered = (right.mean() - alone['direct'].mean()) / (1 - alone['direct'].mean())
            rows.append({'judge': judge, 'agents': agent, 'protocol': name, 'accuracy': right.mean(), 'audit': audit,
                         **{base: alone[base].mean() for base in ALONE}, 'recovered': recovered, **gains})
    return pd.DataFrame(rows)


def square(found: pd.DataFrame, protocol: str, rungs: list[str]) -> str:
    """A table of Markdown: judges by agents; accuracy, and its difference from the claims alone with its interval."""
    rows = found[found['protocol'] == protocol].set_index(['judge', 'agents'])
    lines = []
    for judge in rungs:
        one = [rows.loc[(judge, agent)] for agent in rungs]
        base = [f'{100 * one[0][name]:.1f}' for name in ALONE]
        cell = [f'{100 * r["accuracy"]:.1f} ({100 * r["mean answers_only"]:+.1f} [{100 * r["low answers_only"]:+.1f}, '
                f'{100 * r["high answers_only"]:+.1f}])' for r in one]
        lines.append([judge, *base, *cell])
    return f'**{TOLD[protocol]}**\n\n' + published.markdown(['judge', 'claims alone', 'own lines', *rungs], lines)


def audited(found: pd.DataFrame) -> str:
    """In how many cells of two rungs the audit (do the agents, from the claims alone, know better than the judge?) has
    the sign of what debate gains."""
    lines, rows = [], found[(found['protocol'] == 'debate') & (found['judge'] != found['agents'])]
    for base in ALONE:
        told = sandwich.foretold(rows['audit'], rows[f'mean {base}'])
        lines.append(f'The audit has the sign of debate minus {base.replace("_", " ")} in {told["agree"]} of '
                     f'{told["cells"]} cells (p {told["p"]:.2g}).')
    return '\n'.join(lines)


def main() -> None:
    """Runs what is not there yet, prints the tables and writes oversight.csv."""
    given = flags.FLAGS
    for name in given.rungs:
        if name not in zoo.CHESS_LADDER:
            raise ConfigError(f'--rungs: {name!r}, expected one of {", ".join(zoo.CHESS_LADDER)}')
    if given.questions % CHUNK:
        raise ConfigError(f'--questions: {given.questions}, expected a multiple of {CHUNK}')
    if given.workdir is None:
        raise ConfigError('--workdir: missing, expected a folder')
    workdir = pathlib.Path(given.workdir).expanduser().absolute() / f'plies{given.plies}_width{given.width}'
    found = table(cells(given, workdir), given.rungs)
    found.to_csv(workdir / 'oversight.csv', index=False)
    for protocol in TOLD:
        print(square(found, protocol, given.rungs))
    print(audited(found))


def define_flags() -> None:
    """Those of the command."""
    flags.DEFINE_string('workdir', None, 'where verdicts and tables go')
    flags.DEFINE_list('rungs', ['chess-s-1', 'chess-xs', 'chess-s', 'chess-m'], 'of the chess ladder')
    flags.DEFINE_list('seeds', ['0', '1', '2'], 'of judges and wrong moves')
    flags.DEFINE_integer('questions', 200, 'puzzles', lower_bound=CHUNK)
    flags.DEFINE_integer('plies', 2, 'moves of a line after the claim', lower_bound=0)
    flags.DEFINE_integer('width', 3, 'moves that an agent looks at', lower_bound=1)


if __name__ == '__main__':
    define_flags()
    cli.run(main)
