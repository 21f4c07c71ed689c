"""Gradients of a batch's loss: at once, in microbatches, across devices. Always those of one sum, divided once.

With `axis` (the name of a pmapped axis) a batch is one device's part of the whole; what comes back is the same on
every device: the loss and the gradients of the whole batch.
"""
import functools

import jax
import jax.numpy as jnp

from w2s_jax import losses
from w2s_jax.objectives import Columns, check_losses


def gradients(state, batch, hyper, frozen, *, apply, static, axis: str | None = None):
    """(loss, aux), gradients of the parameters in `state`. aux: what the objective returns beside its losses.

    Args:
      batch: `inputs`, each `[B, ...]`, and columns: `targets` `[B, K]`, `weight` `[B]` ...
      apply: (params, inputs, frozen) -> logits.  static: `step.Static`; its `accumulate` microbatches change memory
        and not results.
    """
    objective = static.objective.objective
    if objective.per_example and (static.accumulate > 1 or axis is not None):
        return summed(state, batch, hyper, frozen, apply, static, axis)
    forward = functools.partial(microbatched, apply=apply, frozen=frozen, parts=static.accumulate)
    if axis is not None:
        batch, forward = jax.lax.all_gather(batch, axis, tiled=True), shared(forward, axis)

    def loss_of(params):
        return batch_loss(forward, params, batch, state, hyper, static)
    return jax.value_and_grad(loss_of, has_aux=True)(state.params)


def batch_loss(forward, params, batch, state, hyper, static):
    """The weighted mean loss over a batch, and aux."""
    per_example, aux = static.objective.objective.losses(
        forward, params, Columns(batch, static.bound.name), state.loss_state, static.objective.settings(hyper['loss']),
        state.step / static.steps, jax.random.fold_in(state.rng, state.step))
    check_losses(static.bound, per_example, batch['weight'])
    return losses.weighted_mean(per_example, batch['weight']), aux


def microbatched(params, inputs, *, apply, frozen, parts: int):
    """`apply`, in so many parts one after the other, each run again when it is differentiated: the whole batch's
    logits are there, but only one part's activations (as in GradCache, arXiv 2101.06983)."""
    if parts == 1:
        return apply(params, inputs, frozen)
    one = jax.checkpoint(lambda part: apply(params, part, frozen))
    return join(jax.lax.map(one, jax.tree.map(lambda x: split(x, parts), inputs)))


def shared(forward, axis: str):
    """`forward` for a whole batch that every device of `axis` has: each computes its own rows, forward and backward,
    and what comes out, also by differentiation, is whole on every device."""
    @jax.custom_vjp
    def whole(params, inputs):
        return jax.lax.all_gather(forward(params, own(inputs, axis)), axis, tiled=True)

    def ahead(params, inputs):
        real = {k: x for k, x in inputs.items() if jnp.issubdtype(x.dtype, jnp.inexact)}
        rest = own({k: x for k, x in inputs.items() if k not in real}, axis)
        logits, pull = jax.vjp(lambda params, real: forward(params, real | rest), params, own(real, axis))
        return jax.lax.all_gather(logits, axis, tiled=True), (pull, dict.fromkeys(rest))

    def back(kept, cotangent):
        pull, rest = kept
        params, real = pull(own(cotangent, axis))
        return over(axis, jax.lax.psum, params), jax.lax.all_gather(real, axis, tiled=True) | rest

    whole.defvjp(ahead, back)
    return whole


def own(tree, axis: str):
    """This device's rows of arrays `[B, ...]` that every device has."""
    devices, here = jax.lax.axis_size(axis), jax.lax.axis_index(axis)
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, here * (len(x) // devices), len(x) // devices), tree)


def summed(state, batch, hyper, frozen, apply, static, axis):
    """For an objective that looks at one example at a time: the sum of what microbatches and devices find, each weighed
    by its share of the whole batch's weight."""
    total = over(axis, jax.lax.psum, jnp.sum(batch['weight']))
    forward = functools.partial(microbatched, apply=apply, frozen=frozen, parts=1)

    def add_part(carry, part):
        def loss_of(params):
            loss, aux = batch_loss(forward, params, part, state, hyper, static)
            share = jnp.sum(part['weight']) / total
            return loss * share, ({k: v for k, v in aux.items() if k != 'state'}, share)
        (loss, (aux, share)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return jax.tree.map(jnp.add, carry, (loss, grads)), jax.tree.map(lambda x: x * share, aux)

    zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
    (loss, grads), aux = jax.lax.scan(add_part, zeros, jax.tree.map(lambda x: split(x, static.accumulate), batch))
    loss, grads, aux = over(axis, jax.lax.psum, (loss, grads, jax.tree.map(lambda x: x.sum(0), aux)))
    return (loss, aux | {'state': state.loss_state}), grads


def over(axis: str | None, collective, tree):
    """A collective over the devices of `axis`; the tree itself if there is no such axis."""
    return tree if axis is None else collective(tree, axis)


def split(x, parts: int):
    """`[B, ...]` to `[parts, B / parts, ...]`, strided, so that a batch split over devices stays so."""
    return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)


def join(x):
    """The inverse of `split`."""
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
