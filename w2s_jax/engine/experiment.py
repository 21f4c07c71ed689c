"""One experiment: a config and a work directory in, results out. Running it again does only what is missing."""
import contextlib
import json
import pathlib
import time

from w2s_jax import config as configs
from w2s_jax import paths
from w2s_jax.engine import plan as plans
from w2s_jax.engine import results, runner
from w2s_jax.errors import StoreError
from w2s_jax.report import page, sinks, tables
from w2s_jax.report.log import Log
from w2s_jax.runtime import multihost
from w2s_jax.store.artifacts import Store, alone, write_json


def run(config, workdir: str | pathlib.Path, stream=None) -> dict:
    """Runs every phase of `config` that `workdir` does not hold yet, and writes results, tables and report.

    Returns: the object of `results.json`. Raises UserError (errors.py) for what the user can mend.
    """
    began = time.perf_counter()
    config = plans.ready(config)
    workdir = paths.folder(workdir, '--workdir')
    multihost.agree('config', configs.flat(config) | results.versions())
    if not multihost.is_coordinator():
        runner.follow([plans.prepare(config, runner.quiet)], Store(workdir / 'store'))
        return json.loads((workdir / 'results.json').read_text())
    store = Store(workdir / 'store')
    with alone(workdir):
        claim(workdir, store, config)
        with contextlib.closing(make_log(config, workdir, stream)) as log:
            plan = plans.prepare(config, log.line)
            store.clear_parts()
            store.name(workdir, [p.id for p in plan.phases])
            done = runner.finished(plan.phases, store)
            with runner.leading([plan], store):
                outcomes = runner.execute([plan], store, log)
                found = results.assemble(plan, outcomes, done, time.perf_counter() - began)
                results.publish(workdir, config, found, outcomes[plan.target.id], fresh=plan.target.id not in done)
            log.line(page.terminal_table(tables.load(workdir)))
            return found


def make_log(config, workdir: pathlib.Path, stream=None) -> Log:
    """The log of a work directory, with the sinks that the config names."""
    return Log(workdir / 'metrics.jsonl', stream, sinks=sinks.openers(config.report.sinks, workdir))


def claim(workdir: pathlib.Path, store: Store, config) -> None:
    """Makes the work directory this config's. Raises StoreError if work of another one is in it."""
    path, mine = workdir / 'config.json', configs.flat(config)
    if not path.exists() or not store.begun():
        write_json(path, mine)
        return
    try:
        default = {k: v.default for k, v in configs.settings(config).items()}  # of fields that are newer than it
        theirs = default | dict(json.loads(path.read_text()))
    except (OSError, TypeError, ValueError):
        raise StoreError(f'{path}: unreadable; delete the work directory or choose another --workdir') from None
    for field in sorted(mine.keys() | theirs.keys()):
        if mine.get(field) != theirs.get(field) and configs.decides(config, field):
            raise StoreError(f'{workdir}: belongs to another config ({field} is {theirs.get(field)!r} there, '
                             f'{mine.get(field)!r} here); choose another --workdir')
