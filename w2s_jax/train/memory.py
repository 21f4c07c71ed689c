"""How many runs fit into one program: what a run keeps, by abstract evaluation, against what the devices have."""
import os

import jax

from w2s_jax.models.modes import Model
from w2s_jax.train import step as steps

SHARE = 0.6  # of the memory that is there; the rest is for what the estimate does not see
PLACES = 12  # as many activations as a CPU held, in whole, where a step was dispatched while one was computed


def run_bytes(model: Model, static: steps.Static, hyper: dict, inputs) -> tuple[int, int]:
    """(state, activations) of one run, in bytes: parameters, optimiser and gradients; and what the forward pass of a
    microbatch keeps for the backward pass.

    Args:
      hyper: any traced numbers.  inputs: shapes of a batch, each `[B, ...]`.
    """
    def residuals(params, inputs, frozen):
        return jax.vjp(lambda p: model.apply(p, inputs, frozen), params)[1]

    def kept(rows: int) -> int:
        part = {k: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for k, x in inputs.items()}
        return nbytes(jax.eval_shape(residuals, network, part, model.frozen_shapes))

    network = jax.eval_shape(model.init, jax.random.key(0))
    state = jax.eval_shape(lambda h: steps.init_state(h, 0, None, init=model.init, static=static), hyper)
    rows = len(next(iter(inputs.values()))) // static.accumulate
    networks = max(1, round(nbytes(state.params) / nbytes(network)))  # an objective may have several
    # Residuals hold some of the parameters, too; those do not grow with the rows.
    return nbytes(state) + nbytes(state.params), networks * (kept(2 * rows) - kept(rows))


def nbytes(tree) -> int:
    """Bytes of a tree of arrays or shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def budget(gigabytes: float | None) -> float:
    """Bytes for runs on all devices of the mesh together: as said, else SHARE of what they have."""
    if gigabytes is not None:
        return gigabytes * 1e9
    if jax.default_backend() == 'cpu':  # simulated devices share what there is
        return SHARE * os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return SHARE * jax.device_count() * min((d.memory_stats() or {}).get('bytes_limit', 16e9)
                                            for d in jax.local_devices())


def room(state: int, activations: int, side_by_side: bool, size: float) -> int:
    """How many runs of so many bytes fit into `size`: side by side each has its own activations, in turn they share."""
    if side_by_side:
        return max(int(size // (state + activations)), 1)
    return max(int((size - activations) // state), 1)


def ahead(state: int, activations: int, size: float) -> int:
    """How many steps to dispatch while one is computed: 1, and on a CPU 0 where memory is short. All in bytes.

    There a step takes its temporary memory when it is dispatched. malloc then finds that of two steps a third place and
    a fourth (MiniLM-L6, batch 32: 3.6 to 7.2 GB, against 2.2 to 2.4 for a hundredth of the time).
    """
    return 0 if jax.default_backend() == 'cpu' and state + PLACES * activations > size else 1
