"""A model of seven billion parameters lowers and shards as planned: bytes and collectives of the compiled program."""
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import large_program
import numpy as np
import pytest

from w2s_jax.runtime import sharding

FULL = large_program.LLAMA_7B
SMALL = dataclasses.replace(FULL, vocab_size=1024, d_model=256, num_layers=4, num_heads=8, d_ff=768)
MESHES = {'fsdp': (1, 256, 1), 'fsdp and tensor': (1, 32, 8)}
WEIGHTS = {'attention/query', 'attention/key', 'attention/value', 'attention/out', 'mlp/gate', 'mlp/up', 'mlp/down'}


@pytest.fixture(scope='module', params=MESHES)
def large(request):
    """The report on the large model, from a process with 256 devices."""
    sizes = MESHES[request.param]
    done = subprocess.run(
        [sys.executable, large_program.__file__, '256', ','.join(map(str, sizes)), 'adamw'], capture_output=True,
        text=True, env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(pathlib.Path(__file__).parents[2])})
    assert done.returncode == 0, done.stderr
    assert 'rematerialization' not in done.stderr  # what XLA says where it gathers a tensor to split it otherwise
    return FULL, sizes, 256, large_program.LENGTH, json.loads(done.stdout)


@pytest.fixture(scope='module', params=[(1, 8, 1), (1, 4, 2), (2, 2, 2)], ids=str)
def small(request):
    """The same of a small model on the devices that are here."""
    sharding.sharding.cache_clear()
    with tempfile.TemporaryFile() as file, redirected(file):
        made = large_program.report(SMALL, sharding.make_mesh(*request.param), 'adamw', 64, 512)
        file.seek(0)
        assert b'rematerialization' not in file.read()
    return SMALL, request.param, 64, 512, made


@contextlib.contextmanager
def redirected(file):
    """What XLA says goes to a file."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def shapes_of(c):
    """The matrix `[in, out]` of each weight of a layer."""
    wide, keys = c.num_heads * c.per_head, c.kv_heads * c.per_head
    return {'attention/query': (c.d_model, wide), 'attention/key': (c.d_model, keys), 'mlp/up': (c.d_model, c.d_ff),
            'attention/value': (c.d_model, keys), 'mlp/gate': (c.d_model, c.d_ff), 'mlp/down': (c.d_ff, c.d_model),
            'attention/out': (wide, c.d_model)}


def on_a_device(c, tensor):
    """The same as a device has them at hand: split by `tensor` alone."""
    cut = {k: (0 if k in ('attention/out', 'mlp/down') else 1) for k in shapes_of(c)}
    return {k: tuple(n // tensor if i == cut[k] else n for i, n in enumerate(s)) for k, s in shapes_of(c).items()}


def state_is_split(config, sizes, rows, length, found):
    ways = sizes[1] * sizes[2]
    assert found['own'] - sum(found['whole'].values()) == (found['state'] - sum(found['whole'].values())) / ways
    assert sum(found['whole'].values()) < .02 * found['own'] or config is SMALL
    assert {k.rpartition('/')[2] for k in found['whole']} <= {'step', 'rng', 'count', 'scale', 'kernel', 'bias'}
    assert all('classes' in k for k in found['whole'] if k.endswith(('kernel', 'bias')))  # the head's alone
    assert 0 <= found['arguments'] - found['own'] < 1e5 and found['donated'] == found['own']  # and XLA agrees


def weights_are_gathered_layer_by_layer(config, sizes, rows, length, found):
    mine, seen = on_a_device(config, sizes[2]), set()
    for one in (x for x in found['collectives'] if x['kind'] == 'all-gather' and x['loop']):
        (_, shape), = one['shapes']
        name = next(k for k in WEIGHTS if k in one['origin'])
        assert sorted(n for n in shape if n > 1) == sorted(mine[name]), one
        seen.add((name, 'transpose(' in one['origin']))
    assert seen == {(name, backward) for name in WEIGHTS for backward in (False, True)}


def gradients_are_reduced_layer_by_layer(config, sizes, rows, length, found):
    mine = on_a_device(config, sizes[2])
    if sizes[0] > 1:  # a part of them each, after those that share the weights have added up theirs
        mine |= {f'{k}, a part': (s[0] // sizes[1], s[1]) for k, s in mine.items()}
        mine |= {f'{k}, another': (s[0], s[1] // sizes[1]) for k, s in mine.items()}
    reduced = [tuple(sorted(n for n in shape if n > 1)) for one in found['collectives'] if one['loop']
               and one['kind'] in ('all-reduce', 'reduce-scatter') for _, shape in one['shapes']]
    for name in WEIGHTS:
        assert reduced.count(tuple(sorted(mine[name]))) >= sum(set(mine[k]) == set(mine[name]) for k in WEIGHTS), name
    tokens, activations = rows // (sizes[0] * sizes[1]) * length, {tuple(sorted(s)) for s in mine.values()}
    for shape in set(reduced) - activations - {(config.d_model,), ()}:  # of activations: only what `tensor` has split
        assert sizes[2] > 1 and np.prod(shape) == tokens * config.d_model, shape


def nothing_is_gathered_whole(config, sizes, rows, length, found):
    """Outside the loop: no stack of layers, no table of tokens, no batch of hidden states."""
    for one in (x for x in found['collectives'] if not x['loop']):
        for _, shape in one['shapes']:
            assert config.num_layers not in shape[:2] or np.prod(shape) < config.num_layers * config.d_model * 2, one
            assert np.prod(shape) <= max(rows * length * config.d_model / sizes[1],
                                         config.vocab_size * config.d_model / sizes[1]), one


CHECKS = [state_is_split, weights_are_gathered_layer_by_layer, gradients_are_reduced_layer_by_layer,
          nothing_is_gathered_whole]


@pytest.mark.parametrize('check', CHECKS, ids=lambda f: f.__name__)
def test_a_small_model(check, small):
    check(*small)


@pytest.mark.parametrize('check', CHECKS, ids=lambda f: f.__name__)
def test_seven_billion_parameters_on_256_devices(check, large):
    check(*large)


def test_memory_of_seven_billion_parameters(large):
    """Four numbers where bfloat16 takes two: XLA computes it in float32 on a CPU."""
    config, sizes, rows, length, found = large
    tokens, tensor = rows * length // (sizes[0] * sizes[1]), sizes[2]
    layer = sum(np.prod(s) for s in shapes_of(config).values())
    kept = 4 * config.num_layers * tokens * config.d_model
    work = 4 * tokens * (12 * config.d_model + 5 * config.d_ff / tensor + 3 * length * config.num_heads / tensor)
    bound = kept + 8 * layer / tensor + work + 4 * found['params'] / (sizes[1] * tensor)
    print(sizes, 'bytes of state', found['own'], 'besides', found['temporary'], 'at most', int(bound))
    assert kept < found['temporary'] < 1.1 * bound


def test_without_constraints_on_activations_the_checks_fail(monkeypatch):
    """XLA then splits what products sum over, and every device works on all rows."""
    monkeypatch.setattr(sharding, 'split', lambda x, *axes: x)
    found = large_program.report(SMALL, sharding.make_mesh(1, 8, 1), 'adamw', 64, 512)
    for check in (weights_are_gathered_layer_by_layer, gradients_are_reduced_layer_by_layer):
        with pytest.raises((AssertionError, StopIteration)):
            check(SMALL, (1, 8, 1), 64, 512, found)
