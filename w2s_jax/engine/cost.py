"""What phases cost: floating-point operations, and from what has run so far about how long the rest takes."""
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.engine.plan import Plan
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Source
from w2s_jax.models.modes import Model
from w2s_jax.phases import context, fit, kinds
from w2s_jax.report.log import duration
from w2s_jax.store.artifacts import Store
from w2s_jax.train.runs import evaluated, num_steps

SHARE = 0.25  # of the matmul rate of this machine that phases are taken to reach before any has run
GUESSED = 0.2  # see Cost.rate
COMPILATION = 5.0  # seconds of a group's compilation before any is known
CHARACTERS = 4  # of a token, where texts are not tokenised yet


class Cost:
    """What the phases of plans cost, and what is left of it: operations, at the rate of those that have run.

    The rate is at first that of what the store has, or else a share of the rate of matrix products on this machine;
    then more and more that of what ran.
    """

    def __init__(self, plans: Sequence[Plan], store: Store):
        self.work: dict[str, float] = {}
        self.group: dict[str, str] = {}
        for plan in plans:
            positions = _positions(plan, store)
            for phase in plan.phases:
                self.group[phase.id] = phase.group
                self.work.setdefault(phase.id, operations(phase, plan.models, positions))
        found = {i: a.metrics for p in plans for phase in p.phases
                 if (a := store.find(phase.kind, i := phase.id)) and self.work[i]}
        self.left = {i: w for i, w in self.work.items() if w and i not in found}
        self.stored = [(self.work[i], m.get('seconds', 0.0) / m.get('runs', 1), m.get('compile_seconds', 0.0) / m.get(
            'runs', 1)) for i, m in found.items()]
        self.ran: list[tuple[float, float, float]] = []  # operations, seconds, of these compilation

    def done(self, unit: list[Phase], seconds: float, metrics: dict) -> None:
        """Counts phases that ran together, and how long that took."""
        work = sum(self.left.pop(p.id, 0.0) for p in unit)
        if work:
            self.ran.append((work, seconds, metrics.get('compile_seconds', 0.0)))

    def rate(self) -> tuple[float, float, str]:
        """Operations a second, seconds that the compilation of a group takes, and where both come from.

        What ran counts beside GUESSED of all work at the rate known before, since small models, which come first,
        reach less than large ones.
        """
        if not self.ran:
            return self.before
        guessed = GUESSED * sum(self.work.values())
        work, seconds, compiled = (sum(x) for x in zip(*self.ran, strict=True))
        rate = (work + guessed) / (max(seconds - compiled, 0) + guessed / self.before[0])
        return rate, compiled / len(self.ran), 'at the rate so far'

    @functools.cached_property
    def before(self) -> tuple[float, float, str]:
        """`rate` before anything ran here."""
        work, seconds, compiling = (sum(x) for x in zip(*self.stored, strict=True)) if self.stored else (0, 0, 0)
        if work and seconds > compiling:
            return work / (seconds - compiling), compiling / len(self.stored), 'at the rate of what is done'
        return SHARE * matmul_rate(), COMPILATION, f'at {SHARE:.0%} of the matrix products of this machine'

    def seconds(self) -> tuple[float, str]:
        """How long what is left takes, about, and from what that follows."""
        rate, compiling, basis = self.rate()
        programs = len({self.group[i] for i in self.left})
        return sum(self.left.values()) / rate + compiling * programs, f'{basis} ({rate / 1e9:.0f} GFLOP/s)'

    def text(self) -> str:
        """One line before anything runs: what is left to compute, and about how long it takes."""
        seconds, basis = self.seconds()
        return f'to compute: {sum(self.left.values()) / 1e12:.3g} TFLOP, about {duration(seconds)} {basis}'

    def remaining(self) -> str:
        """`; about 2m 10s left in all`, or nothing while nothing is known of this machine or nothing is left."""
        return f'; about {duration(self.seconds()[0])} left in all' if self.left and self.ran else ''


def operations(phase: Phase, models: dict[str, Model], positions: float) -> float:
    """Floating-point operations of a phase: 6 a parameter and position that is learned from, 2 of those that are only
    read (Kaplan et al. 2020, arXiv 2001.08361). Attention and what phases without a model do is left out."""
    if 'model' not in phase.section or not kinds.KINDS[phase.kind].on_devices:
        return 0.0
    try:
        model = context.model_of(phase.section, models)
    except ConfigError:  # a plug-in's
        return 0.0
    positions = positions or model.positions
    if phase.kind == 'features':
        return 2.0 * model.read * positions * _count(phase.needs['inputs'])
    if phase.kind == 'score':
        return 2.0 * model.work * positions * _count(phase.needs['inputs'])
    if phase.kind == 'generate':
        return 2.0 * model.work * (positions + phase.section['steps']) * _count(phase.needs['inputs']) * (
            phase.section['samples'])
    one = (model.work or model.num_params) * (1 if model.featurize else positions)
    tests = {k: _count(v) for k, v in phase.needs.items() if k.startswith('predict/')}
    if not kinds.KINDS[phase.kind].trains:
        return 2.0 * one * (sum(tests.values()) or rows(phase))
    section = phase.section
    if phase.kind == 'policy':  # drawn, read twice, and learned from; a reward model and teachers are left out
        texts = section['rounds'] * section['prompts'] * section['samples']
        return one * (1 + section['steps'] / positions) * texts * (6.0 + 6.0 * section['passes'])
    steps = num_steps(max(rows(phase), section['batch_size']), section['batch_size'], section['epochs'])
    stops = section.get('stopping')
    looks = len(evaluated(steps, fit.looks(section), bool(stops and stops['holdout'])))
    asked = (stops['holdout'] or 1) * rows(phase) if stops else 0
    seen = min(tests.get('predict/test', 0), section['watch']) + asked
    return one * (6.0 * steps * section['batch_size'] + 2.0 * (looks * seen + sum(tests.values())))


def rows(phase: Phase) -> int:
    """How many rows a phase reads; before they are dropped, if a transform does that."""
    found = phase.needs.get('rows')
    if isinstance(found, Source):
        return len(found.value)
    return max((rows(p) for p in phase.before() if 'rows' in p.needs or 'labels' in p.needs), default=0)


def _count(need: Any) -> int:
    """How many rows inputs have, through the phases that make tokens or features of them."""
    while isinstance(need, Phase):
        need = need.needs.get('inputs')
    return len(next(iter(need.value.values()))) if isinstance(need, Source) and isinstance(need.value, dict) else 0


def _positions(plan: Plan, store: Store) -> float:
    """The mean number of positions of an example: squares, tokens, or characters over CHARACTERS; 0: as many as a model
    makes of it."""
    inputs = plan.dataset.pool.inputs
    if 'tokens' in inputs:
        return float(np.prod(inputs['tokens'].shape[1:]))
    if 'text' not in inputs:
        return 0.0 if 'images' in inputs else 1.0
    for phase in plan.phases:
        if phase.kind == 'tokens' and (found := store.find(phase.kind, phase.id)):
            return found.metrics['tokens'] / found.metrics['texts'] * inputs['text'].shape[1]
    tokens = np.array([[len(t) / CHARACTERS for t in row] for row in inputs['text'][:1000]])
    return float(np.minimum(tokens, plan.config.task.max_length).sum(1).mean())


def matmul_rate(size: int = 1024) -> float:
    """Operations a second of a float32 matrix product on one device, the best of five."""
    x = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * size ** 3 / min(times)
