"""A method is a graph of phases; each runs once, and those that share a program run in it together."""
import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable
from typing import Any

from w2s_jax.runtime import multihost
from w2s_jax.store.artifacts import Artifact, Store, digest, write_json

# Traced, not compiled: config field -> its name in a phase's section. Runs that differ in nothing else train in one
# program. Every other field that a sweep changes makes programs of its own.
TRACED_FIELDS = {
    'seeds': 'seed',
    **{f'{part}.learning_rate': 'learning_rate' for part in ('optimizer', 'teacher', 'student')},
    **{f'optimizer.{name}': name for name in ('weight_decay', 'beta2', 'clip', 'warmup')},
    **{f'{part}.loss.{name}': name for part in ('teacher', 'student') for name in ('alpha', 'alpha_warmup')},
    **{f'method.{name}': name for name in ('temperature', 'label_noise')},
}
TRACED = frozenset(TRACED_FIELDS.values())
FORMAT = 1  # raise it when the same section comes to mean another computation
PATIENCE = 0.5  # seconds between two looks at what other processes have done


@dataclasses.dataclass(frozen=True)
class Source:
    """Data that phases need, with its fingerprint: it is what it is, not where it came from."""
    id: str
    value: Any


@dataclasses.dataclass(frozen=True)
class Phase:
    """One computation: `kind` (a key of `phases.PHASES`), its own section, and what it needs.

    Its id is the hash of exactly those, so that whoever needs the same computation shares it. What a
    phase receives when it runs is `needs`, and nothing else: a student that is not given the truth
    cannot reach it.
    """
    kind: str
    section: dict
    needs: dict[str, 'Phase | Source']
    label: str  # for people; not part of the id

    @functools.cached_property
    def config(self) -> dict:
        """What the id is the hash of."""
        return {'format': FORMAT, 'kind': self.kind, 'section': self.section,
                'needs': {k: v.id for k, v in self.needs.items()}}

    @functools.cached_property
    def id(self) -> str:
        return digest(self.config)

    @functools.cached_property
    def group(self) -> str:
        """Phases of one group share a program: same kind and static section, as many rows of the same data."""
        static = {k: v for k, v in self.section.items() if k not in TRACED}
        rows = self.needs.get('rows')
        size = len(rows.value) if isinstance(rows, Source) else None
        return digest([self.kind, static, size, {k: v.id for k, v in self.needs.items() if k in ('inputs', 'test')}])


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a phase has no artifact and will not get one: its run broke down, or one that it needs did."""
    reason: str


def order(targets: Iterable[Phase]) -> list[Phase]:
    """All phases that `targets` need, each once, after what it needs."""
    done: dict[str, Phase] = {}

    def visit(phase):
        if phase.id not in done:
            for need in phase.needs.values():
                if isinstance(need, Phase):
                    visit(need)
            done[phase.id] = phase
    for target in targets:
        visit(target)
    return list(done.values())


def depths(phases: list[Phase]) -> dict[str, int]:
    """How many phases stand before each, on the longest way: phases of one depth do not need each other."""
    depth: dict[str, int] = {}
    for phase in phases:
        before = [depth[n.id] for n in phase.needs.values() if isinstance(n, Phase)]
        depth[phase.id] = 1 + max(before, default=-1)
    return depth


def groups(phases: list[Phase]) -> list[list[Phase]]:
    """Phases in an order in which they can run, those of one depth and program together, and in such a group those of a
    seed side by side: they read the same rows (`runs.Runs.streams`)."""
    depth = depths(phases)
    table: dict[tuple[int, str], list[Phase]] = {}
    for phase in phases:
        table.setdefault((depth[phase.id], phase.group), []).append(phase)
    return [sorted(table[key], key=lambda p: p.section.get('seed', 0)) for key in sorted(table, key=lambda k: k[0])]


class Ledger:
    """What became of the phases of a graph, as the store tells; phases in the order of `order`."""

    def __init__(self, phases: list[Phase], store: Store):
        self.phases, self.store = phases, store
        self.fates: dict[str, Artifact | Failure] = {}
        self.look()

    def look(self) -> None:
        """Reads what is new in the store."""
        for phase in self.phases:
            if phase.id in self.fates:
                continue
            failed = next((f for f in map(self.fates.get, _ids(phase)) if isinstance(f, Failure)), None)
            found = self.store.find(phase.kind, phase.id)
            if found is not None:
                reason = self.store.failure(found)
                self.fates[phase.id] = found if reason is None else Failure(f'{describe([phase])}: {reason}')
            elif failed is not None:
                self.fates[phase.id] = failed

    def ready(self, group: list[Phase]) -> bool:
        """Whether all that a group needs is there, and the group is not."""
        return not self.over(group) and all(i in self.fates for p in group for i in _ids(p))

    def over(self, group: list[Phase]) -> bool:
        """Whether a group has nothing left to run."""
        return all(p.id in self.fates for p in group)


def execute(targets: list[Phase], store: Store, run: Callable, report: Callable = print,
            room: Callable | None = None) -> dict[str, Artifact | Failure]:
    """Runs what is not done, group by group, beside any other process that works on the same store.

    Args:
      run: (phases, inputs, folder) -> a result a phase, `(metrics, arrays, params)`; inputs are dicts of
        Artifact or Source value by need, folder is kept until every result of the group is stored.
      room: (phases, inputs) -> how many of them fit into one program; None: all.
    Returns: what became of every phase, by its id. Where `run` raises, what is done stays done.
    """
    ledger = Ledger(order(targets), store)
    work = groups(ledger.phases)
    while work := [g for g in work if not ledger.over(g)]:
        if not any(ledger.ready(g) and finish(g, ledger, run, report, room) for g in work):
            time.sleep(PATIENCE)  # all that could run is being run elsewhere
            ledger.look()
    _tidy(store, ledger)
    return ledger.fates


def finish(group: list[Phase], ledger: Ledger, run: Callable, report: Callable = print,
           room: Callable | None = None) -> bool:
    """Runs what is missing of a group whose needs are there; False where another process is at it."""
    store = ledger.store
    with store.lease(group[0].group) as held:
        if not held:
            return False
        ledger.look()
        while missing := [p for p in group if p.id not in ledger.fates]:
            inputs = [_inputs(p, ledger) for p in missing]
            unit, folder = _unit(group, missing, store, room(missing, inputs) if room else len(missing))
            report(describe(unit))
            results = run(unit, [_inputs(p, ledger) for p in unit], folder)
            if held.lost():  # this process slept for long, and another has taken over
                return False
            for phase, result in zip(unit, results, strict=True):
                store.save(phase.kind, phase.id, phase.config, *result)
            ledger.look()
        _tidy(store, ledger)
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
    return [n.id for n in phase.needs.values() if isinstance(n, Phase)]


def _inputs(phase: Phase, ledger: Ledger) -> dict:
    return {k: v.value if isinstance(v, Source) else ledger.fates[v.id] for k, v in phase.needs.items()}


def _unit(group: list[Phase], missing: list[Phase], store: Store, room: int):
    """What to run next and its folder: the phases that a killed process ran together, else all that is missing.

    Stacked in another company a run may differ in its last bits, so a unit that was begun is finished as it was.
    """
    by_id = {p.id: p for p in group}
    for folder in sorted((store.folder / 'pending').glob('*')):
        ids = _members(folder)
        if ids and set(ids) <= by_id.keys() and any(p.id in ids for p in missing):
            return [by_id[i] for i in ids], folder
    unit = missing[:max(room, 1)]
    folder = store.folder / 'pending' / digest([p.id for p in unit])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'members.json', [p.id for p in unit])
    return unit, folder


def _tidy(store: Store, ledger: Ledger) -> None:
    """Removes the folders of units that are stored, also where a process was killed before it could.

    A folder without members is one that another process has just made, or a rest: an hour tells which.
    """
    for folder in (store.folder / 'pending').iterdir():
        members, gone = _members(folder), folder.name.startswith('.gone-')
        if not gone and (set(members) <= ledger.fates.keys() if members else _old(folder)):
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


def describe(unit: list[Phase]) -> str:
    """`chess-m student confidence: seeds 0, 1, 2`."""
    names = [p.label if (model := str(p.section.get('model', ''))) in p.label else f'{model} {p.label}' for p in unit]
    seeds = list(dict.fromkeys(str(p.section['seed']) for p in unit if 'seed' in p.section))
    runs = f', {len(unit)} runs' if len(unit) > len(seeds) > 0 else ''
    found = f': seed{"s" if len(seeds) > 1 else ""} {", ".join(seeds)}{runs}' if seeds else ''
    return ', '.join(dict.fromkeys(names)) + found
