"""What models learn of their own inputs: the same in microbatches, on eight devices, and by pmap."""
import functools
import json

import chex
import jax
import numpy as np
import pytest
import tiny
from meshes import one_device
from words import own, sentences

from w2s_jax import config as configs
from w2s_jax import objectives
from w2s_jax.engine import plan
from w2s_jax.runtime import sharding
from w2s_jax.train import program
from w2s_jax.train import step as stepping

B, RUNS, LONGEST = 16, 2, 12
NUMBERS = {'share': .2, 'noise': .5}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('generative')
    tiny.folder(folder / 'tiny')
    (folder / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(80))))
    return folder


@functools.cache
def model(name, folder):
    """The student's, of a config, as it learns its inputs."""
    if name == 'next_token':
        c = own(folder / 'tiny', folder / 'rows.jsonl')
    else:
        c = configs.default_config()
        c.task.name, c.teacher.model, c.student.model = {
            'hidden_squares': ('chess', 'chess-xs', 'chess-xs'),
            'denoising': ('salient_concept', 'mlp-4', 'bottleneck-8')}[name]
    made = plan.prepare(plan.ready(c), lambda *a: None)
    return made.models['student'].generative(), made.dataset.pool.inputs


def batch(name, pool, seed):
    """Texts of other lengths and padding, so that a mean over tokens of a part is another number."""
    rng = np.random.default_rng(seed)
    columns = {'targets': np.full((RUNS, B, 2), .5, np.float32),
               'weight': rng.uniform(.1, 3, (RUNS, B)).astype(np.float32),
               'row': np.stack([rng.permutation(B) for _ in range(RUNS)]).astype(np.int32)}
    if name == 'next_token':
        inputs = {'tokens': rng.integers(1, len(tiny.CHARACTERS), (RUNS, B, 1, LONGEST)).astype(np.int32),
                  'length': rng.integers(2, LONGEST + 1, (RUNS, B, 1)).astype(np.int32)}
    else:
        rows = rng.integers(0, 400, (RUNS, B))
        inputs = {k: np.asarray(v[rows.reshape(-1)]).reshape(RUNS, B, *v.shape[1:]) for k, v in pool.items()}
    return inputs, columns


def steps(name, folder, mesh, driver='jit', accumulate=1):
    """Parameters and what is logged after three steps."""
    made, pool = model(name, folder)
    static = stepping.Static(objectives.bind(name), 10, B, 2, accumulate, columns=(('row', ()),), rows=B)
    traced = [k for k, s in objectives.OBJECTIVES[name].settings.items() if s.traced]
    hyper = jax.tree.map(functools.partial(np.full, RUNS, dtype=np.float32),
                         stepping.hyper(1e-2, 0., .999, 1., 0., **{k: NUMBERS[k] for k in traced}))
    start = made.load(None)
    states = program.compiled_init(made.init, static, mesh)(hyper, np.arange(RUNS, dtype=np.uint32), start, None, RUNS)
    step = (program.pmapped_step if driver == 'pmap' else program.compiled_step)(made.apply, static, 'vmap', mesh)
    metrics = None
    for i in range(3):
        both = batch(name, pool, i)
        placed = sharding.deal_batch(both, 8) if driver == 'pmap' else sharding.place_batch(both, mesh)
        states, metrics = step(states, *placed, hyper, made.frozen(None))
    return jax.device_get((states.params, metrics))


@functools.cache
def expected(name, folder):
    return steps(name, folder, one_device())


@pytest.mark.long
@pytest.mark.parametrize('layout', ['accumulate 4', 'data 8', 'pmap 8, accumulate 2'])
@pytest.mark.parametrize('name', ['next_token', 'hidden_squares', 'denoising'])
def test_three_steps_are_the_same_on_every_layout(layout, name, folder):
    mesh = sharding.make_mesh() if '8' in layout else one_device()
    accumulate = int(layout.split()[-1]) if 'accumulate' in layout else 1
    got = steps(name, folder, mesh, 'pmap' if 'pmap' in layout else 'jit', accumulate)
    want = expected(name, folder)
    chex.assert_trees_all_close(got, want, atol=5e-5)
    start = model(name, folder)[0].init(jax.random.key(0), model(name, folder)[0].load(None))
    moved = jax.tree.map(lambda a, b: float(np.abs(a[0] - b).max()), want[0], jax.device_get(start))
    assert max(jax.tree.leaves(moved)) > 1e-3
