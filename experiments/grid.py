"""A grid of experiments: every phase that its cells share runs once; run it again to go on where it was stopped.

  python -m experiments.grid --config=configs/chess_grid.py --workdir=runs/chess_grid [--dry_run]
  python -m experiments.grid --config=configs/chess_grid.py --workdir=/shared/folder --executor=ray

The config file has `get_sweep()` beside `get_config()`; an argument (`configs/F.py:ARG`) goes to both. The same
command on several machines that share the work directory divides the work among them.
"""
import importlib.util
import inspect
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from w2s_jax import cli
from w2s_jax.engine import estimate, grid
from w2s_jax.errors import ConfigError, UserError
from w2s_jax.runtime import multihost

CONFIG = config_flags.DEFINE_config_file('config', None, 'configs/F.py or configs/F.py:argument, with get_sweep()')
cli.define_hosts()
WORKDIR = flags.DEFINE_string('workdir', None, 'where artifacts and results go')
STORE = flags.DEFINE_string('store', None, 'folder or URL of the artifacts, which work directories may share')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'say what would be run, what it costs and what is done, and run nothing')
EXECUTOR = flags.DEFINE_enum('executor', 'local', ['local', 'ray'], 'where phases run')
RAY_ADDRESS = flags.DEFINE_string('ray_address', None, 'of a running cluster; none: one on this machine')
CPUS = flags.DEFINE_float('cpus_per_group', 1, 'processors that Ray reserves for a group of runs')
GPUS = flags.DEFINE_float('gpus_per_group', 0, 'GPUs that Ray reserves for a group of runs')
RETRIES = flags.DEFINE_integer('retries', 3, 'how often Ray starts a group again whose worker died')


def main() -> None:
    """Runs the grid that the flags describe."""
    for flag in (CONFIG, WORKDIR):
        if flag.value is None:
            raise ConfigError(f'--{flag.name}: missing, expected for example '
                              '--config=configs/chess_grid.py --workdir=runs/chess_grid')
    file: Any = flags.FLAGS['config']
    try:
        with cli.no_exit():
            cells = get_sweep(*file.config_filename.partition(':')[::2])
    except UserError:
        raise
    except Exception as e:  # a config file is a program: it may raise anything
        raise ConfigError(cli.explain(e, sys.argv)) from None
    workdir = str(WORKDIR.value)
    if DRY_RUN.value:
        print(estimate.dry_run(CONFIG.value, cells, workdir, STORE.value))
        return
    options = {'address': RAY_ADDRESS.value, 'resources': {'num_cpus': CPUS.value, 'num_gpus': GPUS.value},
               'retries': RETRIES.value} if EXECUTOR.value == 'ray' else {}
    grid.run(CONFIG.value, cells, workdir, executor=EXECUTOR.value, store=STORE.value, **options)
    if multihost.is_coordinator():
        print(f'report: {workdir}/report.html  tables: {workdir}/results.csv, runs.csv, results.tex')


def get_sweep(path: str, argument: str) -> list[dict]:
    """What `get_sweep()` of a config file returns. Raises ConfigError where it has none."""
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, 'get_sweep'):
        raise ConfigError(f'--config={path}: no get_sweep() in it, expected one beside get_config() '
                          '(python -m experiments.run runs a single config)')
    takes = bool(inspect.signature(module.get_sweep).parameters)
    return module.get_sweep(argument) if takes and argument else module.get_sweep()


if __name__ == '__main__':
    cli.run(main)
