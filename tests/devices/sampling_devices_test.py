"""Texts drawn on eight devices are those of one."""
import jax
import numpy as np
import pytest
from generate_test import GOLDENS, WARM, keys, prompts, same

from w2s_jax import sampling
from w2s_jax.runtime import sharding

GOLDEN = 'mistral'


@pytest.mark.long
@pytest.mark.parametrize('sizes', [(8, 1, 1), (2, 2, 2)], ids=str)
def test_texts_do_not_depend_on_the_devices(monkeypatch, sizes):
    monkeypatch.setattr(sharding, 'SMALL', 1)  # so that weights are split, too
    mesh, (tokens, length) = sharding.make_mesh(*sizes), prompts()
    tokens, length = np.tile(tokens, (2, 1)), np.tile(length, 2)
    generate, params = sampling.opened(GOLDENS / GOLDEN)
    alone = generate(params, tokens, length, keys(8), steps=6, pick=WARM)
    shared, _ = sampling.opened(GOLDENS / GOLDEN, mesh=mesh)
    placed = jax.device_put(params, sharding.shardings(mesh, params))
    found = shared(placed, tokens, length, keys(8), steps=6, pick=WARM)
    assert len(found.tokens.sharding.device_set) == 8
    same(found, alone)
