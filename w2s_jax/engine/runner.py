"""Runs the phases of plans, on this host or on several as one."""
import contextlib
import pathlib
import time
from collections.abc import Callable, Iterable

from w2s_jax import graph
from w2s_jax.engine import execute as execution
from w2s_jax.engine.cost import Cost
from w2s_jax.engine.plan import Plan
from w2s_jax.phases import kinds
from w2s_jax.phases.context import make_context
from w2s_jax.report.log import Log
from w2s_jax.runtime import multihost
from w2s_jax.store.artifacts import Store


def finished(phases: Iterable[graph.Phase], store: Store) -> set[str]:
    """The ids of the phases that the store has."""
    return {p.id for p in phases if store.find(p.kind, p.id)}


def execute(plans: list[Plan], store: Store, log: Log, more: Iterable[graph.Phase] = ()) -> dict:
    """Runs what is missing of all plans, and of `more` phases. Returns outcomes by phase id, as `execute.execute`."""
    cost = Cost(plans, store)
    runner = Runner(plans, log.progress, cost, log.line)
    if cost.left:
        log.line(cost.text())
    return execution.execute([*(p.target for p in plans), *more], store, runner.run,
                             lambda text: log.line(text + cost.remaining()), runner.choose)


def quiet(*args) -> None:
    """What hosts say that do not lead."""


@contextlib.contextmanager
def leading(plans: list[Plan], store: Store):
    """A block in which the first host runs phases, and the others follow (`follow`)."""
    _agree(plans, store)
    yield
    multihost.tell(None)


def follow(plans: list[Plan], store: Store) -> None:
    """What hosts do that do not lead: their part of every phase that computes on devices. Raises ConfigError where they
    see other data, models or another folder than the first."""
    _agree(plans, store)
    execution.follow([p.target for p in plans], store, Runner(plans, quiet).part)


def _agree(plans: list[Plan], store: Store) -> None:
    multihost.share(store.folder)
    multihost.agree('phases (data or models)', {f'{p.id} ({p.label})': True for plan in plans for p in plan.phases})


class Runner:
    """Runs phases of any of several plans, each in the context of a plan that has it."""

    def __init__(self, plans: list[Plan], log: Callable, cost: Cost | None = None,
                 say: Callable[[str], None] = lambda line: None):
        contexts = [(p, make_context(p.config, p.models, log, p.dataset.render, say)) for p in plans]
        self.contexts = {phase.id: context for plan, context in reversed(contexts) for phase in plan.phases}
        self.any, self.cost = contexts[0][1], cost

    def run(self, unit: list[graph.Phase], inputs: list[dict], folder: pathlib.Path) -> list[tuple]:
        """As `kinds.run`, on all hosts together."""
        if kinds.KINDS[unit[0].kind].on_devices:
            multihost.tell({'unit': [p.id for p in unit], 'folder': str(folder)})
        began = time.perf_counter()
        found = self.part(unit, inputs, folder)
        if self.cost is not None:
            self.cost.done(unit, time.perf_counter() - began, found[0][0])
        return found

    def part(self, unit: list[graph.Phase], inputs: list[dict], folder: pathlib.Path) -> list[tuple]:
        """As `kinds.run`, this host's part."""
        return kinds.run(unit, inputs, folder, context=self.contexts.get(unit[0].id, self.any))

    def choose(self, unit: list[graph.Phase], inputs: list[dict]) -> list[graph.Phase]:
        """As `kinds.choose`."""
        return kinds.choose(unit, inputs, context=self.contexts.get(unit[0].id, self.any))
