"""Where arrays live: one mesh of all devices, batches split over `data` and `fsdp`, the state over `fsdp` and `tensor`.

RULES say which axes of the mesh the last dimensions of a leaf are split over, by its path in the TrainState (the
optimiser's moments have the paths of their parameters in them). The first rule that matches counts. A dimension that
the mesh does not divide, and a leaf below SMALL, stay whole on every device, and that is logged.
"""
import functools
import logging
import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from w2s_jax.errors import ConfigError

AXES = ('data', 'fsdp', 'tensor')
SMALL = 2 ** 14  # numbers in a leaf (of one run and layer) that is not worth splitting
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r'attention/(query|key|value)/kernel$', ('fsdp', 'tensor', None)),  # [D, H, C]: heads apart
    (r'attention/(query|key|value)/bias$', ('tensor', None)),
    (r'attention/out/kernel$', ('tensor', None, 'fsdp')),  # [H, C, D]
    (r'mlp/(gate|up)/kernel$', ('fsdp', 'tensor')),  # [D, F]
    (r'mlp/(gate|up)/bias$', ('tensor',)),
    (r'mlp/down/kernel$', ('tensor', 'fsdp')),  # [F, D]
    (r'(tokens|lm_head)/(embedding|kernel)$|head/table$', ('tensor', 'fsdp')),  # [V, D]
    (r'positions/embedding$', (None, 'fsdp')),
    (r'adapters/.*/a$', ('fsdp', None)),
    (r'adapters/.*/b$', (None, 'tensor')),
    (r'kernel$', ('fsdp', 'tensor')),
)
log = logging.getLogger(__name__)


@functools.cache
def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over all devices; -1 takes the rest. Raises ConfigError if the sizes do not multiply up."""
    sizes, devices = [data, fsdp, tensor], jax.device_count()
    known = int(np.prod([s for s in sizes if s != -1]))
    if sizes.count(-1) > 1 or known < 1 or devices % known or (-1 not in sizes and known != devices):
        raise ConfigError(f'mesh: data={data}, fsdp={fsdp}, tensor={tensor} does not fit {devices} devices '
                          '(at most one of them -1, the others dividing the number of devices)')
    # Explicit axes, the default, do not work with Flax Linen's embedding.
    return jax.make_mesh([devices // known if s == -1 else s for s in sizes], AXES, axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


@functools.cache
def sharding(mesh: Mesh, path: str, shape: tuple[int, ...]) -> NamedSharding:
    """Where a leaf of a TrainState, or of parameters, lives: by RULES, whatever axes (runs, layers) lead its shape."""
    axes = next((axes for pattern, axes in RULES if re.search(pattern, path)), ())
    split = [mesh.shape[a] if a else 1 for a in axes]
    last = shape[len(shape) - len(axes):]
    if len(last) < len(axes) or int(np.prod(last)) < SMALL or not any(s > 1 for s in split):
        return replicated(mesh)
    fits = [a if a and size % ways == 0 else None for a, ways, size in zip(axes, split, last, strict=True)]
    if odd := [f'{size} over {a}={ways}' for a, f, ways, size in zip(axes, fits, split, last, strict=True)
               if ways > 1 and not f]:
        log.warning('%s %s: %s does not divide, kept whole', path, shape, ', '.join(odd))
    return NamedSharding(mesh, PartitionSpec(*(None,) * (len(shape) - len(axes)), *fits))


def shardings(mesh: Mesh, tree):
    """`sharding` of every leaf of a tree of arrays or shapes; of a factored moment, that of its parameter, as far as
    it has the dimensions."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    shapes = {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(x.shape) for path, x in leaves}
    whole = {path.partition('params/')[2]: path for path in shapes if 'params/' in path}
    return jax.tree.unflatten(structure, [_placed(mesh, path, shape, shapes, whole) for path, shape in shapes.items()])


def _placed(mesh: Mesh, path: str, shape: tuple, shapes: dict, whole: dict) -> NamedSharding:
    factor = re.search(r'(v_row|v_col)/(.*)', path)
    if not factor:
        return sharding(mesh, path, shape)
    # optax sums rows over the largest dimension of the parameter, columns over the next; the axis of runs comes first.
    parameter, order = whole.get(factor[2], ''), {'v_row': -1, 'v_col': -2}[factor[1]]
    full = shapes.get(parameter, ())
    gone = 1 + int(np.argsort(full[1:])[order]) if len(full) == len(shape) + 1 else 0
    if not gone or full[:gone] + full[gone + 1:] != shape:
        return replicated(mesh)  # a parameter whose moment is not factored has a placeholder here
    spec = [*sharding(mesh, parameter, full).spec, *(None,) * len(full)][:len(full)]
    return NamedSharding(mesh, PartitionSpec(*spec[:gone], *spec[gone + 1:]))


def constrain(mesh: Mesh, tree):
    """A traced tree, kept where `shardings` says."""
    return jax.lax.with_sharding_constraint(tree, shardings(mesh, tree))


def on(mesh: Mesh):
    """While this is open, what is traced is for this mesh: `split` and `per_device` look at it."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def traced_on(mesh: Mesh, fn):
    """`fn`, traced for a mesh."""
    def placed(*args):
        with on(mesh):
            return fn(*args)
    return placed


def known() -> bool:
    """Whether what is being traced knows which part of the work is a device's (`per_device`)."""
    return jax.device_count() == 1 or not jax.sharding.get_abstract_mesh().empty


def divides(axis: str, size: int) -> bool:
    """Whether the mesh that is being traced for splits `size` evenly over an axis."""
    mesh = _shared()
    return mesh is None or size % mesh.shape[axis] == 0


def split(x, *axes: str | None):
    """An activation, kept split over the mesh that is being traced for; itself if each device works alone.

    Left alone, XLA may rather split what a product sums over, as the weights are, and give every device all rows.

    Args:
      axes: of the first dimensions: 'batch' (over `data` and `fsdp`), an axis of the mesh, or None; the others are
        left to XLA.
    """
    mesh = _shared()
    if mesh is None:
        return x
    free = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - len(axes))
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*_spec(mesh, axes, x.shape), *free))


def per_device(fn, into: tuple, out: tuple):
    """`fn` on each device's part of its arguments, for kernels that know of no mesh. into: axes as in `split`, those
    of each argument; out: those of the result, of the shape of the first argument."""
    def parts(*args):
        mesh = _shared()
        if mesh is None:
            return fn(*args)
        specs = tuple(_spec(mesh, axes, x.shape) for axes, x in zip(into, args, strict=True))
        return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=_spec(mesh, out, args[0].shape),
                             check_vma=False)(*args)
    return parts


def _shared():
    """The mesh that is being traced for, if its devices share the work on an array; None if each works alone."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if mesh.axis_names == AXES and mesh.size > 1 and set(mesh.axis_types) == {AxisType.Auto} else None


def _spec(mesh, axes: tuple, shape: tuple[int, ...]) -> PartitionSpec:
    named = [('data', 'fsdp') if a == 'batch' else a for a in axes]
    ways = [mesh.shape['data'] * mesh.shape['fsdp'] if a == 'batch' else mesh.shape[a] if a else 1 for a in axes]
    return PartitionSpec(*(n if size % w == 0 else None for n, w, size in zip(named, ways, shape, strict=False)))


def dealt(mesh: Mesh) -> NamedSharding:
    """The first axis, that of runs, dealt out over the devices."""
    return NamedSharding(mesh, PartitionSpec('data'))


def deals_runs(mesh: Mesh, runs: int, streams: int) -> bool:
    """Whether every device gets whole runs, so many as the others, with the streams of data that they read."""
    ways = mesh.shape['data']
    return ways == mesh.size > 1 and runs % ways == 0 and (streams == 1 or streams % ways == 0)


def put(x, place: NamedSharding) -> jax.Array:
    """An array of this host on devices, also those of other hosts, each of which has the same array and gives its own
    devices their part."""
    if place.is_fully_addressable:
        return jax.device_put(x, place)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, place, lambda index: x[index])


def put_tree(tree, mesh: Mesh):
    """Arrays of this host, parameters by their names, on devices where `shardings` says."""
    return jax.tree.map(put, tree, shardings(mesh, tree))


def place_rows(batch, mesh: Mesh):
    """As `place_batch` for one run, for arrays `[B, ...]`."""
    return jax.tree.map(lambda x: x[0], place_batch(jax.tree.map(lambda x: x[None], batch), mesh))


def place_batch(batch, mesh: Mesh, deals: bool = False):
    """Puts arrays `[R or U, B, ...]` on the mesh: if it deals runs (`deals_runs`) split by those, a single stream
    copied; else B split over the data axes if it divides, else copied."""
    ways = mesh.shape['data'] * mesh.shape['fsdp']

    def place(x):
        if deals:
            return put(x, dealt(mesh) if len(x) > 1 else replicated(mesh))
        spec = PartitionSpec(None, ('data', 'fsdp')) if x.shape[1] % ways == 0 and ways > 1 else PartitionSpec()
        return put(x, NamedSharding(mesh, spec))
    return jax.tree.map(place, batch)


def deal_batch(batch, devices: int):
    """Arrays `[R or U, B, ...]` as `[D, R or U, B / D, ...]`, for pmap. Raises ConfigError if that is no number."""
    def deal(x):
        if x.shape[1] % devices:
            raise ConfigError(f'train.batch_size: {x.shape[1]}, expected a multiple of the {devices} devices of this '
                              'host (train.driver pmap)')
        return np.swapaxes(x.reshape(len(x), devices, -1, *x.shape[2:]), 0, 1)
    return jax.tree.map(deal, batch)
