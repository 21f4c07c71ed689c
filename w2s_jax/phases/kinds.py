"""KINDS: what a phase can be. One record a kind says all that the rest of the program asks of it."""
import dataclasses
import pathlib
from collections.abc import Callable

from w2s_jax import evaluation
from w2s_jax.graph import Phase
from w2s_jax.phases import attack, encode, fit, generate, policy, predict, score, simulated, tables
from w2s_jax.phases.context import Context
from w2s_jax.runtime import process


@dataclasses.dataclass(frozen=True)
class Kind:
    """run: (phases, inputs, context, folder) -> a result for each phase, `(metrics, arrays, params)`. The phases share
    their static section and differ in what is traced, so that they can run in one program.
    on_devices: whether all hosts take part.  trains: whether it is worth an estimate of time.  measures: whether it
    may see all truth.  choose: (phases, inputs, context) -> those that run together first; None: all.
    """
    run: Callable
    on_devices: bool = False
    trains: bool = False
    measures: bool = False
    choose: Callable | None = None


def evaluate(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Reads the truth of the test sets, which no phase does that trains, labels or predicts."""
    return [(evaluation.evaluate(phase.section, needs, context.render), None, None)
            for phase, needs in zip(phases, inputs, strict=True)]


def compare(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Students of a grid against each other, on the truth of the test set."""
    return [(evaluation.compare_all(phase.section, needs), None, None)
            for phase, needs in zip(phases, inputs, strict=True)]


KINDS: dict[str, Kind] = {
    'tokens': Kind(encode.tokens),
    'features': Kind(encode.features, on_devices=True),
    'score': Kind(score.run, on_devices=True),
    'table': Kind(tables.table),
    'generate': Kind(generate.run, on_devices=True),
    'fit': Kind(fit.run, on_devices=True, trains=True, choose=fit.choose),
    'policy': Kind(policy.run, on_devices=True, trains=True),
    'predict': Kind(predict.run, on_devices=True),
    'inverse': Kind(attack.inverse, on_devices=True),
    'attack': Kind(attack.attack, on_devices=True, measures=True),
    'transform': Kind(tables.transform),
    'simulate_errors': Kind(simulated.run, measures=True),
    'evaluate': Kind(evaluate, measures=True),
    'compare': Kind(compare, measures=True),
}


def run(phases: list[Phase], inputs: list[dict], folder: pathlib.Path, *, context: Context) -> list[tuple]:
    """Runs phases of one group; `execute.execute` calls it."""
    try:
        return KINDS[phases[0].kind].run(phases, inputs, context, folder)
    finally:
        process.return_freed_memory()


def choose(phases: list[Phase], inputs: list[dict], *, context: Context) -> list[Phase]:
    """Of phases of one group, those that run together first."""
    kind = KINDS[phases[0].kind]
    return kind.choose(phases, inputs, context) if kind.choose else phases
