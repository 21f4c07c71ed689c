"""Misfit and gain in Bregman divergences (Mulgund, Pabbaraju 2025, arXiv 2501.19105), and which student each needs.

    D(p, q) = phi(p) - phi(q) - <grad phi(q), p - q>,    of phi(p) = sum p log p the KL divergence.

The student that is nearest in the *first* argument, f_s = argmin_{f in F} E D(f, f_w), F convex with the truth f* in
it, has E D(f*, f_w) >= E D(f*, f_s) + E D(f_s, f_w), with equality where f_s is inside of F (`primal`; of KL: *reverse*
KL, and F is the hull of some models). Ordinary cross-entropy is nearest in the *second* argument, and has the mirrored
identity in the mirrored class, log-linear models with f* among them (`dual`):

    E KL(f_w, f*) = E KL(f_w, f_s) + E KL(f_s, f*).

Each identity is wrong of the other student: the residual is then a number, but no check of anything. Combinations of k
members of a class that is not convex miss the first by O(1 / sqrt k).
"""
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.registry import TESTBEDS, Row, in_float64, keys

NEWTON = 60  # steps of students, which are solved and not trained
BARRIERS = 40
TERMS = (1, 2, 4, 8, 16, 32)


def bregman(phi: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """D(p, q) of a convex phi: `[K]` -> scalar, as a function of p and q `[..., K]`."""
    def divergence(p, q):
        return phi(p) - phi(q) - jax.grad(phi)(q) @ (p - q)
    return jnp.vectorize(divergence, signature='(k),(k)->()')


SQUARED = lambda p: jnp.sum(p ** 2)
NEGATIVE_ENTROPY = lambda p: jnp.sum(p * jnp.log(p))
BURG = lambda p: -jnp.sum(jnp.log(p))  # its divergence is Itakura and Saito's


def kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """bregman(NEGATIVE_ENTROPY) of probabilities `[..., K]` in closed form, which is quicker to differentiate."""
    return jnp.sum(p * (jnp.log(p) - jnp.log(q)), axis=-1)


def primal(truth: jax.Array, weak: jax.Array, student: jax.Array, divergence: Callable = kl) -> jax.Array:
    """(D(f*, f_w) - D(f*, f_s) - D(f_s, f_w)) / D(f_s, f_w) of `[N, K]`, each a mean over rows: gain less misfit, of
    misfit, of a student that is nearest in the first argument."""
    d = lambda a, b: jnp.mean(divergence(a, b))
    return (d(truth, weak) - d(truth, student)) / d(student, weak) - 1


def dual(truth: jax.Array, weak: jax.Array, student: jax.Array, divergence: Callable = kl) -> jax.Array:
    """(D(f_w, f*) - D(f_s, f*) - D(f_w, f_s)) / D(f_w, f_s): the same of one that is nearest in the second."""
    d = lambda a, b: jnp.mean(divergence(a, b))
    return (d(weak, truth) - d(student, truth)) / d(weak, student) - 1


def mixed(weights: jax.Array, models: jax.Array) -> jax.Array:
    """sum_m w_m f_m `[N, K]` of weights `[M]` and models `[M, N, K]`."""
    return jnp.einsum('m,mnk->nk', weights, models)


def in_hull(models: jax.Array, objective: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Weights `[M]` of the mixture with the least objective(mixture), convex: Newton's method, with a logarithmic
    barrier at the simplex's border that goes to nothing."""
    count = len(models)
    # Weights are a point and its moves within their plane; there, convex means solvable.
    plane = jnp.asarray(np.linalg.svd(np.ones((1, count)))[2][1:].T)
    weights = lambda z: 1 / count + plane @ z

    def step(i, z):
        barrier = 10. ** (-1 - 12 * jnp.minimum(i / BARRIERS, 1))
        loss = lambda z: objective(mixed(weights(z), models)) - barrier * jnp.sum(jnp.log(weights(z)))
        move = -jnp.linalg.solve(jax.hessian(loss)(z), jax.grad(loss)(z))
        slope = plane @ move
        room = jnp.min(jnp.where(slope < 0, -weights(z) / jnp.where(slope < 0, slope, 1), jnp.inf))
        return z + jnp.minimum(1, .9 * room) * move
    return weights(jax.lax.fori_loop(0, NEWTON, step, jnp.zeros(count - 1)))


def log_linear(features: jax.Array, targets: jax.Array) -> jax.Array:
    """Answers of the log-linear model of features `[N, D]` with the least cross-entropy to targets, both `[N, K]`."""
    shape = features.shape[1], targets.shape[1] - 1  # the last class has the logit 0
    answers = lambda w: jnp.pad(features @ w.reshape(shape), ((0, 0), (0, 1)))
    loss = lambda w: -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(answers(w)), axis=-1))

    def step(_, w):
        move = -jnp.linalg.solve(jax.hessian(loss)(w), jax.grad(loss)(w))
        return w + move * jnp.minimum(1, 1 / jnp.linalg.norm(move))
    return jax.nn.softmax(answers(jax.lax.fori_loop(0, NEWTON, step, jnp.zeros(shape[0] * shape[1]))))


def greedy(models: jax.Array, weak: jax.Array, terms: tuple[int, ...]) -> jax.Array:
    """Mixtures `[len(terms), N, K]` of that many (at most) of the models `[M, N, K]`, nearest to `weak` in reverse KL:
    Frank and Wolfe's, one model more at a time, the j-th with the weight 2 / (j + 1)."""
    def add(answers, j):
        slope = jax.grad(lambda f: jnp.mean(kl(f, weak)))(answers)
        best = models[jnp.argmin(jnp.einsum('mnk,nk->m', models, slope))]
        answers = answers + 2 / (j + 1) * (best - answers)  # of j = 1 the first model alone
        return answers, answers
    start = jnp.mean(models, axis=0)
    return jax.lax.scan(add, start, jnp.arange(1, terms[-1] + 1))[1][jnp.array(terms) - 1]


def random_models(key: jax.Array, x: jax.Array, count: int, classes: int, scale: float) -> jax.Array:
    """Log-linear models `[count, N, classes]` of x `[N, D]`."""
    return jax.nn.softmax(scale * jnp.einsum('nd,mdk->mnk', x, jax.random.normal(key, (count, x.shape[1], classes))))


def disturbed(key: jax.Array, truth: jax.Array, x: jax.Array, by: float) -> jax.Array:
    """A supervisor `[N, K]`: the truth, with errors on its logits that are linear in x `[N, D]`, and with noise."""
    k = jax.random.split(key)
    wrong = jnp.einsum('nd,dk->nk', x, jax.random.normal(k[0], (x.shape[1], truth.shape[1]))) / x.shape[1] ** .5
    return jax.nn.softmax(jnp.log(truth) + by * (wrong + jax.random.normal(k[1], truth.shape)))


def hull_students(key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
    """Residuals of students in the hull of three models with the truth in it: 'reverse' nearest in the first argument,
    'forward' in the second.  'inside': the smallest weight of the first."""
    k = jax.random.split(key, 3)
    models = random_models(k[0], x, 3, 3, 1.5)
    truth = mixed(.1 + .7 * jax.random.dirichlet(k[1], jnp.ones(3)), models)
    weak = disturbed(k[2], truth, x, 1)
    weights = in_hull(models, lambda f: jnp.mean(kl(f, weak)))
    reverse, forward = mixed(weights, models), mixed(in_hull(models, lambda f: jnp.mean(kl(weak, f))), models)
    return {'inside': weights.min(), 'reverse, primal': primal(truth, weak, reverse),
            'reverse, dual': dual(truth, weak, reverse), 'forward, primal': primal(truth, weak, forward)}


def linear_students(key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
    """Residuals of log-linear students of cross-entropy, the truth such a model."""
    k = jax.random.split(key)
    truth = random_models(k[0], x, 1, 3, .5)[0]
    weak = disturbed(k[1], truth, x, .5)
    student = log_linear(x, weak)
    return {'linear, dual': dual(truth, weak, student), 'linear, primal': primal(truth, weak, student)}


def shortfalls(key: jax.Array, x: jax.Array, many: int) -> jax.Array:
    """How much gain is below misfit, of misfit, of greedy mixtures `[len(TERMS)]` of `many` models, the truth being
    the mean of all."""
    k = jax.random.split(key)
    models = random_models(k[0], x, many, 3, 1)
    truth = jnp.mean(models, axis=0)
    weak = disturbed(k[1], truth, x, .5)
    return jax.vmap(lambda f: jnp.maximum(-primal(truth, weak, f), 0))(greedy(models, weak, TERMS))


@functools.partial(jax.jit, static_argnames=('rows', 'many'))
def simulate(every: jax.Array, rows: int, many: int) -> dict[str, jax.Array]:
    """All three of every key, on `rows` rows of five inputs."""
    def one(key):
        k = jax.random.split(key, 4)
        x = jax.random.normal(k[0], (rows, 5))
        return hull_students(k[1], x) | linear_students(k[2], x) | {'short': shortfalls(k[3], x, many)}
    return jax.lax.map(one, every)


@TESTBEDS.register('bregman', seeds=200, rows=Setting(500, 20, 10**6, doc='that students learn and are measured on'),
                   many=Setting(200, 64, 10**4, doc='models that greedy mixtures choose from'))
@in_float64
def bregman_misfit(seeds: int, settings: Settings) -> list[Row]:
    """Identities of KL divergences, each of the student that it is about and of the other one."""
    found = jax.device_get(simulate(keys(seeds, 'bregman'), settings.rows, settings.many))
    inside = found['inside'] > 1e-3
    row = lambda cell, name, limit, students, by=np.max, where=slice(None), **more: Row(
        cell, 0, float(np.median(found[name][where])), float(by(np.abs(found[name][where]))),
        f'{"largest" if by is np.max else by.__name__} |gain - misfit| / misfit', limit, students, **more)
    crossed = {'by': np.median, 'control': True}
    short = found['short'].mean(0)
    slope = float(np.polyfit(np.log(TERMS), np.log(short), 1)[0])
    return [
        row(f'reverse KL in a hull, {inside.sum()} of {seeds} inside', 'reverse, primal', 1e-4, seeds, where=inside),
        row('cross-entropy, log-linear, dual identity', 'linear, dual', 1e-6, seeds),
        row('cross-entropy, log-linear, primal identity', 'linear, primal', .01, 0, **crossed),
        row('cross-entropy in a hull, primal identity', 'forward, primal', .01, seeds, **crossed),
        row('reverse KL in a hull, dual identity', 'reverse, dual', .01, 0, **crossed),
        Row('slope of log shortfall in log k, mixtures of k', -.5, slope, slope, 'slope', -.4, seeds * len(TERMS))]
