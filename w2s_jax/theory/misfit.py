"""Misfit equals gain, of squared losses (Charikar, Pabbaraju, Shiragur 2024, arXiv 2405.15116).

A student is the function of a convex class F that is nearest to its supervisor, f_s = argmin_{f in F} d(f, f_w) with
d(f, g) = E (f - g)^2. If F has the truth f*, then by Pythagoras

    d(f_s, f*) <= d(f_w, f*) - d(f_s, f_w):    gain >= misfit,

with equality where F is a linear space, such as all linear heads on the student's features. On the rows that were
learned this is exact; on others what is missing is noise of their number. Without the truth in F it need not hold.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.registry import TESTBEDS, Row, in_float64, keys

SINGULAR = 1e-12  # of the largest singular value: directions below it are none
BISECTIONS = 200


class Distances(NamedTuple):
    """weak = d(f_w, f*), student = d(f_s, f*), misfit = d(f_s, f_w), each `[T]`."""
    weak: jax.Array
    student: jax.Array
    misfit: jax.Array

    @property
    def gain(self):
        """What the student is better than its supervisor."""
        return self.weak - self.student

    @property
    def residual(self):
        """(gain - misfit) / misfit."""
        return (self.gain - self.misfit) / self.misfit


def distances(weak: jax.Array, student: jax.Array, truth: jax.Array) -> Distances:
    """Of answers `[N, T]`, mean squares over rows."""
    d = lambda a, b: jnp.mean((a - b) ** 2, axis=0)
    return Distances(d(weak, truth), d(student, truth), d(student, weak))


def least_squares(features: jax.Array, targets: jax.Array) -> jax.Array:
    """Heads `[D, T]` of least squares, of features `[N, D]` and targets `[N, T]`; the shortest where there are many."""
    q, r = jnp.linalg.qr(features)  # of the features, and not of their squares, whose condition would cost the digits
    return jnp.linalg.pinv(r, rtol=SINGULAR) @ (q.T @ targets)


def in_ball(features: jax.Array, targets: jax.Array, radius: jax.Array) -> jax.Array:
    """Heads `[D, T]` of least squares among those that are at most as long as `radius` `[T]`.

    These are (H'H + m I)^-1 H'y with the m >= 0 at which they are just short enough, found by bisection of log m.
    """
    q, r = jnp.linalg.qr(features)
    u, s, vt = jnp.linalg.svd(r)
    b = s[:, None] * (u.T @ (q.T @ targets))
    rotated = lambda m: b / (s[:, None] ** 2 + m[None])
    top = jnp.sum(s ** 2)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        long = jnp.linalg.norm(rotated(top * jnp.exp(middle)), axis=0) > radius
        return jnp.where(long, middle, low), jnp.where(long, high, middle)
    _, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.full_like(radius, -40.), jnp.full_like(radius, 20.)))
    return vt.T @ rotated(top * jnp.exp(high))


def layers(key: jax.Array, inputs: int, width: int, depth: int) -> list[jax.Array]:
    """Random weights of a network of `depth` layers of ReLUs (He et al. 2015)."""
    sizes = [inputs, *[width] * depth]
    return [jax.random.normal(k, (a, b)) * (2 / a) ** .5
            for k, a, b in zip(jax.random.split(key, depth), sizes[:-1], sizes[1:], strict=True)]


def represent(network: list[jax.Array], x: jax.Array) -> jax.Array:
    """The last layer `[N, width]` of x `[N, inputs]`, and 1, `[N, width + 1]`."""
    for weights in network:
        x = jax.nn.relu(x @ weights)
    return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)


@functools.partial(jax.jit, static_argnames=('rows', 'held_out', 'tasks', 'weak_rows'))
def simulate(every: jax.Array, rows: int, held_out: int, tasks: int, weak_rows: int = 500) -> dict[str, Distances]:
    """Of every key `tasks` truths: linear heads on a random network of 8 inputs, 5 layers, 16 units. The weak model has
    a network of two layers, and its head from `weak_rows` rows of truth.

    Returns: regime -> distances `[keys, tasks]`: 'seen' on the `rows` that the student learned and 'held out' on
    others, its features those of the truth; 'other features' on the others with another random network; in a ball, on
    the rows that it learned: 'ball' with the truth on its border, 'outside' with the truth ten times as far.
    """
    def one(key):
        k = jax.random.split(key, 7)
        strong, weak, other = (layers(k[i], 8, 16, depth) for i, depth in enumerate((5, 2, 5)))
        head = jax.random.normal(k[3], (17, tasks))
        truth = lambda x: represent(strong, x) @ head
        taught, seen, held = (jax.random.normal(k[4 + i], (n, 8)) for i, n in enumerate((weak_rows, rows, held_out)))
        weak_head = least_squares(represent(weak, taught), truth(taught))
        supervisor = lambda x: represent(weak, x) @ weak_head
        found: dict[str, Distances] = {}
        for name, network in (('', strong), ('other features', other)):
            learned = least_squares(represent(network, seen), supervisor(seen))
            on = lambda x, network=network, learned=learned: distances(
                supervisor(x), represent(network, x) @ learned, truth(x))
            found |= {name: on(held)} if name else {'seen': on(seen), 'held out': on(held)}
        features, length = represent(strong, seen), jnp.linalg.norm(head, axis=0)
        for name, radius in (('ball', length), ('outside', length / 10)):
            answers = features @ in_ball(features, supervisor(seen), radius)
            found[name] = distances(supervisor(seen), answers, truth(seen))
        return found
    return jax.lax.map(one, every)


@TESTBEDS.register('misfit', seeds=50, tasks=Setting(20, 1, 1000, doc='truths of each seed'),
                   rows=Setting(20000, 50, 10**6, doc='that the student learns'),
                   held_out=Setting(100000, 50, 10**7, doc='rows that it is measured on'),
                   fewer=Setting(2000, 50, 10**6, doc='rows of the cell that is only reported'))
@in_float64
def misfit(seeds: int, settings: Settings) -> list[Row]:
    """Gain and misfit of linear students on features that have the truth in them, and on others."""
    run = lambda name, rows: jax.device_get(simulate(keys(seeds, name), rows, settings.held_out, settings.tasks))
    found, fewer = run('misfit', settings.rows), run('few', settings.fewer)['held out']
    count, rows, short = seeds * settings.tasks, settings.rows, lambda d: np.maximum(-d.residual, 0)
    seen, held, inside, outside = (found[name] for name in ('seen', 'held out', 'ball', 'outside'))
    row = lambda cell, d, error, how, limit, students=count, **more: Row(
        cell, float(np.median(d.misfit)), float(np.median(d.gain)), float(error), how, limit, students, **more)
    size, median, tail = lambda d: np.abs(d.residual), 'median |gain - misfit| / misfit', '95th per cent of it'
    return [
        row(f'the {rows} rows learned', seen, size(seen).max(), 'largest |gain - misfit| / misfit', 1e-9),
        row(f'held out, {rows} rows learned', held, np.median(size(held)), median, .03, 0),
        row(f'held out, {rows} rows learned', held, np.quantile(size(held), .95), tail, .08, 0),
        row(f'held out, {settings.fewer} rows learned', fewer, np.median(size(fewer)), median, None),
        row(f'held out, {settings.fewer} rows learned', fewer, np.quantile(size(fewer), .95), tail, None, 0),
        row('head in a ball with the truth', inside, short(inside).max(), 'largest (misfit - gain) / misfit', 1e-9),
        row('head in a ball without the truth', outside, np.mean(short(outside) > 1e-9), 'share with gain < misfit', .5,
            control=True),
        row('features without the truth', found['other features'], np.median(size(found['other features'])), median, .5,
            control=True)]
