"""A method is a graph of phases; each runs once, and those that share a program run in it together."""
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from w2s_jax.store import Artifact, Store, digest, write_json

# Two phases that differ in nothing else can train in one program: these numbers are traced, not compiled.
TRACED = ('seed', 'learning_rate', 'weight_decay', 'beta2', 'clip', 'warmup', 'alpha', 'alpha_warmup')
FORMAT = 1  # raise it when the same section comes to mean another computation


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
        """Phases of one group share a program: same kind, same static section, same data of all runs."""
        static = {k: v for k, v in self.section.items() if k not in TRACED}
        return digest([self.kind, static, {k: v.id for k, v in self.needs.items() if k in ('inputs', 'test')}])


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
    """Phases in an order in which they can run, those of one depth and program together."""
    depth = depths(phases)
    table: dict[tuple[int, str], list[Phase]] = {}
    for phase in phases:
        table.setdefault((depth[phase.id], phase.group), []).append(phase)
    return [table[key] for key in sorted(table, key=lambda k: k[0])]


def execute(targets: list[Phase], store: Store, run: Callable, report: Callable = print) -> dict[str, Artifact]:
    """Runs what is not done, group by group. Returns all artifacts by phase id.

    Args:
      run: (phases, inputs, folder) -> a result a phase, `(metrics, arrays, params)`; inputs are dicts of
        Artifact or Source value by need, folder is kept until every result of the group is stored.
    """
    done: dict[str, Artifact] = {}
    for group in groups(order(targets)):
        while missing := [p for p in group if store.find(p.kind, p.id) is None]:
            unit, folder = _unit(group, missing, store)
            report(f'{describe(unit)}')
            inputs = [{k: v.value if isinstance(v, Source) else done[v.id] for k, v in p.needs.items()} for p in unit]
            for phase, (metrics, arrays, params) in zip(unit, run(unit, inputs, folder), strict=True):
                store.save(phase.kind, phase.id, phase.config, metrics, arrays, params)
        done |= {p.id: Artifact(store.path(p.kind, p.id)) for p in group}
        _tidy(store, done)
    return done


def _unit(group: list[Phase], missing: list[Phase], store: Store):
    """What to run next and its folder: the phases that a killed process ran together, else all that is missing.

    Stacked in another company a run may differ in its last bits, so a unit that was begun is finished as it was.
    """
    by_id = {p.id: p for p in group}
    for folder in sorted((store.folder / 'pending').glob('*')):
        ids = _members(folder)
        if ids and set(ids) <= by_id.keys() and any(p.id in ids for p in missing):
            return [by_id[i] for i in ids], folder
    folder = store.folder / 'pending' / digest([p.id for p in missing])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'members.json', [p.id for p in missing])
    return missing, folder


def _tidy(store: Store, done: dict[str, Artifact]) -> None:
    """Removes the folders of units that are stored, also where a process was killed before it could."""
    for folder in (store.folder / 'pending').iterdir():
        if set(_members(folder)) <= done.keys():
            shutil.rmtree(folder, ignore_errors=True)


def _members(folder) -> list[str]:
    try:
        return json.loads((folder / 'members.json').read_text())
    except (OSError, ValueError):
        return []


def describe(unit: list[Phase]) -> str:
    """`student confidence: seeds 0, 1, 2`."""
    labels = list(dict.fromkeys(p.label for p in unit))
    seeds = [str(p.section['seed']) for p in unit if 'seed' in p.section]
    return ', '.join(labels) + (f': seed{"s" if len(seeds) > 1 else ""} {", ".join(seeds)}' if seeds else '')
