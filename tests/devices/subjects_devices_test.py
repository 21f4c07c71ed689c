"""Our side of the benchmarks on several devices."""
import jax
import numpy as np
from subjects_test import SPEC, folder  # noqa: F401  (a fixture)

from experiments.benchmark import jax_loop, subjects


def test_the_stepper_uses_the_first_devices(folder):  # noqa: F811
    arrays = subjects.arrays(str(folder), subjects.parts(str(folder), 'float32'), 8, 16)

    def losses(devices, axis):
        spec = SPEC | {'model': str(folder), 'devices': devices, 'mesh': axis}
        mesh = jax_loop.mesh_of(spec)
        assert mesh.shape[axis] == mesh.size == devices and list(mesh.devices.ravel()) == jax.devices()[:devices]
        step = jax_loop.stepper(spec, arrays).step
        return [float(step(i)[0]) for i in range(3)]
    alone = losses(1, 'data')
    for axis in ('data', 'fsdp'):
        np.testing.assert_allclose(losses(2, axis), alone, rtol=1e-4)
