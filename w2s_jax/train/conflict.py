"""Objectives of a conflict between what a supervisor teaches and what else is rewarded (Yang et al. 2024, arXiv
2406.11431; methods.md D1, D2). Two classes: which of two answers is preferred."""
import jax.numpy as jnp
import optax

from w2s_jax.errors import ConfigError
from w2s_jax.losses import weighted_mean
from w2s_jax.objectives import OBJECTIVES, Objective
from w2s_jax.registry import Setting


@OBJECTIVES.register('explicit_conflict',
                     alpha=Setting(.5, 0, 1, traced=True, doc='the reward for contradicting; 0: xent'),
                     against=Setting('weak', choices=('weak', 'truth'), doc='what is contradicted: the weak label, or '
                                     'the truth (column `truth`, of an oracle), as published'))
def explicit_conflict() -> Objective:
    """H(y, p) + alpha H(1 - r, p) where the answer contradicts r already, else H(y, p); r: the label y, or truth."""
    def losses(forward, params, batch, state, settings, progress, key):
        logits, targets = forward(params, batch['inputs']).astype(jnp.float32), batch['targets']
        if targets.shape[-1] != 2:
            raise ConfigError(f"objective 'explicit_conflict': {targets.shape[-1]} classes, expected 2")
        right = batch['truth'] if settings.against == 'truth' else targets
        contradicts = (logits.argmax(-1) != right.argmax(-1)).astype(jnp.float32)
        reward = optax.losses.softmax_cross_entropy(logits, 1 - right)
        loss = optax.losses.softmax_cross_entropy(logits, targets) + settings.alpha * contradicts * reward
        return loss, {'contradicts': weighted_mean(contradicts, batch['weight'])}

    return Objective(losses, per_example=True)


@OBJECTIVES.register('implicit_conflict',
                     share=Setting(.5, 0, 1, traced=True, doc='weight of the other preference; 0: xent'))
def implicit_conflict() -> Objective:
    """(1 - share) H(y, p) + share H(v, p): v `[B, K]`, the column `helpful`, is what people say of another preference.

    Of rows that are drawn alike it is in the mean the same as other rows with these labels, mixed in.
    """
    def losses(forward, params, batch, state, settings, progress, key):
        logits = forward(params, batch['inputs']).astype(jnp.float32)
        weak, other = (optax.losses.softmax_cross_entropy(logits, batch[k]) for k in ('targets', 'helpful'))
        return (1 - settings.share) * weak + settings.share * other, {}

    return Objective(losses, per_example=True)
