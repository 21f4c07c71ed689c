"""The track `probes`: a linear student on cached features, taught by a weak model that sees little.

Without a file the rows are scikit-learn's digits, so that nothing is downloaded: the weak model sees a few pixels, the
student a secret random layer of all of them, with noise. With `--track=probes:FILE.npz` rows are the user's: arrays
`strong` [N, D], `weak` [N, W], `label` [N], as the task `features` reads them.
"""
import dataclasses
import pathlib
from typing import Any

import numpy as np

from w2s_jax import api
from w2s_jax.api import SOURCES, Dataset, Examples

PIXELS, LAYER, NOISE = 10, 128, .1
SHARES = (.5, 1 / 6, 1 / 6)  # of the rows: pool, public, private; the rest is the third data set
SMALL = 600  # rows of a first check


@SOURCES.register('judge', teacher=False)
def judge(b, seed: int):
    """Labels of a teacher that the judge has trained for this seed: `given` is `[N, S, K]`, even where the seed's
    student must not look."""
    rows, at = b.halves[seed].student, b.seeds.index(seed)
    return b.given_answers(), api.Labels(api.source(b.dataset.pool.given[rows.index, at]), rows)


def config():
    """A probe trained for long: the naive student learns its supervisor's errors."""
    c = api.default_config()
    c = api.apply(c, {'task.name': 'digits', 'labels.source': 'judge', 'student.model': 'linear',
                      'student.mode': 'probe', 'student.stopping.name': '', 'optimizer.learning_rate': 1e-2,
                      'optimizer.warmup': 0., 'optimizer.schedule': 'constant', 'train.epochs': 60,
                      'train.batch_size': 50, 'method.baselines': ()})
    c.train.eval_batch_size, c.train.checkpoint_every = 100, 0
    return c


def rows_of(path: str, rng: np.random.Generator) -> tuple[Examples, int]:
    """All rows, with inputs `features` and `weak`, and the number of classes. Raises DataError, ConfigError."""
    name = 'features' if path else 'digits'
    told = api.apply(api.default_config(), {'task.name': name} | ({'task.path': path} if path else {}))
    found = api.TASKS[name].fn(told.task)
    rows = joined(found)
    if path:
        return rows, found.num_classes
    pixels = rows.inputs['features']
    seen = rng.choice(np.flatnonzero(pixels.std(0) > .2), PIXELS, replace=False)
    hidden = np.maximum((pixels - pixels.mean(0)) @ rng.normal(size=(64, LAYER)) + rng.normal(size=LAYER), 0)
    hidden = (hidden - hidden.mean(0)) / (hidden.std(0) + 1e-6) + NOISE * rng.normal(size=hidden.shape)
    inputs = {'features': hidden.astype(np.float32), 'weak': pixels[:, seen]}
    return dataclasses.replace(rows, inputs=inputs), found.num_classes


def joined(found: Dataset) -> Examples:
    """Pool and test set as one."""
    parts = [found.pool, found.test]
    inputs = {k: np.concatenate([p.inputs[k] for p in parts]) for k in found.pool.inputs}
    truth = np.concatenate([p.truth for p in parts])
    return Examples(inputs, truth, np.arange(len(truth)))


def material(path: str, secret: int, final: bool, small: bool, seeds: tuple[int, ...]) -> dict[str, Any]:
    """The fields of tracks.Material. Cuts by the secret: pool, two halves of test rows, and for `final` two halves of
    others, with another weak model's pixels and another layer."""
    word = [secret >> 32 * i & 0xFFFFFFFF for i in range(4)]
    rows, k = rows_of(path, np.random.default_rng((*word, final, 21)))
    order = np.random.default_rng((*word, 22)).permutation(len(rows))[:SMALL if small else None]
    cuts = [round(len(order) * s) for s in np.cumsum(SHARES)]
    pool, public, private, third = np.split(order, cuts)
    if final:
        public, private = third[::2], third[1::2]
    parts = [rows.take(part) for part in (pool, public, private)]
    return {'name': 'probes', 'num_classes': k, **dict(zip(('pool', 'public', 'private'),
                                                          labelled(parts, k, seeds), strict=True))}


def labelled(parts: list[Examples], k: int, seeds: tuple[int, ...]) -> list[Examples]:
    """Parts (the pool first) with the labels `[N, S, K]` of a teacher a seed, and without what it sees. A teacher is a
    logistic regression on the truth of its half; of the pool it labels the student's half, the rest is even."""
    from sklearn.linear_model import LogisticRegression
    pool = parts[0]
    given = [np.full((len(p), len(seeds), k), 1 / k, np.float32) for p in parts]
    for at, seed in enumerate(seeds):
        mine, students = api.halves(np.arange(len(pool)), .5, seed)
        model = LogisticRegression(max_iter=500).fit(pool.inputs['weak'][mine], pool.truth[mine])
        for i, part in enumerate(parts):
            where = students if i == 0 else np.arange(len(part))
            given[i][where, at] = 0.  # also of a class that the teacher has never seen
            given[i][where[:, None], at, model.classes_] = model.predict_proba(part.inputs['weak'][where])
    return [Examples({'features': p.inputs['features']}, p.truth, np.arange(len(p)), g)
            for p, g in zip(parts, given, strict=True)]


def library() -> tuple[str, ...]:
    """Where scikit-learn keeps its data sets: no idea may read there."""
    import sklearn.datasets
    return (str(pathlib.Path(sklearn.datasets.__file__).parent / 'data'),)
