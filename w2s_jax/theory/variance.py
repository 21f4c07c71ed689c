"""Bias, variance and the mean teacher (Xu, Yao, Wang, Liu 2025, arXiv 2505.24313).

For squared losses and any student, without convexity or a truth in its class,

    (f_w - y)^2 = (f_s - y)^2 + (f_w - f_s)^2 + 2 (f_w - f_s)(f_s - y):    gain = misfit + cross term.

In the mean over teachers the cross term is 2 (E f_w - f_s)(f_s - y): it vanishes for the student that is their mean.
Then gain = misfit = their variance; of M teachers (1 - 1 / M) of it. In Bregman divergences there are two such means:
of E D(f_w, z) the least is at the mean, of E D(z, f_w) at the mean of grad phi (`dual_mean`), for KL the normalised
geometric one.

Reverse cross-entropy H(p, p_w) is linear in the student's p: all of it goes to the teacher's first answer, however
unsure of it the teacher is, where cross-entropy goes to p_w itself.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.losses import LOSSES
from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.dimension import Cell, variances
from w2s_jax.theory.misfit import least_squares
from w2s_jax.theory.registry import TESTBEDS, Row, in_float64, keys

TEACHERS, WIDTHS = (2, 8, 32), (2, 4, 8, 16, 32, 64)
SMOOTHING, SURE = (0., .3, .6, .8), .7  # of the teacher's label; its probability of its first answer
SMALL = Cell(10, 10, (1.,) * 10, 60, 100)  # of every teacher
STEPS = 20_000  # of gradient descent towards a vertex, which has no end


class Parts(NamedTuple):
    """Means over rows and teachers: gain = misfit + cross."""
    gain: jax.Array
    misfit: jax.Array
    cross: jax.Array


def decomposed(weak: jax.Array, student: jax.Array, truth: jax.Array) -> Parts:
    """Of the answers of teachers `[M, N]` and of their student `[N]`."""
    apart = weak - student[None]
    gain = jnp.mean((weak - truth[None]) ** 2) - jnp.mean((student - truth) ** 2)
    return Parts(gain, jnp.mean(apart ** 2), 2 * jnp.mean(apart * (student - truth)[None]))


def dual_mean(weak: jax.Array) -> jax.Array:
    """The z with the least mean of KL(z, f_w) over teachers `[M, ..., K]`: proportional to exp(mean log f_w)."""
    return jax.nn.softmax(jnp.mean(jnp.log(weak), axis=0), axis=-1)


@functools.partial(jax.jit, static_argnames='teachers')
def mean_teachers(every: jax.Array, teachers: int) -> Parts:
    """The mean of so many linear teachers, each with rows and noise of its own, on the population: `[keys]` each."""
    d, n = SMALL.weak, SMALL.n

    def one(key):
        k = jax.random.split(key, 3)
        truth = jax.random.normal(k[0], (d,))
        x = jax.random.normal(k[1], (teachers, n, d))
        y = x @ truth + jax.random.normal(k[2], (teachers, n))
        solve = lambda x, y: jax.scipy.linalg.solve(x.T @ x, x.T @ y, assume_a='pos')
        heads = jax.vmap(solve)(x, y)
        # x ~ N(0, I): the mean over rows of a product of answers is that of heads, a sum over dimensions.
        return Parts(*(d * part for part in decomposed(heads, heads.mean(0), truth)))
    return jax.lax.map(one, every)


@jax.jit
def by_width(every: jax.Array) -> Parts:
    """Students of least squares on the first features of a random layer, of eight teachers' mean, the truth being no
    function of these: `[keys, len(WIDTHS)]` each, on the rows that were learned."""
    def one(key):
        k = jax.random.split(key, 4)
        x = jax.random.normal(k[0], (512, 8))
        features = jax.nn.relu(x @ jax.random.normal(k[1], (8, WIDTHS[-1])))
        truth = jnp.tanh(x @ jax.random.normal(k[2], (8, 4))).sum(-1)
        weak = truth[None] + .5 * jax.random.normal(k[3], (8, 512))
        fitted = lambda width: features[:, :width] @ least_squares(features[:, :width], weak.mean(0)[:, None])
        parts = [decomposed(weak, fitted(width)[:, 0], truth) for width in WIDTHS]
        return Parts(*map(jnp.stack, zip(*parts, strict=True)))
    return jax.lax.map(one, every)


@functools.partial(jax.jit, static_argnames='name')
def minimiser(name: str, targets: jax.Array) -> jax.Array:
    """The probabilities `[N, 2]` that a loss of LOSSES leads free logits to, from even ones."""
    entry = LOSSES[name]
    values = Settings({k: s.default for k, s in entry.settings.items()})
    total = lambda z: entry.fn(z, targets, progress=jnp.float32(1), settings=values, state={})[0].sum()
    step = lambda _, z: z - 4 * jax.grad(total)(z)
    return jax.nn.softmax(jax.lax.fori_loop(0, STEPS, step, jnp.zeros_like(targets)))


@TESTBEDS.register('variance', seeds=1000, few=Setting(100, 1, 10**6, doc='draws of the students by width'))
@in_float64
def variance(seeds: int, settings: Settings) -> list[Row]:
    """The mean teacher's gain and misfit, the cross term of other students, and what losses make of unsure labels."""
    rows, one = [], variances(SMALL)[0]
    for m in TEACHERS:
        found = jax.device_get(mean_teachers(keys(seeds, f'teachers {m}'), m))
        off = float(np.abs(found.gain / found.misfit - 1).max())
        misfit, wanted = float(found.misfit.mean()), (1 - 1 / m) * one
        rows += [Row(f'mean of {m} teachers', misfit, float(found.gain.mean()), off, 'largest |gain / misfit - 1|',
                     1e-10, seeds * m),
                 Row(f'misfit of the mean of {m}: (1 - 1 / M) Var', wanted, misfit, abs(misfit / wanted - 1),
                     '|measured / predicted - 1|', .05, 0)]
    wide = jax.device_get(by_width(keys(min(seeds, settings.few), 'width')))
    cross = np.abs(wide.cross).mean(0)
    rows += [Row(f'|cross term|, widths {WIDTHS[0]} to {WIDTHS[-1]}', 0, float(cross[-1]),
                 float((cross[1:] / cross[:-1]).max()), 'largest ratio of a width to the one before', 1.,
                 wide.cross.size),
             Row(f'cross term of width {WIDTHS[0]}', 0, float(wide.cross[:, 0].mean()), float(cross[0]), '|cross term|',
                 .01, 0, control=True)]
    return rows + unsure()


def unsure() -> list[Row]:
    """Where two losses end on a teacher's label under more and more smoothing."""
    sure = np.array([(1 - g) * SURE + g / 2 for g in SMOOTHING])
    labels, rows = jnp.asarray(np.stack([sure, 1 - sure], axis=1)), []
    for name, wanted in (('reverse_xent', np.ones(len(sure))), ('xent', sure)):
        found = np.asarray(minimiser(name, labels))[:, 0]
        rows += [Row(f'{name}, smoothing {g:g}', float(w), float(f), float(abs(f - w)), '|measured - predicted|', 1e-3,
                     0) for g, w, f in zip(SMOOTHING, wanted, found, strict=True)]
    return rows
