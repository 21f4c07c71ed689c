"""Projected gradient descent on inputs: pure functions of a model's logits, each example in its own l_inf ball."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from w2s_jax.registry import Setting

# The section `attack` of a config: how every model is attacked once it is trained.
SETTINGS = {
    'eps': Setting(0., 0, 1e3, doc='radius of a ball (l_inf) around each test row, in which every model is attacked: a '
                                   'further test set `robust`; 0: none'),
    'step': Setting(.1, 0, 1, '(]', doc='of the attack, as a share of eps'),
    'steps': Setting(100, 1, 10**5, doc='of each attempt; more of them never raise the accuracy'),
    'restarts': Setting(5, 1, 10**4, doc='attempts with either loss (cross-entropy, margin); the first starts at the '
                                         'row itself, others anywhere in the ball')}


def draws(key, rows, sample: Callable):
    """`[B, ...]`: sample(key) for each of `rows` `[B]`, by its number, wherever it stands in a batch."""
    return jax.vmap(lambda row: sample(jax.random.fold_in(key, row)))(rows)


def moved(x, at, slope, eps, step):
    """A step of length `step` by the sign of the slope, and back into the ball of radius eps around x."""
    return jnp.clip(at + step * jnp.sign(slope), x - eps, x + eps)


def pgd(loss: Callable, x, start, *, eps, step, steps: int):
    """Where projected gradient ascent ends (Madry et al. 2018, arXiv 1706.06083): x' <- clip(x' + step sign(dl/dx')).

    Args:
      loss: `[B, ...]` -> `[B]`, each of its own example alone; its negative descends.  x: `[B, ...]`, the middles of
        the balls.  start: the same, where it begins.
    """
    slope = jax.grad(lambda at: loss(at).sum())
    return jax.lax.fori_loop(0, steps, lambda i, at: moved(x, at, slope(at), eps, step),
                             jnp.clip(start, x - eps, x + eps))


def margin(logits, truth):
    """`[B]`: the largest logit of another class less that of the true one; above 0: wrong."""
    own = jax.nn.one_hot(truth, logits.shape[-1], dtype=bool)
    return jnp.where(own, -jnp.inf, logits).max(-1) - jnp.where(own, logits, 0).sum(-1)


def wrongness(logits, truth):
    """`[B]`: cross-entropy with the truth."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, truth)


def strongest(forward: Callable, x, truth, rows, key, *, eps, step, steps: int, restarts: int):
    """Of all points that attempts pass, the one in each ball with the largest margin: what is kept only grows with
    steps, restarts and losses.

    Args:
      forward: `[B, ...]` -> logits `[B, K]`.  x: `[B, ...]`.  truth: `[B]` classes.  rows: `[B]`, numbers that draws
        follow from.
    """
    def attempt(best, restart):
        noise = draws(jax.random.fold_in(key, restart), rows,
                      lambda k: jax.random.uniform(k, x.shape[1:], minval=-1., maxval=1.))
        for loss in (wrongness, margin):
            best = _along(forward, loss, x, truth, jnp.where(restart == 0, x, x + eps * noise), best, eps, step, steps)
        return best, None

    best = (x, margin(forward(x), truth))
    return jax.lax.scan(attempt, best, jnp.arange(restarts))[0][0]


def _along(forward, loss, x, truth, start, best, eps, step, steps: int):
    """The best point so far, after one attempt more."""
    def told(at):
        logits = forward(at)
        return loss(logits, truth).sum(), margin(logits, truth)

    def once(i, carry):
        at, best = carry
        slope, found = jax.grad(told, has_aux=True)(at)
        return moved(x, at, slope, eps, step), better(best, at, found)

    end, best = jax.lax.fori_loop(0, steps, once, (start, best))
    return better(best, end, told(end)[1])


def better(best, at, found):
    """(point, margin) of each example: those before, or `at` where its margin is larger."""
    point, most = best
    return jnp.where((found > most).reshape(-1, *[1] * (at.ndim - 1)), at, point), jnp.maximum(most, found)
