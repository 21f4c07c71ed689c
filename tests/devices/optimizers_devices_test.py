"""Optimisers on a mesh take the steps of one device, and their factored moments lie as their parameters."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hurry import hurried  # noqa: F401  (a fixture)
from meshes import one_device
from optimizers_test import hyper, init, steps

from w2s_jax.runtime import sharding
from w2s_jax.train import step as stepping

LAYOUTS = [(1, 8, 1), (2, 2, 2)]


@pytest.mark.parametrize('sizes', LAYOUTS, ids=str)
@pytest.mark.parametrize('name', ['adafactor'])
def test_five_steps_are_the_same_on_a_mesh(name, sizes):
    sharding.sharding.cache_clear()
    want, losses = steps(name, one_device())
    found, again = steps(name, sharding.make_mesh(*sizes))
    chex.assert_trees_all_close(jax.device_get(found.params), jax.device_get(want.params), atol=2e-5)
    np.testing.assert_allclose(again, losses, atol=1e-5)


@pytest.mark.parametrize('sizes', LAYOUTS, ids=str)
def test_factored_moments_lie_as_their_parameters(sizes):
    sharding.sharding.cache_clear()
    mesh = sharding.make_mesh(*sizes)
    state = jax.eval_shape(lambda: steps_state('adafactor'))
    places = dict(zip(*map(paths, (state, sharding.shardings(mesh, state))), strict=True))
    shapes, seen = dict(shapes_by_path(state)), 0
    for path, place in places.items():
        place.shard_shape(shapes[path])  # raises where a split does not divide
        for kind, gone in (('v_row', -1), ('v_col', -2)):
            if f'/{kind}/' not in path or shapes[path] == (1, 1):
                continue
            parameter = path.partition(f'/{kind}/')[2]
            full = shapes[f'params/{parameter}']
            lost = 1 + np.argsort(full[1:])[gone]
            assert shapes[path] == full[:lost] + full[lost + 1:]
            spec = list(places[f'params/{parameter}'].spec) + [None] * len(full)
            assert tuple(place.spec) == tuple(s for i, s in enumerate(spec[:len(full)]) if i != lost)
            seen += 1
    assert seen == 10  # rows and columns of the five matrices; the head and the vectors are too narrow
    split = [p for p in places if '/v_col/' in p and not places[p].is_fully_replicated]
    assert split


def steps_state(name):
    static = stepping.Static('xent', 100, 32, 2, optimizer=name)
    return jax.vmap(lambda h, s: stepping.init_state(h, s, None, init=init, static=static))(
        hyper([1e-3]), jnp.zeros(1, jnp.uint32))


def shapes_by_path(tree):
    return [(jax.tree_util.keystr(p, simple=True, separator='/'), tuple(x.shape))
            for p, x in jax.tree_util.tree_leaves_with_path(tree)]


def paths(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(p, simple=True, separator='/') if hasattr(x, 'dtype') else x for p, x in leaves]
