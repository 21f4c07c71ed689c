"""Easy to hard (arXiv 2312.09390, appendix B): what is learned lies on one side of a cut, tests lie on both.

A task that knows how difficult its rows are has it among their metadata, as `difficulty` `[N]`. Rows whose difficulty
is at most that of the cut are easy. Test sets are the same whatever is learned, so that trainings compare.
"""
import dataclasses
from typing import Any

import numpy as np

from w2s_jax.data import Examples
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.registry import Setting

KEY = 'difficulty'  # among the metadata of rows
ROOM = 10  # rows that are read for each one wanted, where the share of either side is not known before
SETTINGS: dict[str, Any] = {
    'cut': Setting(.5, -1e12, 1e12, doc='rows of at most this difficulty are easy; in (0, 1): so large a share of the '
                                        'pool is'),
    'train': Setting('easy', choices=('easy', 'hard', 'all'), doc="with task.difficulty: which rows the pool is of; "
                                                                  "test sets: `test` (all), `easy`, `hard`"),
    'bands': Setting(0, 0, 100, doc='so many further test sets, `band_1` the easiest, of about one size')}


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where easy rows end: at `at`. given: as the user wrote it.  train, bands: as the task's settings."""
    of: str
    given: float
    at: float
    train: str
    bands: int


def wanted(task) -> bool:
    """Whether a task is cut. Raises ConfigError for settings of a cut that there is not."""
    if task.get(KEY):
        return True
    for name, setting in SETTINGS.items():
        if name in task and task[name] != setting.default:
            raise ConfigError(f"task.{name}: {task[name]!r}, expected {setting.default!r} as task.{KEY} is ''")
    return False


def room(task) -> float:
    """How many rows are read for each one of the pool, so that enough are of the side that is learned. Does not depend
    on which side: all are cut from the same rows."""
    if not wanted(task):
        return 1
    return 1 / min(task.cut, 1 - task.cut) if 0 < task.cut < 1 else ROOM


def cut(pool, task) -> Cut | None:
    """The cut of a pool whose rows have difficulties `[N]`; None where the task has none."""
    if not wanted(task):
        return None
    at = float(np.quantile(pool, task.cut, method='lower')) if 0 < task.cut < 1 else task.cut
    return Cut(task[KEY], task.cut, at, task.train, task.bands)


def learned(level: Cut | None, pool) -> np.ndarray:
    """The places of rows that the pool keeps, of difficulties `[N]`; all without a cut. Raises DataError for none."""
    values = np.asarray(pool)
    if level is None or level.train == 'all':
        return np.arange(len(values))
    sides = _sides(level, values)
    if not len(sides[level.train]):
        raise DataError(_uneven(level, values, 'pool', f'{level.train} rows'))
    return sides[level.train]


def tests(level: Cut | None, test: Examples) -> dict[str, Examples]:
    """The test set by itself, and if there is a cut its easy rows, its hard rows and its bands. Raises DataError if a
    side is empty."""
    if level is None:
        return {'test': test}
    values = test.metadata[KEY]
    sides = _sides(level, values)
    if not all(map(len, sides.values())):
        raise DataError(_uneven(level, values, 'test set', 'some of both'))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, level.bands + 1)[1:-1])) if level.bands else values[:0]
    band = np.searchsorted(edges, values)  # rows of one difficulty stay in one band
    parts = sides | {f'band_{k + 1}': np.flatnonzero(band == b)
                     for k, b in enumerate(np.unique(band) if level.bands else ())}
    return {'test': test} | {name: test.take(rows) for name, rows in parts.items()}


def notes(level: Cut | None, pool, found: dict[str, Examples]) -> dict:
    """What results.json says of a cut of a pool of difficulties `[N]` into the test sets that were found."""
    if level is None:
        return {}
    ranges = {k: [len(v), float(v.metadata[KEY].min()), float(v.metadata[KEY].max())]
              for k, v in found.items() if KEY in v.metadata}
    return {KEY: {'of': level.of, 'cut': level.at, 'train': level.train,
                  'pool': {k: len(v) for k, v in _sides(level, np.asarray(pool)).items()}, 'tests': ranges}}


def _sides(level: Cut, values: np.ndarray) -> dict[str, np.ndarray]:
    easy = values <= level.at
    return {'easy': np.flatnonzero(easy), 'hard': np.flatnonzero(~easy)}


def _uneven(level: Cut, values: np.ndarray, where: str, expected: str) -> str:
    counts = {k: len(v) for k, v in _sides(level, values).items()}
    return (f'task.cut: {level.given:g}: of {len(values)} rows of the {where} {counts["easy"]} are easy and '
            f'{counts["hard"]} hard ({level.of} {values.min():g} to {values.max():g}, cut at {level.at:g}), expected '
            f'{expected}')
