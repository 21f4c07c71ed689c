"""Rounds of on-policy training on eight devices, whose rows are split, are those of one."""
import dataclasses

import jax
import numpy as np
import pytest
from rounds_test import early, folder, made  # noqa: F401  (folder is a fixture)

from w2s_jax.runtime import sharding


@pytest.mark.long
@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 2, 2)])
def test_a_round_is_the_same_on_eight_devices(folder, shape):  # noqa: F811
    """Up to the rounding of products, which a draw that is close may turn: one round, from the same texts."""
    one, state = made(folder, 'ppo', reward=early)
    alone = dataclasses.replace(one, mesh=jax.make_mesh((1, 1, 1), sharding.AXES, axis_types=(
        jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1]))
    both = dataclasses.replace(one, mesh=sharding.make_mesh(*shape))
    host = jax.tree.map(np.asarray, (state, one.weights))
    found = []
    for play in (alone, both):
        start, weights = jax.tree.map(lambda x: sharding.put(x, sharding.replicated(play.mesh)), host)  # noqa: B023
        end, metrics = dataclasses.replace(play, weights=weights)(start)
        found.append((jax.tree.map(np.asarray, end.params), {k: float(v) for k, v in metrics.items()}))
    (params, told), (others, said) = found
    for name, value in told.items():  # reward and length: the same texts
        np.testing.assert_allclose(said[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    first, own, split = (np.concatenate([x.ravel() for x in jax.tree.leaves(p)])
                         for p in (host[0].params, params, others))
    assert np.mean(np.abs(own - split) < 1e-3) > .99  # adamw takes a whole step where a gradient is but rounding
    assert np.mean(np.abs(own - first) > 5e-3) > .5
