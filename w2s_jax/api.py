"""What scripts and notebooks call: an experiment or a grid in, tables out. What is done already is not done again.

Nothing of the process is changed: hooks, signals, logging, warnings, JAX's settings and malloc's are the caller's. Only
the commands (cli.py) change them; a script that trains small models on a CPU may do as they do, for speed:
`w2s_jax.runtime.process.keep_freed_memory()`.
"""
from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pathlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

from w2s_jax import paths
from w2s_jax.errors import ConfigError, DataError, NonFiniteError, StoreError, UserError, WeightsError  # noqa: F401

if TYPE_CHECKING:
    import ml_collections
    import pandas as pd

# Everything else is imported when it is called: `import w2s_jax.errors` must not start JAX.


@dataclasses.dataclass(frozen=True)
class Results:
    """What a work directory holds of a finished experiment or grid.

    students: a row a cell and student: models, method, loss, swept fields, accuracies with standard errors, PGR and
    gain with intervals, agreement with the supervisor (columns of results.csv).  runs: a row a cell, student and seed
    (columns of runs.csv).  raw: the object of results.json, or of grid.json.
    """
    workdir: pathlib.Path

    def __post_init__(self):
        object.__setattr__(self, 'workdir', paths.folder(self.workdir, 'workdir'))

    @functools.cached_property
    def students(self) -> pd.DataFrame:
        """The table of results.csv."""
        from w2s_jax.report import shape, tables
        with shape.doubting(self.workdir):
            return tables.students(tables.load(self.workdir))

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """The table of runs.csv."""
        from w2s_jax.report import shape, tables
        with shape.doubting(self.workdir):
            return tables.runs(tables.load(self.workdir))

    @functools.cached_property
    def raw(self) -> dict[str, Any]:
        """All that was found, as JSON."""
        from w2s_jax.report import reading
        path = self.workdir / 'grid.json'
        return reading.read(path if path.exists() else self.workdir / 'results.json')

    @property
    def report(self) -> pathlib.Path:
        """The page."""
        return self.workdir / 'report.html'


def _called_right(fn: Callable) -> Callable:
    """`fn`, which raises ConfigError for arguments that it does not take."""
    @functools.wraps(fn)
    def call(*args, **kwargs):
        try:
            inspect.signature(fn).bind(*args, **kwargs)
        except TypeError as e:
            raise ConfigError(f'{fn.__name__}: {e}, expected {fn.__name__}'
                              f'({", ".join(inspect.signature(fn).parameters)})') from None
        stream = kwargs.get('stream')
        if stream is not None and not hasattr(stream, 'write'):
            raise ConfigError(f'stream: {stream!r}, expected a file to write to, or None')
        return fn(*args, **kwargs)
    return call


@_called_right
def default_config() -> ml_collections.ConfigDict:
    """Every field with its default (config.py): change what you must."""
    from w2s_jax import config
    return config.default_config()


@_called_right
def run(config, workdir: str | pathlib.Path, stream: TextIO | None = None) -> Results:
    """Runs an experiment, or what is missing of it, in `workdir`; progress goes to `stream` (None: standard error).

    Raises UserError (errors.py) for what the user can mend, in one line.
    """
    from w2s_jax.engine import experiment
    experiment.run(config, paths.folder(workdir, 'workdir'), stream)
    return Results(pathlib.Path(workdir))


@_called_right
def grid(config, cells: Iterable[dict[str, Any]], workdir: str | pathlib.Path, stream: TextIO | None = None,
         executor: str = 'local', **options) -> Results:
    """Runs a grid, or what is missing of it: `config` once for each dict of overrides in `cells` (see `product`).

    Args:
      executor: 'local', or 'ray' with its options (cluster.py).
    Raises UserError; a cell whose run breaks down has its reason in the tables.
    """
    from w2s_jax.engine import grid as grids
    grids.run(config, list(cells) if isinstance(cells, Iterable) else cells, paths.folder(workdir, 'workdir'), stream,
              executor, **options)
    return Results(pathlib.Path(workdir))


@_called_right
def values(field: str, options: Iterable) -> list[dict[str, Any]]:
    """A cell for each value of a dotted field."""
    from w2s_jax.engine import sweep
    return sweep.values(field, options)


@_called_right
def product(*sweeps: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A cell for each combination of a cell of every sweep. Raises ConfigError."""
    from w2s_jax.engine import sweep
    return sweep.product(*sweeps)


@_called_right
def zipped(*sweeps: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first cells of all sweeps together, the second ones, and so on. Raises ConfigError."""
    from w2s_jax.engine import sweep
    return sweep.zipped(*sweeps)


@_called_right
def chain(*sweeps: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells of one sweep after those of another."""
    from w2s_jax.engine import sweep
    return sweep.chain(*sweeps)


# What programs that are built on this one need beside the above (researcher/), each from where it is.
MORE = {'Dataset': 'data', 'Examples': 'data', 'Forward': 'engine.students', 'Trained': 'engine.students',
        'train': 'engine.students', 'flat_params': 'engine.students', 'restored': 'engine.students',
        'predicts_plainly': 'engine.students', 'apply': 'engine.sweep', 'flat': 'config',
        'decides': 'config', 'draw': 'tasks.synthetic', 'pgr': 'metrics', 'holm': 'metrics',
        'write_json': 'store.artifacts', 'write': 'store.files',
        'Registry': 'registry', 'Setting': 'registry', 'Settings': 'registry',
        'known': 'registry', 'SOURCES': 'labels.sources', 'Labels': 'methods.parts', 'source': 'graph',
        'halves': 'data', 'TASKS': 'tasks',
        'LOSSES': 'losses', 'OBJECTIVES': 'objectives', 'METHODS': 'methods', 'TRANSFORMS': 'labels.transforms',
        'STOPPING': 'train.stopping', 'MODELS': 'models.zoo', 'keep_freed_memory': 'runtime.process',
        'keep_compilations': 'runtime.process', 'quiet': 'runtime.process', 'load_plugins': 'engine.plan',
        'blamed': 'engine.plan'}


def __getattr__(name: str) -> Any:
    """Those of MORE, imported when they are first asked for."""
    if name not in MORE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'w2s_jax.{MORE[name]}'), name)
