"""Losses for a student that learns from imperfect labels: logits and targets in, one loss per example out.

Every loss is `fn(logits, targets, *, progress, settings, state) -> (per_example, aux, state)`:

  logits    [B, K] float; computed with in float32 at least, whatever their own type
  targets   [B, K] float; rows sum to one, so that hard truth and soft weak labels look the same
  progress  scalar in [0, 1], the share of training that is done
  settings  what the loss was registered with, as attributes; those declared `traced` are traced, as is progress
  state     what the loss remembers between steps; () for a loss without `init_state`

and returns the losses [B] unreduced, a dict of scalars worth logging, and the next state. B is the whole batch: a loss
may look at all of it, and no row of it is padding. One that does not is registered with `per_example=True`, which lets
the trainer accumulate gradients in one pass. To add a loss, write such a function under `@LOSSES.register(name)`.
"""
import chex
import jax
import jax.numpy as jnp
import optax

from w2s_jax.errors import ConfigError
from w2s_jax.registry import Registry, Setting

# init_state: (num_classes) -> state.  convex: in the logits, with a gradient that is that of its value (train/exact.py)
LOSSES = Registry('loss', options=('per_example', 'init_state', 'convex'), traces=True)


def _confidence(warmup: float, what: str = "student's own hardened prediction") -> dict:
    """alpha is .5 in the paper and .75 for its largest students; its warm-up is the first fifth of training."""
    return {'alpha': Setting(.5, 0, 1, traced=True, doc=f'weight of the {what}'),
            'alpha_warmup': Setting(warmup, 0, 1, traced=True, doc='fraction of training in which alpha grows to it')}


def _log_zero(default: float) -> dict:
    """What stands for log 0 where a loss takes the log of a label."""
    return {'log_zero': Setting(default, -100, 0, traced=True, doc='smallest log y: keeps hard labels finite')}


@LOSSES.register('xent', per_example=True, convex=True)
def xent(logits, targets, *, progress, settings, state):
    """Cross-entropy with soft targets, H(y, p) = -sum_k y_k log p_k (Burns et al. 2023, arXiv 2312.09390)."""
    del progress, settings
    return optax.losses.softmax_cross_entropy(*_inputs(logits, targets)), {}, state


@LOSSES.register('product', per_example=True)
def product(logits, targets, *, progress, settings, state):
    """H(q, p) with q = stop_gradient(p y / sum_k p_k y_k): the label weighed by what the student believes already.

    With one-hot targets it is `xent`. From the loss of the same name in the code published with arXiv 2312.09390.
    """
    del progress, settings
    logits, targets = _inputs(logits, targets)
    # In logs, since p may underflow at the only class that has a label, and p y would be zero everywhere.
    believed = jax.nn.softmax(jax.nn.log_softmax(logits) + jnp.log(targets))
    # The softmax of a row of zeros, which may fill up a batch, is NaN; times a weight of zero it would stay NaN.
    believed = jax.lax.stop_gradient(jnp.where(targets > 0, believed, 0))
    return optax.losses.softmax_cross_entropy(logits, believed), {}, state


@LOSSES.register('confidence', **_confidence(.2))
def confidence(logits, targets, *, progress, settings, state):
    """Auxiliary confidence loss, H((1 - a) y + a f, p) (Burns et al. 2023, arXiv 2312.09390, equation 1).

    f is the student's own prediction, hardened and without gradient; a = alpha min(1, progress / alpha_warmup).
    K = 2: f is class 0 where p_0 >= t, and t is the quantile of p_0 over the batch at the level mean(y_1), so that as
    many examples are hardened to class 1 as the weak labels say (up to one; ties at t go to class 0).
    K > 2: f is the argmax.
    aux: 'alpha', and for K = 2 'threshold' and 'hardened_positive' (the share that is hardened to class 1).
    """
    logits, targets = _inputs(logits, targets)
    alpha = _warmed_up(progress, settings)
    return *_towards_hardened(logits, targets, jnp.mean(targets[:, 1]), alpha), state


@LOSSES.register('confidence_half', **_confidence(.2))
def confidence_half(logits, targets, *, progress, settings, state):
    """`confidence` with t the median of p_0: half of the batch is hardened to each class.

    The rule of arXiv 2312.09390 for balanced binary tasks; for odd B class 0 has one more. K > 2 is as in `confidence`.
    """
    logits, targets = _inputs(logits, targets)
    return *_towards_hardened(logits, targets, .5, _warmed_up(progress, settings)), state


@LOSSES.register('confidence_openai', **_confidence(.1))  # the published code warms up over a tenth
def confidence_openai(logits, targets, *, progress, settings, state):
    """`confidence` as in the code published with arXiv 2312.09390, to compare with its results; K = 2 only.

    Differs in the warm-up, which has a defect: a = alpha progress (instead of alpha progress / alpha_warmup) as long
    as progress <= alpha_warmup, and then jumps to alpha.

    Raises:
      ConfigError: K is not 2 (when traced).
    """
    if logits.shape[-1] != 2:
        raise ConfigError(f"student.loss.name: 'confidence_openai' is for 2 classes, this task has {logits.shape[-1]}; "
                          f"expected 'confidence'")
    logits, targets = _inputs(logits, targets)
    alpha = jnp.where(progress > settings.alpha_warmup, settings.alpha, settings.alpha * progress)
    return *_towards_hardened(logits, targets, jnp.mean(targets[:, 1]), alpha), state


@LOSSES.register('adaptive_confidence', per_example=True)
def adaptive_confidence(logits, targets, *, progress, settings, state):
    """`confidence` with a weight of each example's own: H((1 - a_i) y + a_i f, p), f the argmax of p.

    a_i = stop_gradient(e^H(f, p) / (e^H(f, p) + e^H(h, p))), h the argmax of y: at most 1/2, and 1/2 exactly where the
    student answers as the label does. Guo et al. 2024, arXiv 2402.03749 (adaptive confidence distillation).
    K = 2: where the student answers otherwise, a_i is p_h, and the minimum of the loss of that example has p_h < 1/2
    (1/2 for hard y). No label turns an answer by itself, and a new head, which says class 0, may stay there.
    aux: 'alpha', the mean of a_i.
    """
    del progress, settings
    logits, targets = _inputs(logits, targets)
    own, given = (_one_hot(array) for array in (logits, targets))
    surprise = optax.losses.softmax_cross_entropy(logits, own) - optax.losses.softmax_cross_entropy(logits, given)
    alpha = jax.lax.stop_gradient(jax.nn.sigmoid(surprise))  # the quotient above, without powers that overflow
    mixed = (1 - alpha[:, None]) * targets + alpha[:, None] * own
    return optax.losses.softmax_cross_entropy(logits, mixed), {'alpha': jnp.mean(alpha)}, state


@LOSSES.register('entropy', per_example=True, **_confidence(.2, 'entropy of the student\'s prediction'))
def entropy(logits, targets, *, progress, settings, state):
    """(1 - a) H(y, p) + a H(p, p): the student is drawn towards predictions of low entropy; a as in `confidence`.

    The gradient goes through both p. With it stopped at the first, as in EleutherAI/w2s (`entropy`), the gradient is
    (1 - a) times that of `xent`, and there would be no pull. aux: 'alpha'.
    """
    logits, targets = _inputs(logits, targets)
    alpha = _warmed_up(progress, settings)
    mixed = (1 - alpha) * targets + alpha * jax.nn.softmax(logits)
    return optax.losses.softmax_cross_entropy(logits, mixed), {'alpha': alpha}, state


@LOSSES.register('window', per_example=True, radius=Setting(
    .15, 0, 1, traced=True, doc='half width of the window above 1/K; 1: all are in it'))
def window(logits, targets, *, progress, settings, state):
    """Cross-entropy of the examples of which the student is not sure, max p < 1/K + radius; 0 of the others.

    Of two classes as in EleutherAI/w2s (`window`), which divides by all B examples too; 1/K is our generalisation of
    its .5. The teachers there learn without a window. aux: 'kept', the share in the window.
    """
    del progress
    logits, targets = _inputs(logits, targets)
    return *_windowed(logits, targets, settings.radius), state


@LOSSES.register('window_midweak')
def window_midweak(logits, targets, *, progress, settings, state):
    """`window` whose radius is the median over the batch of max y - 1/K, the confidence of the weak labels.

    EleutherAI/w2s takes the median over the training set; a loss sees one batch. aux: 'kept' and 'radius'.
    """
    del progress, settings
    logits, targets = _inputs(logits, targets)
    radius = _quantile(jnp.max(targets, axis=-1) - 1 / targets.shape[-1], .5)
    losses, aux = _windowed(logits, targets, radius)
    return losses, {**aux, 'radius': radius}, state


@LOSSES.register('kl', per_example=True, convex=True)
def kl(logits, targets, *, progress, settings, state):
    """KL(y || p) = H(y, p) - H(y): the gradients of `xent`, and 0 where the student says what the label says."""
    del progress, settings
    logits, targets = _inputs(logits, targets)
    return optax.losses.kl_divergence(jax.nn.log_softmax(logits), targets), {}, state


@LOSSES.register('reverse_kl', per_example=True, **_log_zero(-9.2))  # log 1e-4; -4 would move the minimum off soft y
def reverse_kl(logits, targets, *, progress, settings, state):
    """KL(p || y) = sum_k p_k (log p_k - log y_k), log y clipped; seeks a mode of y (Yao et al. 2025, arXiv 2502.11107).

    Its minimum is at y where nothing is clipped, else at the clipped y, renormalised: with many classes let log_zero
    be far below -log K.
    """
    del progress
    logits, targets = _inputs(logits, targets)
    clipped = _log(targets, settings.log_zero)
    return optax.losses.kl_divergence_with_log_targets(clipped, jax.nn.log_softmax(logits)), {}, state


@LOSSES.register('reverse_xent', per_example=True, **_log_zero(-4.))
def reverse_xent(logits, targets, *, progress, settings, state):
    """H(p, y) = -sum_k p_k log y_k, log y clipped (Xu et al. 2025, arXiv 2505.24313; arXiv 2502.11107).

    Linear in p, so that its minimum is all of p on the class of the largest y, however sure the label is of it.
    """
    del progress
    logits, targets = _inputs(logits, targets)
    return _reverse(logits, targets, settings.log_zero), {}, state


@LOSSES.register('symmetric_xent', per_example=True, **_log_zero(-4.),
                 alpha=Setting(1., 0, 1e3, traced=True, doc='weight of H(y, p)'),
                 beta=Setting(.1, 0, 1e3, traced=True, doc='weight of H(p, y)'))
def symmetric_xent(logits, targets, *, progress, settings, state):
    """alpha H(y, p) + beta H(p, y), log y clipped: symmetric cross-entropy (Wang et al. 2019, arXiv 1908.06112).

    It has alpha .1, beta 1 for CIFAR-10 and 6, .1 for CIFAR-100; 1 and .1 are of the code of arXiv 2505.24313, for weak
    labels.
    """
    del progress
    logits, targets = _inputs(logits, targets)
    forward = optax.losses.softmax_cross_entropy(logits, targets)
    return settings.alpha * forward + settings.beta * _reverse(logits, targets, settings.log_zero), {}, state


@LOSSES.register('generalized_xent', per_example=True,
                 q=Setting(.7, 0, 1, traced=True, doc='0: cross-entropy; 1: the probability of an error'))
def generalized_xent(logits, targets, *, progress, settings, state):
    """sum_k y_k (1 - p_k^q) / q: generalised cross-entropy (Zhang and Sabuncu 2018, arXiv 1805.07836).

    Theirs is for hard labels; of a soft one it is what is expected of a label drawn from it. For q = 0 the limit,
    H(y, p).
    """
    del progress
    logits, targets = _inputs(logits, targets)
    log_p = jax.nn.log_softmax(logits)
    # The divisor is chosen before dividing, as above; expm1 is exact for small q, where 1 - p^q is not.
    powers = settings.q > 0
    q = jnp.where(powers, settings.q, 1)
    each = jnp.where(powers, -jnp.expm1(q * log_p) / q, -log_p)
    return jnp.sum(targets * each, axis=-1), {}, state


@LOSSES.register('smoothing', per_example=True, convex=True,
                 eps=Setting(.1, 0, 1, traced=True, doc='share of the even distribution in the label'))
def smoothing(logits, targets, *, progress, settings, state):
    """H((1 - eps) y + eps / K, p): label smoothing (arXiv 1512.00567, section 7; for noisy labels arXiv 2003.02819)."""
    del progress
    logits, targets = _inputs(logits, targets)
    return optax.losses.softmax_cross_entropy(logits, optax.smooth_labels(targets, settings.eps)), {}, state


@LOSSES.register('temperature', per_example=True, convex=True, log_temperature=Setting(
    0., -10, 10, traced=True, doc='log of what the logits are divided by, in the loss alone'))
def temperature(logits, targets, *, progress, settings, state):
    """H(y, softmax(z / T)), T = exp(log_temperature): distillation at a temperature (Hinton et al., arXiv 1503.02531).

    The student answers with z itself, so that with T > 1 it is surer than its labels. Gradients shrink as 1 / T; they
    are not multiplied by T^2.
    """
    del progress
    logits, targets = _inputs(logits, targets)
    # Of large logits the quotient is rounded, and its maximum would not be quite what the softmax subtracts.
    below = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    return optax.losses.softmax_cross_entropy(below / jnp.exp(settings.log_temperature), targets), {}, state


def weighted_mean(losses, weight):
    """sum(losses weight) / sum(weight), both [B]; zero, with zero gradient, where all weights are zero."""
    total = jnp.sum(weight)
    return jnp.sum(losses * weight) / jnp.where(total > 0, total, 1)


def _inputs(logits, targets):
    """Both [B, K], in float32, or in float64 where they come so."""
    chex.assert_rank([logits, targets], 2)
    chex.assert_equal_shape([logits, targets])
    return tuple(jnp.asarray(array, jnp.promote_types(array.dtype, jnp.float32)) for array in (logits, targets))


def _warmed_up(progress, settings):
    """alpha min(1, progress / alpha_warmup), and alpha where there is no warm-up."""
    warms_up = settings.alpha_warmup > 0
    # The divisor is chosen before dividing: a where after it would leave 0/0 in the gradient.
    ramp = progress / jnp.where(warms_up, settings.alpha_warmup, 1)
    return settings.alpha * jnp.where(warms_up, jnp.minimum(ramp, 1), 1)


def _windowed(logits, targets, radius):
    """(H(y, p) [B], 0 where max p is 1/K + radius or more, aux)."""
    keep = jnp.max(jax.nn.softmax(logits), axis=-1) < 1 / logits.shape[-1] + radius
    return jnp.where(keep, optax.losses.softmax_cross_entropy(logits, targets), 0), {'kept': jnp.mean(keep)}


def _log(targets, log_zero):
    """log y [B, K], at least log_zero."""
    return jnp.maximum(jnp.log(targets), log_zero)


def _reverse(logits, targets, log_zero):
    """H(p, y) [B], log y at least log_zero."""
    return -jnp.sum(jax.nn.softmax(logits) * _log(targets, log_zero), axis=-1)


def _one_hot(scores):
    """The largest of each row as [B, K]; the first of equal ones."""
    return jax.nn.one_hot(jnp.argmax(scores, axis=-1), scores.shape[-1], dtype=scores.dtype)


def _towards_hardened(logits, targets, level, alpha):
    """(H((1 - alpha) y + alpha f, p) [B], aux), f hardened at that level of p_0; linear in the target, so one term."""
    hardened, aux = _harden(jax.lax.stop_gradient(logits), level)
    mixed = (1 - alpha) * targets + alpha * hardened
    return optax.losses.softmax_cross_entropy(logits, mixed), {'alpha': alpha, **aux}


def _harden(logits, level):
    """One-hot predictions [B, K] and aux; for K = 2 class 0 where p_0 is at least its quantile at `level`."""
    if logits.shape[-1] != 2:
        return _one_hot(logits), {}
    probability = jax.nn.softmax(logits)[:, 0]
    threshold = _quantile(probability, level)
    first = (probability >= threshold).astype(logits.dtype)
    aux = {'threshold': threshold, 'hardened_positive': jnp.mean(1 - first)}
    return jnp.stack([first, 1 - first], axis=-1), aux


def _quantile(values, level):
    """The quantile of values [B], interpolated linearly between its neighbours.

    Not jnp.quantile, whose result for values that tie can lie one rounding above all of them. Every p_0 of a head that
    starts at zero ties, and no example would then reach the threshold. This is torch.lerp's form, exact for ties.
    """
    ordered = jnp.sort(values)
    rank = jnp.clip(level, 0, 1) * (len(values) - 1)
    lower = jnp.floor(rank).astype(jnp.int32)
    low, high = ordered[lower], ordered[jnp.minimum(lower + 1, len(values) - 1)]
    share = rank - lower
    return jnp.where(share < .5, low + share * (high - low), high - (1 - share) * (high - low))


@LOSSES.register('confident_pairs', per_example=True, convex=True)
def confident_pairs(logits, targets, *, progress, settings, state):
    """Cross-entropy with what the label prefers, weighed by how much: w H(h, p), w = 2 max y - 1, h the argmax of y.

    Of a reward model's pair y = sigmoid(s+ - s-), so that w = 2 (sigmoid(|s+ - s-|) - 1/2) (CW-PO, arXiv 2603.04968).
    With hard labels it is `xent`; a label that is even counts nothing. K > 2: w = (K max y - 1) / (K - 1).
    aux: 'weight', the mean of w.
    """
    del progress, settings
    logits, targets = _inputs(logits, targets)
    number = targets.shape[-1]
    weight = (number * targets.max(-1) - 1) / (number - 1)
    return weight * optax.losses.softmax_cross_entropy(logits, _one_hot(targets)), {'weight': jnp.mean(weight)}, state
