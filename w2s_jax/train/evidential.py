"""Evidence of several teachers (Bayesian weak-to-strong: Cui et al. 2024, arXiv 2406.03199; evidential deep learning:
Sensoy et al. 2018, arXiv 1806.01768)."""
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln

from w2s_jax.losses import weighted_mean
from w2s_jax.objectives import OBJECTIVES, Objective
from w2s_jax.registry import Setting, Settings

EVIDENCE = {'softplus': jax.nn.softplus, 'relu': jax.nn.relu}
SETTINGS: dict[str, Any] = {
    'evidence': Setting('softplus', choices=tuple(EVIDENCE), doc='of a logit; relu: as published, which a head that '
                        'begins at zero never leaves'),
    'gamma': Setting(.5, 0, 1, traced=True, doc="weight of the student's own answer"),
    'spread': Setting(1., 0, 1e3, traced=True, doc='weight, at the end of training, of the divergence of evidence for '
                      'other classes from none')}


@OBJECTIVES.register('evidential', **SETTINGS)
def evidential(how: Settings) -> Objective:
    """(1 - gamma) mean_t sum_k P_tk L(k) + gamma L(the student's answer), L of a Dirichlet distribution over labels
    by the evidence of a logit (after arXiv 2406.03199, with even weights of teachers). Reads the column `teachers`
    `[B, T, K]` (methods `ensemble` and `raven`); with hard labels (`method.labels`) it is what RAVEN's code compares
    with.

    It predicts the mean of the distribution, alpha / S, and logs `uncertainty`, the mean of K / S.
    """
    evidence = EVIDENCE[how.evidence]

    def alphas(logits):  # [B, K] float32: the parameters of a Dirichlet distribution
        return evidence(logits.astype(jnp.float32)) + 1

    def losses(forward, params, batch, state, settings, progress, key):
        logits = forward(params, batch['inputs'])
        alpha = alphas(logits)
        each = surprise(alpha) + progress * settings.spread * divergence(alpha)
        taught = jnp.sum(batch['teachers'].mean(1) * each, axis=-1)
        own = jnp.take_along_axis(each, logits.argmax(-1)[:, None], axis=-1)[:, 0]
        unsure = weighted_mean(alpha.shape[-1] / alpha.sum(-1), batch['weight'])
        return (1 - settings.gamma) * taught + settings.gamma * own, {'uncertainty': unsure}

    return Objective(losses, per_example=True,
                     predict=lambda forward, params, inputs: jnp.log(alphas(forward(params, inputs))))


def surprise(alpha):
    """`[B, K]`: of each class -log of its probability under Dir(alpha) `[B, K]`: log S - log alpha_k."""
    return jnp.log(alpha.sum(-1, keepdims=True)) - jnp.log(alpha)


def divergence(alpha):
    """`[B, K]`: of each class k KL(Dir(a) || Dir(1)), a being alpha `[B, K]` with 1 in place of alpha_k: what there is
    of evidence for other classes."""
    total = alpha.sum(-1, keepdims=True) - alpha + 1
    others = _but_own(gammaln(alpha))
    slope = _but_own((alpha - 1) * digamma(alpha)) - digamma(total) * _but_own(alpha - 1)
    return gammaln(total) - others - gammaln(float(alpha.shape[-1])) + slope


def _but_own(values):
    return values.sum(-1, keepdims=True) - values
