"""Methods that have models write, on the Markov language, where the gold reward of every text is known.

  python -m experiments.markov --workdir=runs/markov [--methods=cong,rlhf,on_policy_distillation] [--seeds=0,1,2,3,4]

Two small Llamas that say exactly what the language's reference says, a weak one (one layer) and a strong one (three),
are written to the work directory, and pairs of texts whose preferred one is drawn by Bradley and Terry's model of their
gold reward. Then each method runs on them as on any folder and file of pairs; what its students write after the prompts
of test pairs has a gold reward, which no phase sees. Resumes.
"""
import json
import pathlib

import jax
import numpy as np
import pandas as pd
import safetensors.numpy
import tokenizers
from absl import flags

from experiments import published
from w2s_jax import cli, metrics, paths
from w2s_jax import config as configs
from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError
from w2s_jax.store.artifacts import Store
from w2s_jax.theory import markov

METHODS = ('cong', 'rlhf', 'on_policy_distillation')
LETTERS = 'abcdefghijkl'
MODELS = {'weak': (1, 16), 'strong': (3, 64)}  # layers, width
PAIRS, TEMPERATURE = 4000, 1.
MARK = 'texts of '


def language() -> markov.Language:
    """The language of all runs."""
    return markov.drawn(jax.random.key(0), len(LETTERS))


def model(folder: pathlib.Path, layers: int, width: int, reference: np.ndarray) -> None:
    """Writes a Llama whose next token is that of `reference` `[S, S]` log-probabilities: what layers add to the
    residual stream is 0 at first, a token's embedding is one-hot, and the head reads the table off it."""
    rng, states = np.random.default_rng(0), len(reference)
    tensors = {'model.embed_tokens.weight': np.eye(states, width), 'model.norm.weight': np.ones(width),
               'lm_head.weight': np.pad(reference.T / width ** .5, ((0, 0), (0, width - states)))}
    for i in range(layers):
        at = f'model.layers.{i}.'
        tensors |= {f'{at}{name}.weight': np.ones(width) for name in ('input_layernorm', 'post_attention_layernorm')}
        tensors |= {f'{at}self_attn.{x}_proj.weight': rng.normal(size=(width, width)) / width ** .5 for x in 'qkv'}
        tensors |= {f'{at}mlp.{x}_proj.weight': rng.normal(size=(4 * width, width)) / width ** .5
                    for x in ('gate', 'up')}
        tensors |= {f'{at}self_attn.o_proj.weight': np.zeros((width, width)),
                    f'{at}mlp.down_proj.weight': np.zeros((width, 4 * width))}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
    (folder / 'config.json').write_text(json.dumps({
        'model_type': 'llama', 'architectures': ['LlamaForCausalLM'], 'vocab_size': states, 'hidden_size': width,
        'intermediate_size': 4 * width, 'num_hidden_layers': layers, 'num_attention_heads': 4,
        'num_key_value_heads': 4, 'max_position_embeddings': 64, 'rms_norm_eps': 1e-6, 'hidden_act': 'silu',
        'tie_word_embeddings': False, 'rope_theta': 10000.}))
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({c: i for i, c in enumerate(LETTERS)}, unk_token='a'))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def pairs(spoken: markov.Language, number: int, seed: int) -> list[dict]:
    """Pairs of texts of the reference after one prompt, and which is preferred: drawn by the difference of their gold
    rewards (Bradley and Terry)."""
    keys = jax.random.split(jax.random.key(seed), 4)
    prompts = markov.prompts(keys[0], spoken.start, number)
    texts = [markov.texts(k, spoken.reference, prompts) for k in keys[1:3]]
    gold = [markov.total(spoken.gold, t) for t in texts]
    first = np.asarray(jax.random.bernoulli(keys[3], jax.nn.sigmoid((gold[0] - gold[1]) / TEMPERATURE)))
    said = [[' '.join(LETTERS[i] for i in row) for row in np.asarray(t).tolist()] for t in texts]
    return [{'prompt': a[0], 'chosen': a[2:] if w else b[2:], 'rejected': b[2:] if w else a[2:], 'pair': str(i)}
            for i, (a, b, w) in enumerate(zip(*said, first, strict=True)) if a != b]


def written(workdir: pathlib.Path) -> None:
    """The models and the pairs, unless they are there."""
    spoken = language()
    for name, (layers, width) in MODELS.items():
        if not (workdir / name).exists():
            model(workdir / name, layers, width, np.asarray(spoken.reference[0], np.float64))
    for name, number, seed in (('train', PAIRS, 1), ('test', 500, 2)):
        if not (workdir / f'{name}.jsonl').exists():
            rows = pairs(spoken, number, seed)
            (workdir / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def config(workdir: pathlib.Path, method: str, seeds: tuple[int, ...]):
    """The experiment of a method."""
    c = configs.default_config()
    c.task.name, c.method.name = 'preference', method
    c = configs.compose(c)
    c.task.update(path=str(workdir / 'train.jsonl'), test_path=str(workdir / 'test.jsonl'), prompt='prompt',
                  template='{prompt} {completion}', group='pair', max_length=24, train_size=3000, test_size=400)
    c.teacher.model, c.student.model = str(workdir / 'weak'), str(workdir / 'strong')
    c.student.loss.name, c.method.baselines, c.seeds = 'dpo', (), seeds
    c.optimizer.learning_rate, c.train.epochs, c.report.html = 1e-3, 4, False
    c = configs.compose(c)
    c.method.steps, c.method.judged = 8, 400
    more = {'rlhf': {'best_of': 4, 'true_reward': True, 'rounds': 100, 'asked': 64, 'kl': .1}, 'cong': {'alpha': .4},
            'on_policy_distillation': {'rounds': 100, 'asked': 64, 'weak_beta': .1}}
    c.method.update(more[method])
    return c


def gold(text: np.ndarray, prompts: np.ndarray, spoken: markov.Language) -> np.ndarray:
    """The gold rewards `[n]` of what follows prompts, `[n, 1]` strings both."""
    tokens = [[LETTERS.index(x) for x in (p.split()[-1], *t.split())]
              for p, t in zip(prompts[:, 0], text[:, 0], strict=True)]
    return np.asarray(markov.total(spoken.gold, np.array(tokens)))


def rewards(workdir: pathlib.Path, method: str, seeds: tuple[int, ...]) -> pd.DataFrame:
    """Runs a method; a row for each of its students, and the untuned one, and seed: the mean gold reward of its texts.
    """
    c = config(workdir, method, seeds)
    experiment.run(c, workdir / method)
    made, store, spoken = plan.prepare(plan.ready(c), lambda line: None), Store(workdir / method / 'store'), language()
    rows = []
    for phase in made.phases:
        if phase.kind == 'generate' and phase.label.startswith(MARK):
            asked = store.find('table', phase.needs['inputs'].needs['inputs'].id)
            texts = store.find('generate', phase.id)
            assert asked is not None and texts is not None, 'the run is over'
            rows.append({'method': method, 'student': phase.label.removeprefix(MARK), 'seed': phase.seed,
                         'gold': gold(texts.arrays['text'], asked.arrays['text'], spoken).mean()})
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> str:
    """Gold rewards as Markdown: the mean over seeds, its standard error, and how far above the reference's."""
    lines, spoken = [], language()
    plain = float(markov.expected(spoken.reference, spoken.start, spoken.gold))
    for (method, student), part in found.groupby(['method', 'student'], sort=False):
        told = metrics.summarise(part['gold'].tolist())
        error = f' ± {told["sem"]:.2f}' if told['sem'] is not None else ''
        lines.append([method, student, f'{told["mean"]:.2f}{error}', f'{told["mean"] - plain:+.2f}'])
    return published.markdown(['method', 'student', 'gold reward', f'above the reference ({plain:.2f})'], lines)


def main() -> None:
    """Writes, runs, prints."""
    given = flags.FLAGS
    if not given.workdir:
        raise ConfigError('--workdir: missing, expected a folder')
    workdir = paths.folder(given.workdir, '--workdir').absolute()
    try:
        seeds = tuple(int(seed) for seed in given.seeds)
    except ValueError:
        raise ConfigError(f'--seeds: {",".join(given.seeds)!r}, expected whole numbers') from None
    unknown = [name for name in given.methods if name not in METHODS]
    if unknown:
        raise ConfigError(f'--methods: {unknown[0]!r}, expected some of {", ".join(METHODS)}')
    workdir.mkdir(parents=True, exist_ok=True)
    written(workdir)
    found = pd.concat([rewards(workdir, method, seeds) for method in given.methods], ignore_index=True)
    found.to_csv(workdir / 'gold.csv', index=False)
    print(table(found))


if __name__ == '__main__':
    flags.DEFINE_string('workdir', '', 'folder for everything')
    flags.DEFINE_list('methods', list(METHODS), 'which of them')
    flags.DEFINE_list('seeds', ['0', '1', '2', '3', '4'], 'one run each')
    cli.run(main)
