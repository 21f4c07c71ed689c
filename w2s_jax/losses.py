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


def _confidence(warmup: float) -> dict:
    """alpha is .5 in the paper and .75 for its largest students; its warm-up is the first fifth of training."""
    return {'alpha': Setting(.5, 0, 1, traced=True, doc='weight of the student\'s own hardened prediction'),
            'alpha_warmup': Setting(warmup, 0, 1, traced=True, doc='fraction of training in which alpha grows to it')}


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


def _towards_hardened(logits, targets, level, alpha):
    """(H((1 - alpha) y + alpha f, p) [B], aux), f hardened at that level of p_0; linear in the target, so one term."""
    hardened, aux = _harden(jax.lax.stop_gradient(logits), level)
    mixed = (1 - alpha) * targets + alpha * hardened
    return optax.losses.softmax_cross_entropy(logits, mixed), {'alpha': alpha, **aux}


def _harden(logits, level):
    """One-hot predictions [B, K] and aux; for K = 2 class 0 where p_0 is at least its quantile at `level`."""
    if logits.shape[-1] != 2:
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype), {}
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
