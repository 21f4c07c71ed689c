"""Hugging Face folders that are read onto a mesh."""
import jax
import numpy as np
import pytest
from hf_test import GOLDENS, golden

from w2s_jax.models import hf


@pytest.mark.parametrize('name', ['gpt2', 'neox', 'llama'])
def test_parameters_land_in_their_sharding(name):
    mesh = jax.make_mesh((8,), ('fsdp',), axis_types=(jax.sharding.AxisType.Auto,))

    def place(path, shape):
        assert '/' in path
        last = [None] * (len(shape) - 1) + ['fsdp']
        first = ['fsdp'] + [None] * (len(shape) - 1)
        spec = first if shape[0] % 8 == 0 else last if shape[-1] % 8 == 0 else [None]
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    params = hf.load(GOLDENS / name, shardings=place)
    assert any(not p.sharding.is_fully_replicated for p in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, params, golden(name)[1])
