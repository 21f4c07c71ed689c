"""Optimisers whose numbers are traced, so that one compiled program serves a whole grid of them."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from w2s_jax.registry import Registry, Setting, Settings

# exact: it does not step through batches, but solves for the minimum of a convex loss (exact.py)
OPTIMIZERS = Registry('optimizer', options=('exact',), traces=True)
BETA2 = Setting(.999, 0, 1, '()', traced=True, doc='decay of the second moments')


def clip_by_global_norm(limit) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` (arXiv 1211.5063, algorithm 1) by one factor for all, which costs no pass over
    the gradients of its own. limit: 0 for none."""
    def update(grads, state, params=None):
        norm = optax.tree.norm(grads)
        factor = jnp.where((limit > 0) & (norm > limit), limit / norm, 1.0)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), state
    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


# What they keep beside a float32 parameter, in bytes: 8, 6, next to nothing, 2, 4. No 8-bit states: optax has none.
@OPTIMIZERS.register('adamw', beta2=BETA2)
def adamw(settings) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    return optax.scale_by_adam(b2=settings.beta2)


@OPTIMIZERS.register('adamw_half', beta2=BETA2)
def adamw_half(settings) -> optax.GradientTransformation:
    """AdamW whose first moments are bfloat16."""
    return optax.scale_by_adam(b2=settings.beta2, mu_dtype=jnp.bfloat16)


@OPTIMIZERS.register('adafactor', beta2=BETA2)
def adafactor(settings) -> optax.GradientTransformation:
    """Adafactor without momentum (Shazeer and Stern 2018, arXiv 1804.04235): of a matrix's second moments the means of
    its rows and columns, and updates clipped to a root mean square of 1. Steps are absolute, as AdamW's, and the decay
    grows as 1 - t^-0.8 up to beta2 (Zhai et al. 2022, arXiv 2106.04560, section 3.3)."""
    def decay(step, exponent):
        return jnp.minimum(1.0 - (step + 1.0) ** -exponent, settings.beta2)
    return optax.chain(optax.scale_by_factored_rms(decay_rate_fn=decay), optax.clip_by_block_rms(1.0))


@OPTIMIZERS.register('lion')
def lion(settings) -> optax.GradientTransformation:
    """Lion (Chen et al. 2023, arXiv 2302.06675), its momentum bfloat16; a learning rate 3 to 10 times smaller."""
    return optax.scale_by_lion(mu_dtype=jnp.bfloat16)


@OPTIMIZERS.register('sgd')
def sgd(settings) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum 0.9."""
    return optax.trace(decay=0.9)


@OPTIMIZERS.register('lbfgs', exact=True, l2=Setting(.01, 0, 1e6, traced=True, doc='without a stopping rule; with one '
                                                                                      'the rule chooses it'))
def lbfgs(settings) -> optax.GradientTransformation:
    """The exact minimum of cross-entropy with an L2 penalty, for probes (exact.py): no learning rate, no epochs."""
    return optax.identity()


SCHEDULES: dict[str, Callable] = {
    'constant': lambda progress: jnp.ones_like(progress),
    'linear': lambda progress: 1.0 - progress,
    'cosine': lambda progress: 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),
}


def schedule(name: str, progress, warmup):
    """The learning rate's factor in [0, 1]: linear warm-up over the first `warmup` of training, then `name`.

    Args:
      progress: scalar in [0, 1).  warmup: scalar in [0, 1], traced.
    """
    ramp = jnp.where(progress < warmup, progress / jnp.maximum(warmup, 1e-9), 1.0)
    return ramp * SCHEDULES[name](progress)


def decays(params):
    """Which leaves weight decay touches: matrices, not biases or norms (the layer axis of a scan not counted)."""
    def is_matrix(path, leaf):
        name = jax.tree_util.keystr(path)
        return leaf.ndim - ('layers' in name) >= 2 and not name.endswith("['bias']")
    return jax.tree_util.tree_map_with_path(is_matrix, params)


def build(optimizer: str, schedule_name: str, steps: int, hyper: dict) -> optax.GradientTransformation:
    """Clip, precondition, decay, scale.

    `hyper` holds learning_rate, weight_decay, clip (0: none), warmup, and as `optimizer` a dict of that optimizer's
    own numbers, all traced.
    """
    return optax.chain(
        clip_by_global_norm(hyper['clip']),
        OPTIMIZERS[optimizer].fn(Settings(hyper['optimizer'])),
        optax.add_decayed_weights(hyper['weight_decay'], mask=decays),
        optax.scale_by_schedule(
            lambda count: -hyper['learning_rate'] * schedule(schedule_name, count / steps, hyper['warmup'])),
    )


def step(tx: optax.GradientTransformation, grads, opt_state, params):
    """The next parameters and the next state of `tx`.

    It goes over a leading axis of one, the axis of runs that the program's arrays have anyway: without it XLA on a
    CPU computes new moments again where the parameters are updated, and so copies all that it then overwrites.
    """
    def update(grads, opt_state, params):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    stacked = jax.vmap(update)(*jax.tree.map(lambda x: x[None], (grads, opt_state, params)))
    return jax.tree.map(lambda x: x[0], stacked)
