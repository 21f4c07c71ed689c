"""A method is a graph of phases: the plan of what is computed from what. It touches no file.

Each phase runs once, whoever needs it, and those that share a program run in it together (engine/execute.py).
"""
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from w2s_jax.data import fingerprint
from w2s_jax.errors import ConfigError
from w2s_jax.text import digest

FORMAT = 2  # raise it when the same section comes to mean another computation


@dataclasses.dataclass(frozen=True)
class Source:
    """Data that phases need, with its fingerprint: it is what it is, not where it came from."""
    id: str
    value: Any


class Sealed:
    """A source that holds truth: only phases that may see truth get what is in it, when they run."""

    def __init__(self, identity: str, read: Callable[[], Any]):
        self.id, self.open = identity, read

    @property
    def value(self):
        """Raises ConfigError: nobody reads truth while a plan is made."""
        raise ConfigError('the truth is sealed: expected to be handed to a teacher, a ceiling or the evaluation')


class Truth:
    """The truth of all rows of a pool or a test set; its slices are sealed sources. values: `[N]` classes."""

    def __init__(self, values: np.ndarray):
        self.slice = lambda rows: values if rows is None else values[rows]

    def __getitem__(self, rows: np.ndarray | None) -> Sealed:
        """The truth of `rows` `[n]`, or (None) of all."""
        return Sealed(fingerprint(self.slice(rows)), lambda: self.slice(rows))


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows of the pool a phase learns from or labels: `index` `[n]`, as `seed` drew them."""
    seed: int
    index: np.ndarray

    @functools.cached_property
    def source(self) -> Source:
        """The index as phases need it."""
        return Source(fingerprint(self.index), self.index)

    def __len__(self) -> int:
        return len(self.index)


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """One computation: `kind` (a key of `phases.kinds.KINDS`), its own section, and what it needs.

    Its id is the hash of exactly those, so that whoever needs the same computation shares it. `section['hyper']` holds
    what is traced, seed included: phases that differ in nothing else train in one program. What a phase receives when
    it runs is `needs`, and nothing else: a student that is not given the truth cannot reach it.

    Not part of the id: label, for people; role: what it is to its method (teacher, student, ceiling ...), and with it
    sees_truth, whether it may be given truth; keep: whether its parameters are needed later.
    """
    kind: str
    section: dict
    needs: dict[str, Any]
    label: str
    role: str = ''
    sees_truth: bool = False
    keep: bool = True

    @functools.cached_property
    def config(self) -> dict:
        """What the id is the hash of."""
        return {'format': FORMAT, 'kind': self.kind, 'section': self.section,
                'needs': {k: v.id for k, v in self.needs.items()}}

    @functools.cached_property
    def id(self) -> str:
        return digest(self.config)

    @property
    def seed(self) -> int | None:
        return self.section.get('hyper', {}).get('seed')

    @property
    def model(self) -> str:
        """The name of its model, '' without one."""
        return self.section.get('model', {}).get('model', '')

    @functools.cached_property
    def group(self) -> str:
        """Phases of one group may share a program: same kind, role, static section and inputs, as many rows if that is
        known before they run."""
        static = {k: v for k, v in self.section.items() if k != 'hyper'}
        rows = self.needs.get('rows')
        size = len(rows.value) if isinstance(rows, Source) else None
        same = {k: v.id for k, v in self.needs.items() if k == 'inputs' or k.startswith('predict/')}
        traced = sorted(self.section.get('hyper', {}))
        return digest([self.kind, self.role, static, traced, size, same, sorted(self.needs)])

    def before(self) -> list['Phase']:
        """The phases that it needs."""
        return [n for n in self.needs.values() if isinstance(n, Phase)]


def order(targets: Iterable[Phase]) -> list[Phase]:
    """All phases that `targets` need, each once, after what it needs."""
    done: dict[str, Phase] = {}

    def visit(phase):
        if phase.id not in done:
            for need in phase.before():
                visit(need)
            done[phase.id] = phase
    for target in targets:
        visit(target)
    return list(done.values())


def depths(phases: list[Phase]) -> dict[str, int]:
    """How many phases stand before each, on the longest way: phases of one depth do not need each other."""
    depth: dict[str, int] = {}
    for phase in phases:
        depth[phase.id] = 1 + max((depth[n.id] for n in phase.before()), default=-1)
    return depth


def groups(phases: list[Phase]) -> list[list[Phase]]:
    """Phases in an order in which they can run, those of one depth and program together, and in such a group those of a
    seed side by side: they read the same rows (`runs.Runs.streams`)."""
    depth = depths(phases)
    table: dict[tuple[int, str], list[Phase]] = {}
    for phase in phases:
        table.setdefault((depth[phase.id], phase.group), []).append(phase)
    return [sorted(table[key], key=lambda p: p.seed or 0) for key in sorted(table, key=lambda k: k[0])]


def describe(unit: list[Phase]) -> str:
    """`chess-m student confidence: seeds 0, 1, 2`."""
    names = [p.label if p.model in p.label else f'{p.model} {p.label}' for p in unit]
    seeds = list(dict.fromkeys(str(p.seed) for p in unit if p.seed is not None))
    runs = f', {len(unit)} runs' if len(unit) > len(seeds) > 0 else ''
    found = f': seed{"s" if len(seeds) > 1 else ""} {", ".join(seeds)}{runs}' if seeds else ''
    return ', '.join(dict.fromkeys(names)) + found


def source(value) -> Source:
    """An array, or a dict of arrays, as phases need it."""
    if isinstance(value, dict):
        return Source(fingerprint(*(value[k] for k in sorted(value))), value)
    return Source(fingerprint(value), value)
