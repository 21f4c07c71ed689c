"""Training over eight devices: the numbers of one."""
import dataclasses

import chex
import jax
import numpy as np
import pytest
from train_test import MODEL, STATIC, fit, runs, steps

from w2s_jax.errors import ConfigError
from w2s_jax.runtime import sharding
from w2s_jax.train import trainer as train


@pytest.mark.parametrize('loss', ['xent', 'confidence', 'product'])
@pytest.mark.parametrize('accumulate', [1, 2])
def test_eight_devices_give_the_numbers_of_one(loss, accumulate):
    static = dataclasses.replace(STATIC, objective=loss, accumulate=accumulate)
    assert jax.device_count() == 8
    mesh = sharding.make_mesh()

    def place(b):
        placed = sharding.place_batch(jax.tree.map(lambda x: x[None], b), mesh)
        assert len(placed['targets'].sharding.device_set) == 8 and not placed['targets'].sharding.is_fully_replicated
        return jax.tree.map(lambda x: x[0], placed)
    one, _ = steps(static)
    eight, _ = steps(static, place=place)
    chex.assert_trees_all_close(one.params, eight.params, atol=1e-5)


def test_mesh_sizes_that_do_not_fit_are_refused():
    for sizes in ((3, 1, 1), (-1, -1, 1), (4, 1, 1), (-1, 0, 1)):
        with pytest.raises(ConfigError, match='mesh'):
            sharding.make_mesh(*sizes)


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_runs_are_dealt_out_over_devices_and_train_as_they_would_alone(how):
    grid = runs(tuple(range(16)), rate=tuple(np.geomspace(1e-3, 1e-1, 16)))
    trainer = train.Trainer(MODEL, STATIC, sharding.make_mesh(), how)
    params, history = trainer.fit(grid)
    leaf = jax.tree.leaves(params)[0]
    assert {s.data.shape[0] for s in leaf.addressable_shards} == {2} and len(leaf.addressable_shards) == 8
    assert trainer.programs == 1
    for i in (0, 7, 15):
        alone = runs((i,), rate=(np.geomspace(1e-3, 1e-1, 16)[i],))
        alone = dataclasses.replace(alone, rows=grid.rows[[i]], targets=grid.targets[[i]])
        one, single = fit(STATIC, alone)
        np.testing.assert_allclose(history.loss[:, i], single.loss[:, 0], atol=1e-5)
        chex.assert_trees_all_close(train.one_run(params, i), train.one_run(one, 0), atol=1e-4)
