"""Objectives that tune a language model on which of two texts is preferred, without a reward model.

Of text k of a row, after what both texts have in common at their beginning: l_k is its log-likelihood, n_k its number
of tokens, r_k what l_k was before tuning (`reference`); m_k = l_k / n_k. y is the label, weak or true, hard or soft,
`[B, 2]`, rows sum to 1. The tuned model answers which text is preferred: softmax over k of its `score`, which is what
the loss compares.
"""
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from w2s_jax.losses import weighted_mean
from w2s_jax.objectives import OBJECTIVES, Objective
from w2s_jax.registry import Setting, Settings

BETA: dict[str, Any] = {'low': 0, 'high': 1e4, 'ends': '(]'}


def read(forward, params, inputs) -> tuple[jax.Array, jax.Array]:
    """(l - r, m) `[B, 2]` float32."""
    found = forward(params, inputs).astype(jnp.float32)
    return found - inputs['reference'], found / jnp.maximum(inputs['length'] - inputs['begins'], 1)


def log_odds(m):
    """log(P / (1 - P)) of a mean log-probability m, P = exp(m)."""
    return m - jnp.log1p(-jnp.exp(jnp.minimum(m, -1e-6)))


def tuning(loss: Callable, score: Callable) -> Objective:
    """An objective. score: (l - r, m) -> `[B, 2]`.  loss: (score, m, y, settings) -> `[B]`.

    It logs by how much the preferred text has become likelier (`preferred`; it may well be less than 0), and by how
    much more than the other (`margin`).
    """
    def losses(forward, params, batch, state, settings, progress, key):
        change, m = read(forward, params, batch['inputs'])
        y = batch['targets']
        mine, other = jnp.sum(y * change, axis=-1), jnp.sum((1 - y) * change, axis=-1)
        return loss(score(change, m), m, y, settings), {
            'preferred': weighted_mean(mine, batch['weight']), 'margin': weighted_mean(mine - other, batch['weight'])}

    return Objective(losses, predict=lambda forward, params, inputs: score(*read(forward, params, inputs)),
                     per_example=True)


@OBJECTIVES.register('dpo', pairs=True, beta=Setting(.1, **BETA, doc='how little the model may leave the reference'),
                     smoothing=Setting(0., 0, .5, '[)', traced=True, doc='share of labels taken for wrong'),
                     confident=Setting(False, doc='weigh a pair by how sure its label is, and harden it'))
def dpo(settings: Settings) -> Objective:
    """Direct preference optimisation: H(y, softmax(beta (l - r))) (Rafailov et al. 2023, arXiv 2305.18290, eq. 7; its
    conservative form with y smoothed; with `confident` CW-DPO, the pairs weighted as by the loss `confident_pairs`,
    arXiv 2603.04968).
    """
    def loss(score, m, y, traced):
        weight = 2 * y.max(-1) - 1 if settings.confident else 1.
        y = jax.nn.one_hot(y.argmax(-1), 2) if settings.confident else y
        return weight * optax.losses.softmax_cross_entropy(score, y + traced.smoothing * (1 - 2 * y))

    return tuning(loss, lambda change, m: settings.beta * change)


@OBJECTIVES.register('ipo', pairs=True, beta=Setting(.1, **BETA, doc='1 / (2 beta): the distance that is aimed at'))
def ipo(settings: Settings) -> Objective:
    """Identity preference optimisation: sum_k y_k (h_k - 1 / (2 beta))^2, h_k the difference of l - r between text k
    and the other (Azar et al. 2023, arXiv 2310.12036, eq. 17)."""
    def loss(score, m, y, traced):
        h = (score - score[:, ::-1]) / settings.beta
        return jnp.sum(y * (h - .5 / settings.beta) ** 2, axis=-1)

    return tuning(loss, lambda change, m: settings.beta * change)


@OBJECTIVES.register('simpo', pairs=True,
                     beta=Setting(2., **BETA, doc='times the mean log-probability of a token'),
                     margin=Setting(1., 0, 1e3, traced=True, doc='by which the preferred text is to be ahead'))
def simpo(settings: Settings) -> Objective:
    """Without a reference: -sum_k y_k log sigmoid(beta (m_k - m_other) - margin) (Meng et al. 2024, arXiv
    2405.14734, eq. 6)."""
    def loss(score, m, y, traced):
        return jnp.sum(y * jax.nn.softplus(traced.margin - (score - score[:, ::-1])), axis=-1)

    return tuning(loss, lambda change, m: settings.beta * m)


@OBJECTIVES.register('orpo', pairs=True, weight=Setting(.1, 0, 1e3, traced=True, doc='of the ratio of odds'))
def orpo(settings: Settings) -> Objective:
    """The preferred text's likelihood and its odds against the other: -sum_k y_k m_k + weight H(y, softmax(log odds))
    (Hong et al. 2024, arXiv 2403.07691, eq. 6)."""
    def loss(score, m, y, traced):
        return -jnp.sum(y * m, axis=-1) + traced.weight * optax.losses.softmax_cross_entropy(score, y)

    return tuning(loss, lambda change, m: log_odds(m))


@OBJECTIVES.register('sft', pairs=True)
def sft(settings: Settings) -> Objective:
    """Likelihood of the preferred text alone, nothing before its first own token: -sum_k y_k m_k."""
    return tuning(lambda score, m, y, traced: -jnp.sum(y * m, axis=-1), lambda change, m: change)


@OBJECTIVES.register('wspo', pairs=True, beta=Setting(.1, **BETA, doc='gamma: what l - r counts against the weak'))
def wspo(settings: Settings) -> Objective:
    """The weak model's implicit reward as it is, not only its sign (weak-to-strong preference optimisation, arXiv
    2410.18640, which compares (gamma (l - r) - weak reward)^2 text by text; here it is the difference of a pair's two
    texts, in which what depends on the prompt alone cancels): (h - log y_0 / y_1)^2, h the difference of gamma (l - r).
    y: soft labels, of a teacher that was tuned by `dpo`: softmax of its implicit reward."""
    def loss(score, m, y, traced):
        weak = jnp.log(jnp.maximum(y, 1e-6))
        return (score[:, 0] - score[:, 1] - weak[:, 0] + weak[:, 1]) ** 2

    return tuning(loss, lambda change, m: settings.beta * change)
