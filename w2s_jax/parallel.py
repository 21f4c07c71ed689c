"""Where arrays live: one mesh of all devices, batches split over it, states copied to all of it."""
import functools

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from w2s_jax.errors import ConfigError

AXES = ('data', 'fsdp', 'tensor')


@functools.cache
def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over all devices; -1 takes the rest. Raises ConfigError where the sizes do not multiply up."""
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


def dealt(mesh: Mesh) -> NamedSharding:
    """The first axis, that of runs, dealt out over the devices."""
    return NamedSharding(mesh, PartitionSpec('data'))


def deals_runs(mesh: Mesh, runs: int, streams: int) -> bool:
    """Whether every device gets whole runs, so many as the others, with the streams of data that they read."""
    ways = mesh.shape['data']
    return ways == mesh.size > 1 and runs % ways == 0 and (streams == 1 or streams % ways == 0)


def place_rows(batch, mesh: Mesh):
    """As `place_batch` for one run, for arrays `[B, ...]`."""
    return jax.tree.map(lambda x: x[0], place_batch(jax.tree.map(lambda x: x[None], batch), mesh))


def place_batch(batch, mesh: Mesh, deals: bool = False):
    """Puts arrays `[R or U, B, ...]` on the mesh: where it deals runs (`deals_runs`) split by those, a single stream
    copied; else B split over the data axes where it divides, else copied."""
    ways = mesh.shape['data'] * mesh.shape['fsdp']

    def place(x):
        if deals:
            return jax.device_put(x, dealt(mesh) if len(x) > 1 else replicated(mesh))
        spec = PartitionSpec(None, ('data', 'fsdp')) if x.shape[1] % ways == 0 and ways > 1 else PartitionSpec()
        return jax.device_put(x, NamedSharding(mesh, spec))
    return jax.tree.map(place, batch)
