"""Meshes for tests."""
import jax
import numpy as np

from w2s_jax.runtime import sharding


def one_device() -> jax.sharding.Mesh:
    """Of the first device alone, however many there are."""
    return jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES)
