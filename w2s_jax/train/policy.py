"""On-policy training of causal language models, the mathematics: what a drawn text is worth, and its tokens' losses.

B texts of up to T tokens, drawn from the policy itself after prompts; G of them, side by side, have the same prompt.
`mask` `[B, T]` bool says which tokens were drawn; what stands behind a text's end changes nothing.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w2s_jax.errors import ConfigError
from w2s_jax.objectives import ALGORITHMS
from w2s_jax.registry import Setting

LEAST = 1e-4  # deviation that advantages are divided by at least


class Algorithm(NamedTuple):
    """What is registered is a function without arguments that makes one.

    judge: (drawn, samples, settings) -> columns `[B, T]` that the loss reads, computed once when a round's texts are
      drawn. drawn: `mask`, `reward` `[B]`, and of each token `old` and `reference`, its log-probability under the
      policy that drew it and under the one before training, with a critic `value`, all `[B, T]`.  samples: G.
    losses: (found, batch, settings) -> (losses `[B]`, a dict of scalars to log). found: of the policy as it is now
      `logprob` `[B, T]`, with a critic `value`, with a teacher `divergence`; batch: what was drawn, and the columns.
    """
    judge: Callable
    losses: Callable


def gae(rewards, values, mask, gamma, decay):
    """Generalised advantage estimates (Schulman et al. 2015, arXiv 1506.02438, eq. 16): sums of delta_t = r_t + gamma
    v_(t + 1) - v_t, each (gamma decay) times the one before; a text's end is worth 0, whether or not it stopped.

    Args:
      rewards, values: `[B, T]`, values of what stands before token t.  mask: `[B, T]`.  gamma, decay: in [0, 1]; with
        decay (the paper's lambda) 1 it is the discounted return minus the value, with 0 delta_t.
    Returns: `[B, T]`, 0 after the end.
    """
    rewards, values = jnp.where(mask, rewards, 0), jnp.where(mask, values, 0)
    deltas = rewards + gamma * jnp.pad(values[:, 1:], ((0, 0), (0, 1))) - values

    def back(later, delta):
        advantage = delta + gamma * decay * later
        return advantage, advantage
    found = jax.lax.scan(back, jnp.zeros(len(rewards)), deltas.T, reverse=True)[1].T
    return jnp.where(mask, found, 0)


def group_relative(rewards, samples: int, deviation: bool = True):
    """`[B]`: how much better a text is than the mean of those of its prompt, over their deviation (of a sample, with
    G - 1) if asked (GRPO: Shao et al. 2024, arXiv 2402.03300, section 4.1.2; without: arXiv 2503.20783, section 3.2).

    Args:
      rewards: `[B]`, the G = `samples` of a prompt side by side. Raises ConfigError for fewer than two.
    """
    groups = _grouped(rewards, samples)
    found = groups - groups.mean(1, keepdims=True)
    return (found / (groups.std(1, ddof=1, keepdims=True) + LEAST) if deviation else found).reshape(-1)


def leave_one_out(rewards, samples: int):
    """`[B]`: how much better a text is than the mean of the others of its prompt (RLOO: Ahmadian et al. 2024, arXiv
    2402.14740, eq. 7). Arguments and errors as in `group_relative`."""
    groups = _grouped(rewards, samples)
    return (groups - (groups.sum(1, keepdims=True) - groups) / (samples - 1)).reshape(-1)


def _grouped(rewards, samples: int):
    if samples < 2:
        raise ConfigError(f'samples: {samples} a prompt, expected 2 or more, which are compared')
    return rewards.reshape(-1, samples)


def whitened(advantages, mask):
    """`[B, T]` less the mean of all drawn tokens, over their deviation; 0 where none was drawn."""
    count = jnp.maximum(mask.sum(), 1)
    centred = jnp.where(mask, advantages - jnp.where(mask, advantages, 0).sum() / count, 0)
    return centred / (jnp.sqrt((centred ** 2).sum() / count) + LEAST)


def k1(logprob, reference):
    """log p - log q `[...]` of tokens drawn from p, of their log-probabilities `[...]`: its mean is KL(p || q), its
    variance large (Schulman 2020, 'Approximating KL divergence')."""
    return logprob - reference


def k3(logprob, reference):
    """q / p - 1 - log(q / p) `[...]` of tokens drawn from p: its mean, too, is KL(p || q), it is never negative and
    varies less where q is near p (the same; arXiv 2402.03300, eq. 4). As a loss its gradient makes KL(q || p) smaller.
    """
    return jnp.expm1(reference - logprob) - (reference - logprob)


def shaped(reward, kl, mask, coefficient):
    """`[B, T]`: minus `coefficient` times each token's k1, and at a text's last token its reward `[B]`: the KL penalty
    as a reward (Ouyang et al. 2022, arXiv 2203.02155, eq. 2)."""
    last = mask & ~jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
    return jnp.where(last, reward[:, None], 0) - coefficient * jnp.where(mask, kl, 0)


def clipped(logprob, old, advantages, mask, clip):
    """PPO's clipped surrogate, negated: -min(w A, clamp(w, 1 - clip, 1 + clip) A) with w = p / p_old (Schulman et al.
    2017, arXiv 1707.06347, eq. 7).

    Returns: losses `[B, T]`, and bool `[B, T]` where the clamp counts, so that the gradient is 0.
    """
    ratio = jnp.exp(jnp.where(mask, logprob - old, 0))
    free, bound = ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages
    return jnp.where(mask, -jnp.minimum(free, bound), 0), mask & (bound < free)


def reinforce(logprob, advantages, mask):
    """`[B, T]`: -A log p, whose gradient is minus the policy's (Williams 1992)."""
    return jnp.where(mask, -jax.lax.stop_gradient(advantages) * logprob, 0)


def shifted(anchor, after, before, alpha):
    """Log-probabilities `[..., V]` of what is distilled: softmax of anchor + alpha (after - before), which are the
    log-probabilities of a strong model and of a weak one after and before its own training (W2S-OPD, arXiv 2607.26246;
    a form of arXiv 2602.12125, where alpha is the scale of the reward)."""
    return jax.nn.log_softmax(anchor + alpha * (after - before))


def reverse_kl(logprobs, target):
    """KL(p || q) `[...]` of log-probabilities `[..., V]`: sum_v p (log p - log q), the loss of on-policy distillation
    at each token (arXiv 2306.13649, eq. 3 and section 3.2, with D = reverse KL)."""
    return jnp.sum(jnp.exp(logprobs) * (logprobs - target), axis=-1)


def spread(losses, mask, divide: str):
    """`[B]`: of each text the sum of its tokens' losses `[B, T]`, over its own length ('text', GRPO), the mean length
    ('tokens': all tokens count the same), T ('most': Dr GRPO, arXiv 2503.20783, section 3.2), or nothing ('none')."""
    total, length = jnp.where(mask, losses, 0).sum(1), mask.sum(1).astype(jnp.float32)
    by = {'text': length, 'tokens': length.mean(), 'most': jnp.float32(mask.shape[1]), 'none': jnp.float32(1)}[divide]
    return total / jnp.maximum(by, 1)


def mean_over(values, mask):
    """The mean over drawn tokens."""
    return jnp.where(mask, values, 0).sum() / jnp.maximum(mask.sum(), 1)


KL: dict[str, Any] = {'low': 0, 'high': 1e4, 'traced': True}
CLIP = Setting(.2, 0, 1, '()', traced=True, doc='by how much a probability may change in a round')
DIVIDE = ('text', 'tokens', 'most', 'none')


@ALGORITHMS.register('reinforce', kl=Setting(.05, **KL, doc='of the penalty, which is part of the reward'),
                     baseline=Setting('leave_one_out', choices=('leave_one_out', 'mean', 'none'),
                                      doc="of a text's advantage: the other texts of its prompt, all texts, nothing"),
                     divide=Setting('none', choices=DIVIDE, doc="what a text's loss is divided by"))
def reinforcing() -> Algorithm:
    """REINFORCE with a baseline: RLOO, each text one action (arXiv 2402.14740), its reward less kl times its k1."""
    def judge(drawn, samples, settings):
        penalty = jnp.where(drawn['mask'], k1(drawn['old'], drawn['reference']), 0).sum(1)
        worth = drawn['reward'] - settings.kl * penalty
        advantage = {'leave_one_out': lambda: leave_one_out(worth, samples), 'mean': lambda: worth - worth.mean(),
                     'none': lambda: worth}[settings.baseline]()
        return {'advantage': jnp.broadcast_to(advantage[:, None], drawn['mask'].shape)}

    def losses(found, batch, settings):
        mask = batch['mask']
        return spread(reinforce(found['logprob'], batch['advantage'], mask), mask, settings.divide), {}
    return Algorithm(judge, losses)


@ALGORITHMS.register('grpo', kl=Setting(.04, **KL, doc='of the penalty k3, which is part of the loss'), clip=CLIP,
                     deviation=Setting(True, doc="divide advantages by the deviation of the prompt's rewards"),
                     divide=Setting('text', choices=DIVIDE, doc="what a text's loss is divided by"))
def grpo() -> Algorithm:
    """Group relative policy optimisation (arXiv 2402.03300, eq. 3); Dr GRPO with deviation=False, divide='most'."""
    def judge(drawn, samples, settings):
        advantage = group_relative(drawn['reward'], samples, settings.deviation)
        return {'advantage': jnp.broadcast_to(advantage[:, None], drawn['mask'].shape)}

    def losses(found, batch, settings):
        mask, logprob = batch['mask'], found['logprob']
        each, held = clipped(logprob, batch['old'], batch['advantage'], mask, settings.clip)
        penalty = k3(logprob, jnp.where(mask, batch['reference'], logprob))
        return spread(each + settings.kl * penalty, mask, settings.divide), {'clipped': mean_over(held, mask)}
    return Algorithm(judge, losses)


@ALGORITHMS.register('ppo', critic=True, kl=Setting(.05, **KL, doc='of the penalty k1, part of the reward'), clip=CLIP,
                     gamma=Setting(1., 0, 1, traced=True, doc='discount of later tokens'),
                     decay=Setting(.95, 0, 1, traced=True, doc='lambda of the advantages'),
                     value=Setting(.1, 0, 1e3, traced=True, doc="weight of the critic's squared error"),
                     whiten=Setting(True, doc="advantages of a round with mean 0 and deviation 1"),
                     divide=Setting('tokens', choices=DIVIDE, doc="what a text's loss is divided by"))
def ppo() -> Algorithm:
    """Proximal policy optimisation with a critic (arXiv 1707.06347, 1506.02438), the KL penalty in each token's reward
    (arXiv 2203.02155)."""
    def judge(drawn, samples, settings):
        mask, value = drawn['mask'], jnp.where(drawn['mask'], drawn['value'], 0)
        rewards = shaped(drawn['reward'], k1(drawn['old'], drawn['reference']), mask, settings.kl)
        advantage = gae(rewards, value, mask, settings.gamma, settings.decay)
        return {'advantage': whitened(advantage, mask) if settings.whiten else advantage, 'return': advantage + value}

    def losses(found, batch, settings):
        mask = batch['mask']
        each, held = clipped(found['logprob'], batch['old'], batch['advantage'], mask, settings.clip)
        error = jnp.where(mask, (found['value'] - batch['return']) ** 2 / 2, 0)
        return spread(each + settings.value * error, mask, settings.divide), {
            'clipped': mean_over(held, mask), 'value_error': mean_over(error, mask)}
    return Algorithm(judge, losses)


@ALGORITHMS.register('distill', teacher=True,
                     alpha=Setting(1., 0, 100, traced=True, doc='of the weak difference; without a weak model before, '
                                                                'nothing'),
                     divide=Setting('tokens', choices=DIVIDE, doc="what a text's loss is divided by"))
def distilling() -> Algorithm:
    """On-policy distillation: reverse KL to the teacher's next token, at every token that the policy drew."""
    def losses(found, batch, settings):
        return spread(found['divergence'], batch['mask'], settings.divide), {
            'divergence': mean_over(found['divergence'], batch['mask'])}
    return Algorithm(lambda drawn, samples, settings: {}, losses)
