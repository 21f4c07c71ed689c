"""What pre-training is to a student: a start within reach (Yao et al. 2026, arXiv 2605.05710).

Unlabelled rows x ~ N(0, I + l v v') in d dimensions, <v, w*> = r. Pre-training finds v: the first eigenvector of the
covariance of n rows. The truth is g(<w*, z>), z ~ N(0, I), with g = He_3, z^3 - 3 z, and the weak label is
g(<w_w, z>) + noise, w_w = sqrt(1 - b^2) w* + b e. The student learns it by spherical gradient descent from the
eigenvector or from a random direction.

With q = d / n the eigenvector's overlap with w* is, for many dimensions (Baik, Ben Arous, Peche 2005; Paul 2007),

    r sqrt((1 - q / l^2) / (1 + q / l))    for n > n_c = d / l^2, and 0 below.

The population's loss E (g(<u, z>) - g(<w_w, z>))^2 / 2 is 6 (1 - c^3), c = <u, w_w>, and on the sphere

    <grad L, u - w_w> = 9 c^2 (1 + c) ||u - w_w||^2:

strongly convex where c is not small, and flat at a random start, c ~ 1 / sqrt d: at no c is it below zero, but a batch
shows its sign no more. The student ends at w_w, and has its bias: <u, w*> = <w_w, w*>.

Of a batch of z only a = <u, z> and the part in w_w beside it decide residuals; in all other directions the gradient is
Gaussian, as long as these residuals are. So steps are drawn exactly without drawing z `[batch, d]`.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.registry import TESTBEDS, Row, keys

CORRELATION, BIAS = .8, .3  # r, b
BATCH, RATE, NOISE = 512, .01, .1
SIZES = (50, 200)  # d
STRONG, WEAK = 5., .5  # l of a spike that is easily found, and of the one whose phase transition is crossed
PORTIONS = (.25, 1., 4., 16.)  # n / n_c
REACHED = .9  # overlap with the truth of a student that has learned
NEAR = (.9, .7, .5)  # c inside of the region; rows for its mean gradient
MANY = 20_000


def hermite(z: jax.Array) -> jax.Array:
    """He_3."""
    return z ** 3 - 3 * z


def unit(v: jax.Array) -> jax.Array:
    """v `[D]` of length 1; zeros stay."""
    return v / jnp.maximum(jnp.linalg.norm(v), 1e-30)


def found_overlap(d: int, n: float, spike: float, correlation: float = CORRELATION) -> float:
    """|<u, w*>| of the first eigenvector u of the covariance of n rows, for large d and n."""
    q = d / n
    return correlation * max((1 - q / spike ** 2) / (1 + q / spike), 0.) ** .5


def convexity(c: float) -> float:
    """<grad L, u - w_w> / ||u - w_w||^2 on the sphere, c = <u, w_w>."""
    return 9 * c ** 2 * (1 + c)


def spectral(key: jax.Array, spike: float | jax.Array, direction: jax.Array, rows: int | jax.Array) -> jax.Array:
    """The first eigenvector `[D]` of the covariance of rows of N(0, I + spike v v'), v = `direction` `[D]`, at least D.

    The covariance is drawn itself, L L' with normal numbers below the diagonal of L and square roots of chi-squared
    ones on it (Bartlett 1933), which is as quick for many rows as for few.
    """
    k, d = jax.random.split(key), len(direction)
    diagonal = jnp.sqrt(jax.random.chisquare(k[0], rows - jnp.arange(d, dtype=float)))
    lower = jnp.tril(jax.random.normal(k[1], (d, d)), -1) + jnp.diag(diagonal)
    lower = lower + ((1 + spike) ** .5 - 1) * direction[:, None] * (direction @ lower)[None]
    return jnp.linalg.eigh(lower @ lower.T)[1][:, -1]


def labelled(normal: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(a, b, label) `[rows]` of rows drawn as `normal` `[3, rows]`: <u, z>, z along the part of w_w beside u, and the
    weak label, c = <u, w_w>."""
    a, b, noise = normal
    return a, b, hermite(c * a + jnp.sqrt(jnp.maximum(1 - c ** 2, 0)) * b) + NOISE * noise


def gradient(key: jax.Array, u: jax.Array, weak: jax.Array, rows: int = BATCH) -> jax.Array:
    """The gradient `[D]` along the sphere of a batch's mean (g(<u, z>) - label)^2 / 2, u and `weak` `[D]` units."""
    normal, c = jax.random.normal(key, (3 * rows + len(u),)), u @ weak
    beside, rest = unit(weak - c * u), normal[3 * rows:]
    a, b, label = labelled(normal[:3 * rows].reshape(3, rows), c)
    residual = (hermite(a) - label) * 3 * (a ** 2 - 1)
    rest = rest - (rest @ u) * u - (rest @ beside) * beside
    return (residual @ b * beside + jnp.linalg.norm(residual) * rest) / rows


def oriented(key: jax.Array, u: jax.Array, weak: jax.Array) -> jax.Array:
    """u or -u `[D]`, whichever has the lower loss on a batch: an eigenvector has no sign, and He_3 is odd."""
    a, _, label = labelled(jax.random.normal(key, (3, BATCH)), u @ weak)
    return u * jnp.where(label @ hermite(a) < 0, -1, 1)


def learned(key: jax.Array, u: jax.Array, weak: jax.Array, truth: jax.Array, steps: int) -> jax.Array:
    """<u, w*> before the first and after each of so many steps of length RATE against the gradient `[steps + 1]`."""
    def step(u, key):
        u = unit(u - RATE * unit(gradient(key, u, weak)))
        return u, u @ truth
    path = jax.lax.scan(step, u, jax.random.split(key, steps))[1]
    return jnp.concatenate([(u @ truth)[None], path])


def directions(key: jax.Array, d: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(w*, v, w_w) `[d]` each, at random but for their angles."""
    basis = jnp.linalg.qr(jax.random.normal(key, (d, 3)))[0].T
    side = lambda cosine, i: cosine * basis[0] + (1 - cosine ** 2) ** .5 * basis[i]
    return basis[0], side(CORRELATION, 1), side((1 - BIAS ** 2) ** .5, 2)


@functools.partial(jax.jit, static_argnames=('d', 'steps', 'start'))
def students(every: jax.Array, spike: float | jax.Array, d: int, rows: int | jax.Array, steps: int,
             start: str) -> jax.Array:
    """Overlap with the truth over the steps, `[keys, steps + 1]`, of students from a start: 'spectral', 'random', or
    'orthogonal', the first eigenvector of rows whose spike is orthogonal to the truth and the teacher."""
    def first(key):
        k = jax.random.split(key, 4)
        truth, spiked, weak = directions(k[0], d)
        if start == 'orthogonal':
            spiked = unit(spiked - CORRELATION * truth)
        u = unit(jax.random.normal(k[1], (d,))) if start == 'random' else spectral(k[1], spike, spiked, rows)
        return k[2], oriented(k[3], u, weak), weak, truth
    # One after the other: XLA has no fast product of many matrices at once on processors.
    return jax.vmap(functools.partial(learned, steps=steps))(*jax.lax.map(first, every))


@functools.partial(jax.jit, static_argnames=('d', 'rows'))
def slopes(every: jax.Array, c: float | jax.Array, d: int, rows: int) -> jax.Array:
    """What `convexity` is about, in batches of so many rows: `[keys]`."""
    def one(key):
        k = jax.random.split(key)
        basis = jnp.linalg.qr(jax.random.normal(k[0], (d, 2)))[0].T
        u = c * basis[0] + jnp.sqrt(1 - c ** 2) * basis[1]
        return gradient(k[1], u, basis[0], rows) @ (u - basis[0]) / (2 * (1 - c))
    return jax.vmap(one)(every)


def convex(seeds: int) -> list[Row]:
    """Strong convexity inside of the region, and at a random start, where batches do not show it."""
    rows, d = list[Row](), SIZES[-1]
    at = lambda c, n: np.asarray(slopes(keys(10 * seeds, f'slope {c} {n}'), c, d, n))
    for c in NEAR:
        wanted, seen = convexity(c), float(at(c, MANY).mean())
        rows.append(Row(f'strong convexity, c = {c:g}', wanted, seen, abs(seen / wanted - 1),
                        '|measured / predicted - 1|', .05, 0))
    few = lambda c: float((at(c, BATCH) <= 0).mean())
    inside, outside = few(NEAR[-1]), few(d ** -.5)
    return [*rows, Row(f'batches against the way, c = {NEAR[-1]:g}', 0, inside, inside, 'share', .1, 0),
            Row(f'batches against the way, c = 1 / sqrt {d}', 0, outside, outside, 'share', .1, 0, control=True)]


def transition(seeds: int, steps: int) -> list[Row]:
    """Starts and successes on both sides of n_c."""
    rows, d = list[Row](), SIZES[-1]
    for portion in PORTIONS:
        n = round(portion * d / WEAK ** 2)
        path = np.asarray(students(keys(seeds, f'n {n}'), WEAK, d, n, steps, 'spectral'))
        start, wanted = float(np.median(np.abs(path[:, 0]))), found_overlap(d, n, WEAK)
        reached, cell = float((path[:, -1] > REACHED).mean()), f'd {d}, n = {portion:g} n_c'
        if portion > 1:
            rows.append(Row(f'start, {cell}', wanted, start, abs(start / wanted - 1), '|measured / predicted - 1|', .1,
                            0))
        error, limit = (1 - reached, .1) if portion > 1 else (reached, .5 if portion < 1 else None)
        rows.append(Row(f'students beyond {REACHED:g}, {cell}', float(portion > 1), reached, error,
                        '|share - predicted|', limit, seeds))
    return rows


@TESTBEDS.register('warm_start', seeds=20, steps=Setting(2000, 1, 10**6, doc='of gradient descent'))
def warm_start(seeds: int, settings: Settings) -> list[Row]:
    """Where students end that start from pre-training, at random, and from pre-training on something else."""
    end, rows = (1 - BIAS ** 2) ** .5, list[Row]()
    for d in SIZES:
        run = lambda start, d=d: np.asarray(students(keys(seeds, f'{start} {d}'), STRONG, d, 10 * max(SIZES),
                                                     settings.steps, start))[:, -1]
        warm, cold, other = run('spectral'), run('random'), run('orthogonal')
        lost = float(np.median(np.abs(cold)))
        off = lambda found: np.abs(found - end)
        rows += [Row(f'spectral start, d {d}', end, float(np.median(warm)), float(off(warm).max()),
                     'largest |overlap - the supervisor\'s|', .01, seeds),
                 Row(f'random start, d {d}', 0, float(np.median(cold)), lost, 'median |overlap|', .2, seeds),
                 Row(f'spike orthogonal to truth and teacher, d {d}', end, float(np.median(other)),
                     float(np.median(off(other))), 'median |overlap - the supervisor\'s|', .01, seeds, control=True)]
    return [*rows, *transition(seeds, settings.steps), *convex(seeds)]
