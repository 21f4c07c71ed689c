"""Gradients of a batch's loss: at once, in microbatches, across devices. Always those of one sum, divided once.

With `axis` (the name of a pmapped axis) a batch is one device's part of the whole; what comes back is the same on
every device: the loss and the gradients of the whole batch.
"""
import jax
import jax.numpy as jnp

from w2s_jax import losses


def whole_batch_loss(logits, batch, state, hyper, static):
    """The weighted mean loss over the batch, with (aux, loss_state). logits `[B, K]`."""
    per_example, aux, loss_state = losses.LOSSES[static.loss](
        logits, batch['targets'], progress=state.step / static.steps, hyper=hyper, state=state.loss_state)
    return losses.weighted_mean(per_example, batch['weight']), (aux, loss_state)


def gradients(state, batch, hyper, frozen, *, apply, static, axis: str | None = None):
    """(loss, (aux, loss_state)), gradients of the parameters in `state`.

    Args:
      batch: `inputs`, each `[B, ...]`, `targets` `[B, K]`, `weight` `[B]`.  apply: (params, inputs, frozen) -> logits.
      static: `train.Static`; its `accumulate` microbatches change memory and not results.
    """
    if static.accumulate == 1 and axis is None:
        return at_once(state, batch, hyper, frozen, apply, static)
    if getattr(losses.LOSSES[static.loss], 'per_example', False):
        return summed(state, batch, hyper, frozen, apply, static, axis)
    return pulled_back(state, batch, hyper, frozen, apply, static, axis)


def at_once(state, batch, hyper, frozen, apply, static):
    """One forward and one backward pass over the whole batch."""
    def objective(params):
        return whole_batch_loss(apply(params, batch['inputs'], frozen), batch, state, hyper, static)
    return jax.value_and_grad(objective, has_aux=True)(state.params)


def summed(state, batch, hyper, frozen, apply, static, axis):
    """For a loss that looks at one example at a time: the sum of what microbatches and devices find, each weighed by
    its share of the whole batch's weight."""
    total = over(axis, jax.lax.psum, jnp.sum(batch['weight']))

    def add_part(carry, part):
        def objective(params):
            loss, extra = whole_batch_loss(apply(params, part['inputs'], frozen), part, state, hyper, static)
            share = jnp.sum(part['weight']) / total
            return loss * share, (extra[0], share)
        (loss, (aux, share)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        return jax.tree.map(jnp.add, carry, (loss, grads)), jax.tree.map(lambda x: x * share, aux)

    zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
    (loss, grads), aux = jax.lax.scan(add_part, zeros, jax.tree.map(lambda x: split(x, static.accumulate), batch))
    loss, grads, aux = over(axis, jax.lax.psum, (loss, grads, jax.tree.map(lambda x: x.sum(0), aux)))
    return (loss, (aux, state.loss_state)), grads


def pulled_back(state, batch, hyper, frozen, apply, static, axis):
    """For any loss, also one that looks at the whole batch (a threshold does).

    The logits of all microbatches and devices come first, the loss is differentiated by them once, and each microbatch
    is pulled back from its own part of that cotangent, run again where there are several (as in GradCache, arXiv
    2101.06983).
    """
    parts = jax.tree.map(lambda x: split(x, static.accumulate), batch['inputs'])
    once = static.accumulate == 1
    if once:
        logits, pull = jax.vjp(lambda params: apply(params, batch['inputs'], frozen), state.params)
    else:
        logits = join(jax.lax.map(lambda inputs: apply(state.params, inputs, frozen), parts))
    everywhere = over(axis, jax.lax.all_gather, (logits, batch['targets'], batch['weight']), tiled=True)
    whole = dict(zip(('targets', 'weight'), everywhere[1:], strict=True))
    (loss, extra), cotangent = jax.value_and_grad(whole_batch_loss, has_aux=True)(
        everywhere[0], whole, state, hyper, static)
    if axis is not None:
        cotangent = jax.lax.dynamic_slice_in_dim(cotangent, jax.lax.axis_index(axis) * len(logits), len(logits))
    if once:
        return (loss, extra), over(axis, jax.lax.psum, pull(cotangent)[0])

    def add_pulled(total, part):
        inputs, own = part
        _, pull = jax.vjp(lambda params: apply(params, inputs, frozen), state.params)
        return jax.tree.map(jnp.add, total, pull(own)[0]), None

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    grads, _ = jax.lax.scan(add_pulled, zeros, (parts, split(cotangent, static.accumulate)))
    return (loss, extra), over(axis, jax.lax.psum, grads)


def over(axis: str | None, collective, tree, **options):
    """A collective over the devices of `axis`; the tree itself where there is no such axis."""
    return tree if axis is None else collective(tree, axis, **options)


def split(x, parts: int):
    """`[B, ...]` to `[parts, B / parts, ...]`, strided, so that a batch split over devices stays so."""
    return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)


def join(x):
    """The inverse of `split`."""
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
