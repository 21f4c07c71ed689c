"""How difficult each text is to the strong model, as a column for easy-to-hard (arXiv 2312.09390, appendix B).

  python -m experiments.difficulty --config=configs/own_data.py:probe --workdir=runs/difficulty --out=graded.jsonl \\
      --config.task.path=FILE --config.task.text=COLUMN --config.task.label=COLUMN --config.student.model=FOLDER
  python -m experiments.run --config=configs/own_data.py:probe --workdir=runs/easy --config.task.path=graded.jsonl \\
      --config.task.text=text --config.task.label=label --config.task.group=group \\
      --config.task.difficulty=difficulty --config.task.cut=.5

Runs the experiment of a config whose student is a probe (its ceiling says how good such models are), and writes every
row of the pool and the test set with `difficulty`: 1 less the confidence, the largest probability, of probes on the
student's features that learned the truth of other rows, whole groups apart. Tasks of one text a row, also of the hub.
"""
import json
import pathlib

import numpy as np
from absl import flags
from ml_collections import config_flags

from w2s_jax import cli
from w2s_jax.data import Examples
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.graph import Phase
from w2s_jax.labels import probes
from w2s_jax.store import files
from w2s_jax.store.artifacts import Artifact

FOLDS, L2 = 5, 1e-3  # those of the transform `probe`


def difficulty(features: np.ndarray, truth: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`[N]` in [0, 1): 1 less the largest probability that a logistic regression on the truth `[N]` of the other folds
    gives a row of features `[N, ...]`; rows of one group `[N]` are in one fold. Raises DataError for fewer groups than
    folds."""
    different, which = np.unique(group, return_inverse=True)
    if len(different) < FOLDS:
        raise DataError(f'{len(different)} groups of rows, expected at least {FOLDS}, one for each fold')
    fold, x = (rng.permutation(len(different)) % FOLDS)[which], probes.standardised(features)
    labels, found = np.eye(int(truth.max()) + 1)[truth], np.zeros(len(x))
    for one in range(FOLDS):
        held = fold == one
        found[held] = 1 - probes.predicted(x[~held], labels[~held], x[held], L2).max(-1)
    return found


def graded(parts: list[tuple[Examples, np.ndarray]], names: list[str], seed: int) -> list[dict]:
    """`{text, label, group, difficulty}` of the rows of several parts with their features `[N, ...]`."""
    truth, group = (np.concatenate([getattr(rows, k) for rows, _ in parts]) for k in ('truth', 'group'))
    texts = [str(row[0]) for rows, _ in parts for row in rows.inputs['text'][:]]
    features = np.concatenate([array for _, array in parts])
    hard = difficulty(features, truth, group, np.random.default_rng((seed, 4)))
    numbers = np.unique(group, return_inverse=True)[1]
    return [{'text': text, 'label': names[t], 'group': int(g), 'difficulty': round(float(h), 6)}
            for text, t, g, h in zip(texts, truth, numbers, hard, strict=True)]


def run(config, workdir: pathlib.Path, stream=None) -> list[dict]:
    """The rows of a config's task, graded. Raises ConfigError for a task or a student that cannot be."""
    config = plans.ready(config)
    if config.student.mode != 'probe':
        raise ConfigError(f"student.mode: {config.student.mode!r}, expected 'probe'")
    plan = plans.prepare(config, lambda line: None)
    texts = plan.dataset.pool.inputs.get('text')
    if texts is None or texts.shape[1] != 1:
        raise ConfigError(f'task.name: {config.task.name!r}, expected a task of one text a row')
    experiment.run(config, workdir, stream)
    ceiling = next(t.need for t in plan.targets if t.role == 'ceiling')
    assert isinstance(ceiling, Phase)
    parts = [(rows, read(workdir, ceiling.needs[name]))
             for rows, name in ((plan.dataset.pool, 'inputs'), (plan.dataset.test, 'predict/test'))]
    names = plan.dataset.notes.get('classes')
    return graded(parts, list(map(str, names or range(plan.dataset.num_classes))), config.task.seed)


def read(workdir: pathlib.Path, phase) -> np.ndarray:
    """The features `[N, ...]` that a phase of a work directory has made."""
    return Artifact(workdir / 'store' / f'{phase.kind}-{phase.id}').arrays['features']


def main() -> None:
    """Runs, grades, writes."""
    given = flags.FLAGS
    for name in ('config', 'workdir', 'out'):
        if given[name].value is None:
            raise ConfigError(f'--{name}: missing, expected one')
    out = pathlib.Path(given.out).expanduser()
    if out.suffix != '.jsonl':
        raise ConfigError(f'--out: {given.out!r}, expected a file NAME.jsonl')
    if not out.parent.is_dir():
        raise ConfigError(f'--out: {given.out!r}, expected a file in a folder that is there')
    rows = run(given.config, pathlib.Path(given.workdir).expanduser())
    files.write(out, ''.join(json.dumps(row) + '\n' for row in rows).encode())
    hard = np.array([row['difficulty'] for row in rows])
    print(f'{out}: {len(rows)} rows, difficulty {hard.min():.3f} to {hard.max():.3f}, median {np.median(hard):.3f}')


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'configs/F.py or configs/F.py:argument')
    flags.DEFINE_string('workdir', None, 'where the experiment goes')
    flags.DEFINE_string('out', None, 'the file of graded rows, NAME.jsonl')
    cli.run(main)
