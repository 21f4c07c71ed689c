"""Runs a graph of phases against a store: each once, group by group, beside any other process on the same store."""
import contextlib
import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Callable

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Sealed, Source, describe, groups, order
from w2s_jax.runtime import multihost, preemption
from w2s_jax.store import lease
from w2s_jax.store.artifacts import Artifact, Store, write_json
from w2s_jax.text import digest

PATIENCE = 0.5  # seconds between two looks at what other processes have done


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a phase has no artifact and will not get one: its run broke down, or one that it needs did."""
    reason: str


class Ledger:
    """What became of the phases of a graph, as the store tells; phases in the order of `order`."""

    def __init__(self, phases: list[Phase], store: Store):
        self.phases, self.store = phases, store
        self.outcomes: dict[str, Artifact | Failure] = {}
        self.look()

    def look(self) -> None:
        """Reads what is new in the store."""
        for phase in self.phases:
            if phase.id in self.outcomes:
                continue
            failed = next((f for f in map(self.outcomes.get, _ids(phase)) if isinstance(f, Failure)), None)
            found = self.store.find(phase.kind, phase.id)
            if found is not None:
                reason = found.failed
                self.outcomes[phase.id] = found if reason is None else Failure(f'{describe([phase])}: {reason}')
            elif failed is not None:
                self.outcomes[phase.id] = failed

    def ready(self, group: list[Phase]) -> bool:
        """Whether all that a group needs is there, and the group is not."""
        return not self.over(group) and all(i in self.outcomes for p in group for i in _ids(p))

    def over(self, group: list[Phase]) -> bool:
        """Whether a group has nothing left to run."""
        return all(p.id in self.outcomes for p in group)


def execute(targets: list[Phase], store: Store, run: Callable, report: Callable = print,
            choose: Callable | None = None) -> dict[str, Artifact | Failure]:
    """Runs what is not done, group by group, beside any other process that works on the same store.

    Args:
      run: (phases, inputs, folder) -> a result a phase, `(metrics, arrays, params)`; inputs are dicts of
        Artifact or Source value by need, folder is kept until every result of the group is stored.
      choose: (phases, inputs) -> those that run together first; None: all.
    Returns: what became of every phase, by its id. Where `run` raises, what is done stays done.
    """
    ledger = Ledger(order(targets), store)
    work = groups(ledger.phases)
    while work := [g for g in work if not ledger.over(g)]:
        if not any(ledger.ready(g) and finish(g, ledger, run, report, choose) for g in work):
            preemption.check()
            time.sleep(PATIENCE)  # all that could run is being run elsewhere
            ledger.look()
    tidy(store, ledger)
    return ledger.outcomes


def finish(group: list[Phase], ledger: Ledger, run: Callable, report: Callable = print,
           choose: Callable | None = None) -> bool:
    """Runs what is missing of a group whose needs are there; False where another process is at it. Raises TakenOver
    where another process took over, which this one had kept waiting for too long."""
    store = ledger.store
    with store.lease(group[0].group) as held:
        if not held:
            return False
        ledger.look()
        while missing := [p for p in group if p.id not in ledger.outcomes]:
            inputs = [_inputs(p, ledger) for p in missing]
            unit, folder = _unit(group, missing, store, choose(missing, inputs) if choose else missing)
            report(describe(unit))
            preemption.check()
            try:
                results = run(unit, [_inputs(p, ledger) for p in unit], _own(folder, held.number))
            except Exception:
                lease.check()  # whoever has taken over has taken the folder away
                raise
            lease.check()
            for phase, result in zip(unit, results, strict=True):
                store.save(phase.config, *result)
            ledger.look()
        tidy(store, ledger)
    return True


def follow(targets: list[Phase], store: Store, run: Callable) -> None:
    """What hosts do that do not lead: run what the first one tells (`hosts.tell`), and store nothing."""
    ledger = Ledger(order(targets), store)
    by_id = {p.id: p for p in ledger.phases}
    while (told := multihost.hear()) is not None:
        unit = [by_id[i] for i in told['unit']]
        while not ledger.ready(unit):  # what the first host stored is on its way
            time.sleep(PATIENCE)
            ledger.look()
        run(unit, [_inputs(p, ledger) for p in unit], pathlib.Path(told['folder']))


def _ids(phase: Phase) -> list[str]:
    return [n.id for n in phase.before()]


def _inputs(phase: Phase, ledger: Ledger) -> dict:
    return {k: _input(phase, k, need, ledger) for k, need in phase.needs.items()}


def _input(phase: Phase, name: str, need, ledger: Ledger):
    if isinstance(need, Sealed):
        if not phase.sees_truth:
            raise ConfigError(f'{phase.label}: {name} is truth, which it may not see')
        return need.open()
    return need.value if isinstance(need, Source) else ledger.outcomes[need.id]


def _unit(group: list[Phase], missing: list[Phase], store: Store, chosen: list[Phase]):
    """What to run next and its folder: the phases that a killed process ran together, else the chosen ones.

    Stacked in another company a run may differ in its last bits, so a unit that was begun is finished as it was.
    """
    by_id = {p.id: p for p in group}
    for folder in sorted((store.folder / 'pending').glob('*')):
        ids = _members(folder)
        if ids and set(ids) <= by_id.keys() and any(p.id in ids for p in missing):
            return [by_id[i] for i in ids], folder
    unit = chosen
    folder = store.folder / 'pending' / digest([p.id for p in unit])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'members.json', [p.id for p in unit])
    return unit, folder


def _own(folder: pathlib.Path, number: int) -> pathlib.Path:
    """The folder of this holder of the lease, with what the last one before it had in its own. Renamed, so that one
    that was only suspended finds nothing to write to any more."""
    mine = folder / str(number)
    before = max((int(f.name) for f in folder.iterdir() if f.name.isdecimal()), default=number)
    if before < number:
        (folder / str(before)).rename(mine)
    mine.mkdir(exist_ok=True)
    return mine


def tidy(store: Store, ledger: Ledger) -> None:
    """Removes the folders of units that are stored, also where a process was killed before it could.

    A folder without members is one that another process has just made, or a rest: an hour tells which.
    """
    for folder in (store.folder / 'pending').iterdir():
        members, gone = _members(folder), folder.name.startswith('.gone-')
        if not gone and (set(members) <= ledger.outcomes.keys() if members else _old(folder)):
            with contextlib.suppress(OSError):  # another process may be as far
                folder, gone = folder.rename(folder.with_name(f'.gone-{folder.name}')), True
        if gone:
            shutil.rmtree(folder, ignore_errors=True)


def _old(folder) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > 3600
    except OSError:
        return False


def _members(folder) -> list[str]:
    try:
        return json.loads((folder / 'members.json').read_text())
    except (OSError, ValueError):
        return []


