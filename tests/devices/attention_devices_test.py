"""The fused ways to compute attention on a mesh."""
import dataclasses
import functools

import jax
import numpy as np
import pytest
from attention_test import BASE, HALF, a_gpu, loss, splash  # noqa: F401  (fixtures)
from hurry import hurried  # noqa: F401  (a fixture)

from w2s_jax.models import attention
from w2s_jax.models.transformer import Transformer
from w2s_jax.runtime import sharding


@pytest.mark.parametrize('sizes', [(2, 1, 4), (1, 4, 2)], ids=str)
def test_on_a_mesh_each_device_runs_the_kernel_on_its_part(splash, sizes):  # noqa: F811
    """With tensor=4 two groups of keys do not divide, and are repeated."""
    mesh, module = sharding.make_mesh(*sizes), Transformer(splash)
    tokens, length = np.random.default_rng(0).integers(0, 19, (8, 24)).astype(np.int32), np.arange(8, 24, 2)
    params = module.init(jax.random.key(0), tokens, length)
    alone = jax.jit(jax.grad(functools.partial(loss, module)))(params, tokens, length)
    step = jax.jit(sharding.traced_on(mesh, jax.grad(functools.partial(loss, module))))
    placed = sharding.place_rows({'tokens': tokens, 'length': length}, mesh)
    lowered = step.lower(params, placed['tokens'], placed['length'])
    assert 'sdy.manual_computation' in lowered.as_text() or 'shmap_body' in lowered.as_text()
    found = step(params, placed['tokens'], placed['length'])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, alone)


def test_auto_takes_what_there_is(a_gpu, monkeypatch):  # noqa: F811
    half = dataclasses.replace(BASE, **HALF)
    assert attention.choose(half, 64) == 'xla'  # eight devices, and no word of which does what
    with sharding.on(sharding.make_mesh()):
        assert attention.choose(half, 64) == 'cudnn'
        assert attention.choose(BASE, 64) == 'xla'
        monkeypatch.setattr(attention, '_capability', lambda: ())
        assert attention.choose(half, 4096) == 'xla'
        monkeypatch.setattr(attention.jax, 'default_backend', lambda: 'tpu')
        assert attention.choose(half, 4096) == 'splash' and attention.choose(half, 64) == 'xla'
