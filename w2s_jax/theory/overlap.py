"""Overlap density, its detection, and choosing data by it (Shin, Cooper, Sala 2025, arXiv 2412.03881).

A row has an easy block, a hard block or both: m y in those that it has, y = +-1, and noise N(0, I) in all. The weak
model knows the easy block alone, and answers sigmoid(k <u, x_easy>), u a direction. Where both blocks are, in the share
p of rows, what it says of the easy one teaches the student the hard one. A student after its first step of gradient
descent is the mean of (weak answer - 1/2) x; along the hard and the easy block's own directions, with Z ~ N(0, 1),
s(z) = sigmoid(k z) - 1/2, and 1 - p divided evenly between easy and hard alone,

    h = p m E s(m + Z),    e = (1 + p) / 2 E[s(m + Z) (m + Z)] + (1 - p) / 2 E[s(Z) Z],

and so it is right on rows with a hard block alone in the share Phi(h m / sqrt(h^2 + e^2)), but for what n rows are
short of all: v = E s^2 / n on each of its dimensions. Trained to the end it has the teacher's own head, with nothing on
the hard block, and answers there at chance: that it stops early is a condition.

Detection: the weak model's confidence 2 |f_w - 1/2|, sorted, breaks into hard rows and others; of the others the
largest |<x, x'>| with a hard row breaks into easy and overlap. It always finds two parts, also where there is one.

Choice: of sources with unknown densities the one with the largest mean of what was found in it, plus
sqrt(2 log T / count), T being the number of batches and count the rows that were seen of the source.
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.misfit import least_squares
from w2s_jax.theory.registry import TESTBEDS, Row, in_float64, keys

EASY, HARD, BOTH = 0, 1, 2
BLOCK, TAUGHT, TEST = 10, 500, 2000  # dimensions of a block; rows of the weak model; rows with a hard block alone
SHARPNESS = 1.  # k
DENSITIES = tuple(i / 10 for i in range(11))
SOURCES = (0., .2, .4, .6, .8)
NEWTON = 20
STEPS = (1, 10, 100, 1000)  # of gradient descent
BATCH, POOL, BATCHES = 100, 200, 50  # rows of a source at a time; rows at first, from all; T


def predicted(density: float, size: float, rows: int) -> float:
    """A one-step student's accuracy on rows with a hard block alone."""
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    mean = lambda values: float(weight @ values / weight.sum())
    s = lambda z: special.expit(SHARPNESS * z) - .5
    there, shares = z + size, ((1 + density) / 2, (1 - density) / 2)  # with and without an easy block
    h = density * size * mean(s(there))
    e = shares[0] * mean(s(there) * there) + shares[1] * mean(s(z) * z)
    v = (shares[0] * mean(s(there) ** 2) + shares[1] * mean(s(z) ** 2)) / rows
    return float(special.ndtr(h * size / np.sqrt(h ** 2 + e ** 2 + (2 * BLOCK + size ** 2) * v)))


class Rows(NamedTuple):
    """x `[N, 2 BLOCK]`, easy block first; y `[N]` of -1 and 1; kind `[N]`: EASY, HARD, BOTH."""
    x: jax.Array
    y: jax.Array
    kind: jax.Array


def draw(key: jax.Array, kind: jax.Array, size: float | jax.Array) -> Rows:
    """Rows of these kinds, m = `size` in the first dimension of each block."""
    k = jax.random.split(key)
    y = jax.random.rademacher(k[0], kind.shape).astype(float)
    x = jax.random.normal(k[1], (len(kind), 2 * BLOCK))
    x = x.at[:, 0].add(size * y * (kind != HARD)).at[:, BLOCK].add(size * y * (kind != EASY))
    return Rows(x, y, kind)


def kinds(key: jax.Array, rows: int, density: float | jax.Array) -> jax.Array:
    """`[rows]`: BOTH with the probability `density`, else EASY or HARD."""
    u = jax.random.uniform(key, (rows,))
    return jnp.where(u < density, BOTH, jnp.where(u < (1 + density) / 2, EASY, HARD))


def break_point(values: jax.Array, valid: jax.Array) -> jax.Array:
    """The value `[]` at which valid ones of values `[N]` break best in two, the upper part's least: sorted, the two
    parts' squared distances from their means add up to the least."""
    count, at = valid.sum(), jnp.arange(1, len(values) + 1)
    ordered = jnp.sort(jnp.where(valid, values, jnp.inf))
    sums = jnp.cumsum(jnp.where(at <= count, ordered, 0))
    # Squares of all stay as they are; what is explained by two means is what counts.
    explained = sums ** 2 / at + (sums[-1] - sums) ** 2 / jnp.maximum(count - at, 1)
    best = jnp.argmax(jnp.where(at < count, explained, -jnp.inf))
    return ordered[jnp.minimum(best + 1, len(values) - 1)]


def detect(weak: jax.Array, x: jax.Array) -> jax.Array:
    """Kinds `[N]` as they seem from the weak model's probabilities `[N]` and the strong one's features x `[N, D]`."""
    confidence = 2 * jnp.abs(weak - .5)
    hard = confidence < break_point(confidence, jnp.ones(len(x), bool))
    near = jnp.max(jnp.where(hard[None], jnp.abs(x @ x.T), 0), axis=1)
    return jnp.where(hard, HARD, jnp.where(near >= break_point(near, ~hard), BOTH, EASY))


def f1(found: jax.Array, truth: jax.Array) -> jax.Array:
    """2 TP / (2 TP + FP + FN) of masks `[N]`."""
    return 2 * jnp.sum(found & truth) / jnp.maximum(jnp.sum(found) + jnp.sum(truth), 1)


def converged(x: jax.Array, targets: jax.Array) -> jax.Array:
    """The head `[D]` of logistic regression to probabilities `[N]`, by Newton's method."""
    def step(_, w):
        p = jax.nn.sigmoid(x @ w)
        return w + jnp.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (targets - p))
    return jax.lax.fori_loop(0, NEWTON, step, jnp.zeros(x.shape[1]))


def teacher(key: jax.Array, size: float | jax.Array) -> jax.Array:
    """The weak model's head `[2 BLOCK]`, from rows of truth with the easy block: least squares, of length SHARPNESS."""
    seen = draw(key, jnp.zeros(TAUGHT, int), size)
    head = least_squares(seen.x[:, :BLOCK], seen.y[:, None])[:, 0]
    return jnp.pad(SHARPNESS * head / jnp.linalg.norm(head), (0, BLOCK))


@functools.partial(jax.jit, static_argnames=('rows', 'steps'))
def students(every: jax.Array, density: float | jax.Array, size: float | jax.Array, rows: int,
             steps: tuple[int, ...]) -> dict[str, jax.Array]:
    """Students of each key on rows with that share of overlap.

    Returns: on rows with a hard block alone the accuracy 'weak' `[keys]`, and 'student' `[keys, len(steps) + 1]` after
    so many steps of gradient descent and at the end; F1 of detected overlap, 'overlap', and 'shuffled' with the weak
    model's answers in another order.
    """
    def one(key):
        k = jax.random.split(key, 5)
        head = teacher(k[0], size)
        learned = draw(k[1], kinds(k[2], rows, density), size)
        test = draw(k[3], jnp.full(TEST, HARD), size)
        right = lambda w: jnp.mean(test.x @ w * test.y > 0)
        weak = jax.nn.sigmoid(learned.x @ head)

        def step(w, _):
            w = w + .1 * learned.x.T @ (weak - jax.nn.sigmoid(learned.x @ w)) / rows
            return w, w
        path = jax.lax.scan(step, jnp.zeros(2 * BLOCK), None, steps[-1])[1]
        overlap = lambda weak: f1(detect(weak, learned.x) == BOTH, learned.kind == BOTH)
        heads = [*path[np.array(steps) - 1], converged(learned.x, weak)]
        return {'weak': right(head), 'student': jnp.stack([right(w) for w in heads]),
                'overlap': overlap(weak), 'shuffled': overlap(jax.random.permutation(k[4], weak))}
    return jax.lax.map(one, every)


def choose(reward: Callable[[jax.Array, jax.Array], jax.Array], keys: jax.Array, sources: int,
           weight: float | jax.Array) -> jax.Array:
    """The source of each of T batches, `[T]`: each once, then that with the highest upper confidence bound.

    reward(key, source): what is found in one batch, in [0, 1].  keys: `[T]`.  weight: how many observations a batch is.
    """
    total = len(keys)

    def pull(state, at):
        sums, counts = state
        bonus = jnp.sqrt(2 * jnp.log(total) / jnp.maximum(weight * counts, 1))
        bound = jnp.where(counts > 0, sums / jnp.maximum(counts, 1) + bonus, jnp.inf)
        best = jnp.argmax(bound)
        got = reward(at, best)
        return (sums.at[best].add(got), counts.at[best].add(1)), best
    start = jnp.zeros(sources), jnp.zeros(sources)
    return jax.lax.scan(pull, start, keys)[1]


@jax.jit
def chosen(every: jax.Array, size: float | jax.Array, weight: float | jax.Array) -> jax.Array:
    """Sources `[keys, BATCHES]` that were chosen by their detected overlap: in a batch beside the pool, rows of all
    sources, without which a source that is nearly all overlap has no hard rows to compare with."""
    density = jnp.array(SOURCES)

    def one(key):
        k = jax.random.split(key, 5)
        head = teacher(k[0], size)
        pool = draw(k[1], kinds(k[2], POOL, jax.random.choice(k[3], density, (POOL,))), size)

        def reward(key, source):
            k = jax.random.split(key)
            x = jnp.concatenate([pool.x, draw(k[0], kinds(k[1], BATCH, density[source]), size).x])
            return jnp.mean(detect(jax.nn.sigmoid(x @ head), x)[POOL:] == BOTH)
        return choose(reward, jax.random.split(k[4], BATCHES), len(SOURCES), weight)
    return jax.lax.map(one, every)


def selection(seeds: int, size: float) -> list[Row]:
    """How often the best source is chosen in the last quarter, and what the others cost, against other choices."""
    density, best, rows = np.array(SOURCES), max(SOURCES), list[Row]()
    random = np.random.default_rng(0).integers(0, len(SOURCES), (seeds, BATCHES))
    find = lambda weight: np.asarray(chosen(keys(seeds, 'chosen'), size, weight))
    for name, sources, control in (('UCB of rows', find(BATCH), False), ('UCB of batches', find(1.), True),
                                   ('sources at random', random, True)):
        rate = float((density[sources[:, -BATCHES // 4:]] == best).mean())
        regret = float((best - density[sources]).mean())
        rows += [Row(f'best source in the last quarter, {name}', 1, rate, 1 - rate, '1 - share', .15,
                     seeds * (not control), control=control),
                 Row(f'regret a batch, {name}', 0, regret, regret, 'difference in density', .2, 0, control=control)]
    return rows


@TESTBEDS.register('overlap', seeds=20, rows=Setting(1000, 20, 10**5, doc='that a student learns'),
                   size=Setting(4., 0., 100., doc='m, how far the classes are from 0 in each block'))
@in_float64
def overlap(seeds: int, settings: Settings) -> list[Row]:
    """Accuracy by density, for how long students may train, whether overlap is found, and which source is chosen."""
    found = [jax.device_get(students(keys(seeds, f'density {p}'), p, settings.size, settings.rows, STEPS))
             for p in DENSITIES]
    wanted = [predicted(p, settings.size, settings.rows) for p in DENSITIES]
    student = np.stack([f['student'].mean(0) for f in found])  # [densities, steps]
    some, high = [DENSITIES.index(p) for p in (0., .1, .2, .4, .8)], DENSITIES.index(.8)
    rank = lambda accuracies: float(stats.spearmanr(DENSITIES, accuracies).statistic)
    f1s = lambda name: {p: float(f[name].mean()) for p, f in zip(DENSITIES, found, strict=True)}
    weak, seen, shuffled = float(np.mean([f['weak'].mean() for f in found])), f1s('overlap'), f1s('shuffled')
    detected = lambda cell, value, limit=.25, **more: Row(cell, 1, value, 1 - value, '1 - F1', limit, 0, **more)
    after = lambda i: f'after {STEPS[i]} steps' if i < len(STEPS) else 'trained to the end'
    return [
        *(Row(f'accuracy, one step, density {DENSITIES[i]:g}', wanted[i], student[i, 0],
              abs(student[i, 0] - wanted[i]), '|measured - predicted|', .02, seeds) for i in some),
        Row('weak model, rows with a hard block alone', .5, weak, abs(weak - .5), '|accuracy - 1/2|', .05, 0),
        Row('Spearman of density and accuracy, one step', 1, rank(student[:, 0]), 1 - rank(student[:, 0]),
            '1 - correlation', .05, seeds * (len(DENSITIES) - len(some))),
        *(Row(f'accuracy at density .8, {after(i)}', {1: wanted[high], np.inf: .5}.get(steps, np.nan), student[high, i],
              .95 - student[high, i], '.95 - accuracy', None if STEPS[0] < steps <= 10 else 0., 0,
              control=steps > 10) for i, steps in enumerate((*STEPS, np.inf))),
        *(detected(f'detected overlap, density {p:g}', seen[p], .25 if p <= .8 else None) for p in DENSITIES[4:]),
        *(detected(f'weak answers shuffled, density {p:g}', shuffled[p], limit, control=True)
          for p, limit in ((.4, .25), (.8, None))),
        *selection(seeds, settings.size)]
