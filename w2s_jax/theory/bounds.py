"""How far a student can be from its supervisor in loss and in calibration (Yao et al. 2025, arXiv 2502.01458).

With d = E KL(f_w, f_s), the truth f* and all probabilities at least gamma,

    |E KL(f*, f_s) - E KL(f*, f_w)| <= sqrt(2 d) / gamma,

as |log a - log b| <= |a - b| / gamma, and by Pinsker and Jensen. As the largest |a_k - b_k| is at most the total
variation, half of it is enough. Calibration errors differ by at most

    |MCE(f_s) - MCE(f_w)| <= 2 sqrt(1 - exp(-d)),    MCE(f) = sum_k E |E[f_k - f*_k | G]|

(Bretagnolle and Huber), of marginal errors within the *same* groups G of rows, such as each row on its own. Where each
model has groups of its own, those rows to which it gives the same answer, the bound is wrong: a supervisor that is
constant and calibrated, and a student that differs from it by next to nothing, but in every row by something else.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.bregman import kl, random_models
from w2s_jax.theory.registry import TESTBEDS, Row, in_float64, keys

CLASSES, BINS, TEMPERATURES = 3, 15, np.geomspace(.5, 10, 60)
SIZES = np.geomspace(1e-4, 1e-2, 5)  # of a student's deviations, where the loss is followed to none
SMALL = .5  # a constant that is no bound
TAUGHT, LABELLED, TEST, WIDTH, INPUTS = 60, 500, 2000, 16, 10  # rows of the trained models, and their sizes


def loss_bound(d: jax.Array, gamma: jax.Array) -> jax.Array:
    """How much two models' KL(f*, f) may differ, that are E KL(f_w, f_s) = d apart, with no probability below gamma."""
    return jnp.sqrt(2 * d) / gamma


def calibration_bound(d: jax.Array) -> jax.Array:
    """How much their marginal calibration errors within the same groups may differ."""
    return 2 * jnp.sqrt(-jnp.expm1(-d))


def marginal_error(answers: jax.Array, truth: jax.Array, group: jax.Array) -> jax.Array:
    """MCE of probabilities against those of the truth, or one-hot labels, `[N, K]`, within groups `[N]` below N."""
    sums = jax.ops.segment_sum(answers - truth, group, num_segments=len(answers))
    return jnp.sum(jnp.abs(sums)) / len(answers)


def equal_mass(score: jax.Array, bins: int) -> jax.Array:
    """Groups `[N]` of equally many rows, by rising score `[N]`."""
    return jnp.argsort(jnp.argsort(score)) * bins // len(score)


class Gaps(NamedTuple):
    """loss, calibration: how much a student differs from its supervisor in these.  d, gamma: as above."""
    loss: jax.Array
    calibration: jax.Array
    d: jax.Array
    gamma: jax.Array


def gaps(truth: jax.Array, weak: jax.Array, student: jax.Array) -> Gaps:
    """Of probabilities `[N, K]`; calibration row by row, where each is a group."""
    each = jnp.arange(len(truth))
    risk = lambda f: jnp.mean(kl(truth, f))
    return Gaps(jnp.abs(risk(student) - risk(weak)),
                jnp.abs(marginal_error(student, truth, each) - marginal_error(weak, truth, each)),
                jnp.mean(kl(weak, student)), jnp.minimum(weak.min(), student.min()))


@functools.partial(jax.jit, static_argnames='rows')
def random_triples(every: jax.Array, rows: int) -> tuple[Gaps, jax.Array, Gaps]:
    """Truth, supervisor and student at random, the student as far from its supervisor as it happens.

    Returns: of each key their Gaps; the difference of MCE, each model within its own groups, and `calibration_bound`,
    of a constant supervisor and a student close to it `[keys, 2]`; and Gaps `[keys, len(SIZES)]` of students that come
    nearer.
    """
    def one(key):
        k = jax.random.split(key, 5)
        x = jax.random.normal(k[0], (rows, 5))
        truth, weak, wrong = random_models(k[1], x, 3, CLASSES, 1)
        moved = lambda size: jax.nn.softmax(jnp.log(weak) + size * jnp.log(wrong))
        size = 10 ** jax.random.uniform(k[2], minval=-2., maxval=0.)
        constant = jnp.broadcast_to(truth.mean(0), truth.shape)
        near = jax.nn.softmax(jnp.log(constant) + 1e-3 * jax.random.normal(k[3], truth.shape))
        own = [marginal_error(near, truth, jnp.arange(rows)), marginal_error(constant, truth, jnp.zeros(rows, int))]
        apart = jnp.stack([own[0] - own[1], calibration_bound(jnp.mean(kl(constant, near)))])
        return gaps(truth, weak, moved(size)), apart, jax.vmap(lambda s: gaps(truth, weak, moved(s)))(jnp.array(SIZES))
    return jax.lax.map(one, every)


def trained(features: jax.Array, targets: jax.Array, steps: int, rate: float = .5) -> jax.Array:
    """Heads `[steps, D]` of logistic regression after each step of gradient descent from 0, of features `[N, D]` and
    probabilities of class 1 `[N]`."""
    def step(head, _):
        head = head - rate * features.T @ (jax.nn.sigmoid(features @ head) - targets) / len(features)
        return head, head
    return jax.lax.scan(step, jnp.zeros(features.shape[1]), None, steps)[1]


def best_temperature(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The one of TEMPERATURES with the least cross-entropy of logits `[N]` to labels of class 1 `[N]`."""
    losses = jax.vmap(lambda t: jnp.mean(jnp.logaddexp(0, logits / t) - labels * logits / t))(jnp.array(TEMPERATURES))
    return jnp.array(TEMPERATURES)[jnp.argmin(losses)]


@functools.partial(jax.jit, static_argnames='epochs')
def training(every: jax.Array, epochs: int) -> dict[str, jax.Array]:
    """Students of supervisors that saw few rows, and are too sure: linear in their supervisor's features ('same'), or
    in its input, of which it is no function ('other').

    Returns: 'gaps', Gaps `[keys, epochs]` of the others on further rows; MCE in bins of equally many rows, `[keys]`:
    'weak', 'weak, scaled' of the supervisor, at temperature 1 and its best, and of students at the end, for either
    features 'plain', 'scaled', and 'sharp': from a supervisor at the inverse of its best.
    """
    both = lambda p: jnp.stack([1 - p, p], axis=1)

    def one(key):
        k = jax.random.split(key, 5)
        layer = jax.random.normal(k[0], (INPUTS, WIDTH)) / INPUTS ** .5
        direction = 2 * jax.random.normal(k[1], (INPUTS,)) / INPUTS ** .5
        x = jax.random.normal(k[2], (TAUGHT + LABELLED + 2 * TEST, INPUTS))
        few, held, learned, test = jnp.split(x, np.cumsum([TAUGHT, LABELLED, TEST]))
        chance = lambda x: jax.nn.sigmoid(x @ direction)
        label = lambda key, x: jax.random.bernoulli(key, chance(x)).astype(x.dtype)
        hidden = lambda x: jax.nn.relu(x @ layer)
        head = trained(hidden(few), label(k[3], few), 3000)[-1]
        logits = lambda x: hidden(x) @ head
        best = best_temperature(logits(held), label(k[4], held))
        binned = lambda p: marginal_error(both(p), both(chance(test)), equal_mass(p, BINS))
        supervisor = lambda t, x: jax.nn.sigmoid(logits(x) / t)

        def student(features, t):
            heads = trained(features(learned), supervisor(t, learned), epochs)
            return jax.nn.sigmoid(heads @ features(test).T)
        scales = {'plain': 1., 'scaled': best, 'sharp': 1 / best}
        found = {'weak': binned(supervisor(1., test)), 'weak, scaled': binned(supervisor(best, test))}
        for name, features in (('same', hidden), ('other', lambda x: x)):
            found |= {f'{name}, {how}': binned(student(features, t)[-1]) for how, t in scales.items()}
        apart = lambda p: gaps(both(chance(test)), both(supervisor(1., test)), both(p))
        return found | {'gaps': jax.vmap(apart)(student(lambda x: x, 1.))}
    return jax.lax.map(one, every)


def upper(values: np.ndarray) -> float:
    """Below this is the mean that values `[S]` come from, at one-sided 95 per cent (Student's t)."""
    return float(values.mean() + special.stdtrit(len(values) - 1, .95) * values.std(ddof=1) / len(values) ** .5)


@TESTBEDS.register('bounds', seeds=2000, rows=Setting(50, 2, 10**5, doc='of random models'),
                   runs=Setting(20, 2, 10**4, doc='supervisors with trained students'),
                   epochs=Setting(1000, 1, 10**5, doc='steps of these students'))
@in_float64
def bounds(seeds: int, settings: Settings) -> list[Row]:
    """Whether random and trained students are within the bounds, and what is no bound."""
    found, apart, near = jax.device_get(random_triples(keys(seeds, 'bounds'), settings.rows))
    runs = jax.device_get(training(keys(settings.runs, 'training'), settings.epochs))
    epoch, limit = runs['gaps'], np.asarray(loss_bound(found.d, found.gamma))
    row = lambda cell, over, students=0, **more: Row(cell, 0, float(over.mean()), float(over.mean()),
                                                     'share beyond the bound', more.pop('limit', 0), students, **more)
    ratio = lambda gap, bound: float(np.max(gap / np.asarray(bound)))
    slopes = [np.polyfit(np.log(d), np.log(gap), 1)[0] for d, gap in zip(near.d, near.loss, strict=True)]
    slope = float(np.median(slopes))
    scaled = lambda features, how, **more: Row(
        f'MCE, students with {features} features, supervisor {how}', float(runs[f'{features}, plain'].mean()),
        float(runs[f'{features}, {how}'].mean()), upper(runs[f'{features}, {how}'] - runs[f'{features}, plain']),
        f'95 % upper end of {how} - plain', 0., settings.runs, **more)
    return [
        row('loss, sqrt(2 d) / gamma', found.loss > limit, seeds),
        row('loss, half of it', found.loss > limit / 2),
        row(f'loss, {SMALL:g} sqrt(d)', found.loss > SMALL * np.sqrt(found.d), limit=.5, control=True),
        row('MCE in the same groups, 2 sqrt(1 - exp(-d))', found.calibration > np.asarray(calibration_bound(found.d))),
        row('MCE in groups of its own each', apart[:, 0] > apart[:, 1], seeds, limit=.5, control=True),
        Row('slope of log difference in loss in log d, d to 0', .5, slope, abs(slope - .5), '|slope - 1/2|', .02,
            seeds * len(SIZES)),
        *(Row(f'{name} in training, {settings.epochs} epochs', 1, most, most, 'largest difference / bound', 1.,
              students) for name, most, students in (
            ('loss', ratio(epoch.loss, loss_bound(epoch.d, epoch.gamma)), settings.runs),
            ('MCE', ratio(epoch.calibration, calibration_bound(epoch.d)), 0))),
        scaled('same', 'scaled'), scaled('same', 'sharp', control=True), scaled('other', 'scaled', control=True)]
