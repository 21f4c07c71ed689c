"""Objectives on perturbed inputs (methods.md D4): random noise, and adversarial weak-to-strong training.

"Robust SuperAlignment" (Dong et al., NeurIPS 2025, OpenReview rOR5IZcwJx). With the teacher's probabilities p_T, the
student's p_S, and CE(p, q) = -sum_k q_k log p_k:

  x_adv ascends CE(p_S(.), p_T(x)) in the ball around x         the student's adversary
  x_inv descends CE(p_T(.), argmax p_T(x))                      the teacher's inverse adversary (phases/attack.py)
  w(x) = H_T(x) / (H_T(x) + kappa), kappa = median H_T          the teacher's doubt (labels/doubt.py)
  L = (1 - w) CE(p_S(x_adv), p_T(x_inv)) + w CE(p_S(x_adv), argmax p_S(x))
"""
from typing import Any

import jax
import jax.numpy as jnp
import optax

from w2s_jax.errors import ConfigError
from w2s_jax.losses import weighted_mean
from w2s_jax.objectives import OBJECTIVES, Objective
from w2s_jax.registry import Setting, Settings
from w2s_jax.train import attacks

JITTER = 1e-3  # standard deviation of where an ascent begins
BALL: dict[str, Any] = {'eps': Setting(.1, 0, 1e3, traced=True, doc='radius of the ball (l_inf) around a row')}


def features_of(batch, name: str):
    """What is perturbed, `[B, ...]`. Raises ConfigError for inputs that are no numbers."""
    if 'features' not in batch['inputs']:
        raise ConfigError(f'objective {name!r}: perturbs features, but inputs are {", ".join(sorted(batch["inputs"]))},'
                          ' expected a task of features')
    return batch['inputs']['features']


@OBJECTIVES.register('noise', **BALL)
def noise() -> Objective:
    """Cross-entropy on features that random signs move to a corner of their ball: what an adversary has to beat."""
    def losses(forward, params, batch, state, settings, progress, key):
        x = features_of(batch, 'noise')
        signs = attacks.draws(key, batch['row'], lambda k: jax.random.rademacher(k, x.shape[1:], x.dtype))
        logits = forward(params, batch['inputs'] | {'features': x + settings.eps * signs})
        return optax.losses.softmax_cross_entropy(logits, batch['targets']), {}

    return Objective(losses, per_example=True)


@OBJECTIVES.register(
    'adv_w2s', **BALL,
    step=Setting(.25, 0, 1, '(]', traced=True, doc='of the ascent, as a share of eps'),
    steps=Setting(10, 1, 10**4, doc='of the ascent'),
    eur=Setting(True, doc="the student's own answer weighs as much as the teacher doubts (column `doubt`); else alpha"),
    iar=Setting(True, doc="learned is what the teacher says of its inverse adversaries (column `inverse`); else of x"),
    alpha=Setting(.5, 0, 1, traced=True, doc="weight of the student's own answer without eur; 0: adversarial training"),
    alpha_warmup=Setting(.2, 0, 1, traced=True, doc='share of training in which the weight of the own answer, of alpha '
                                                    'or eur, grows from 0; 0: as published'))
def adv_w2s() -> Objective:
    """Adversarial weak-to-strong training: the student learns its teacher and itself on its own adversaries (Dong et
    al., NeurIPS 2025, OpenReview rOR5IZcwJx).

    Columns `doubt` `[B]` and `inverse` `[B, K]` are of method `adversarial`; without eur and iar it reads neither.
    """
    def losses(forward, params, batch, state, settings, progress, key):
        x, fixed = features_of(batch, 'adv_w2s'), jax.lax.stop_gradient(params)

        def seen(params, at):
            return forward(params, batch['inputs'] | {'features': at}).astype(jnp.float32)

        adversary = adversaries(lambda at: seen(fixed, at), x, batch['targets'], batch['row'], key, settings)
        logits, clean = seen(params, adversary), seen(fixed, x)
        own = jax.nn.one_hot(clean.argmax(-1), clean.shape[-1])
        share = own_share(batch['doubt'] if settings.eur else settings.alpha, progress, settings)
        taught = optax.losses.softmax_cross_entropy(logits, batch['inverse'] if settings.iar else batch['targets'])
        loss = (1 - share) * taught + share * optax.losses.softmax_cross_entropy(logits, own)
        logged = {'own_share': jnp.broadcast_to(share, loss.shape), 'fooled': logits.argmax(-1) != clean.argmax(-1)}
        return loss, {k: weighted_mean(v.astype(jnp.float32), batch['weight']) for k, v in logged.items()}

    return Objective(losses, per_example=True)


def own_share(weight, progress, settings: Settings):
    """The weight of the student's own answer, which grows to its full over `alpha_warmup` of training."""
    ramp = jnp.clip(progress / jnp.maximum(settings.alpha_warmup, 1e-6), 0, 1)
    return weight * jnp.where(settings.alpha_warmup > 0, ramp, 1.)


def adversaries(forward, x, targets, rows, key, settings: Settings):
    """`[B, ...]`: where cross-entropy with the targets is high, in the ball around x.

    Args:
      forward: `[B, ...]` -> logits of fixed parameters.  targets: `[B, K]`.  rows: `[B]`, that draws follow from.
    """
    start = x + JITTER * attacks.draws(key, rows, lambda k: jax.random.normal(k, x.shape[1:], x.dtype))
    return attacks.pgd(lambda at: optax.losses.softmax_cross_entropy(forward(at), targets), x, start,
                       eps=settings.eps, step=settings.step * settings.eps, steps=settings.steps)
