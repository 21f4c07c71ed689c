"""Our side of `experiments.benchmark`: the very steps of `Trainer.fit` and `Trainer.predict`, one at a time.

A spec says: model (as `subjects.materialised` names it), dtype, rate, warmup, steps (of the whole training),
accumulate, and maybe devices (so many of the first, 0: all) and mesh (the axis that they lie on, 'data' or 'fsdp').
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from experiments.benchmark import machine, subjects
from w2s_jax.runtime import sharding
from w2s_jax.train import step as steps
from w2s_jax.train import trainer as train
from w2s_jax.train.runs import Runs


class Loop(NamedTuple):
    """step: number -> something small, maybe still to be computed.  about: () -> what is known of the process."""
    step: Callable[[int], Any]
    about: Callable[[], dict]


class Setting(NamedTuple):
    """What a loop starts from."""
    trainer: train.Trainer
    runs: Runs
    batch: int


def mesh_of(spec: dict) -> Mesh:
    """A mesh over all devices, or over the first `devices`, all of them on the axis `mesh`."""
    if not spec.get('devices'):
        return sharding.make_mesh()
    first = np.array(jax.devices()[:spec['devices']])
    sizes = [len(first) if axis == spec['mesh'] else 1 for axis in sharding.AXES]
    return Mesh(first.reshape(sizes), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def setting(spec: dict, arrays) -> Setting:
    """One run of seed 0, fully fine-tuned by AdamW on cross-entropy."""
    classes, batch = subjects.classes(spec['model']), arrays['order'].shape[1]
    hyper = steps.hyper(*(np.array([x], np.float32) for x in (spec['rate'], 0, .999, 1, spec['warmup'])))
    inputs = {k: arrays[k][:, None] for k in ('tokens', 'length') if k in arrays}
    runs = Runs(inputs, np.arange(len(arrays['tokens']))[None], arrays['truth'][None], np.zeros(1, np.int64),
                hyper, {}, 0, classes)
    model = subjects.bound(spec['model'], subjects.parts(spec['model'], spec['dtype']))
    static = steps.Static('xent', spec['steps'], batch, classes, spec['accumulate'])
    shapes = (arrays['tokens'].shape[1],) if 'length' in inputs else ()
    return Setting(train.Trainer(model, static, mesh_of(spec), eval_batch_size=batch, shapes=shapes), runs, batch)


def with_head(params: dict, arrays, mesh: Mesh) -> dict:
    """Stacked parameters of one run with the head of `arrays`, where these have one: both sides start from it."""
    if 'head' not in arrays:
        return params
    head = jax.tree.map(lambda x: np.asarray(arrays['head'])[None], params['head'])
    return params | {'head': jax.device_put(head, sharding.replicated(mesh))}


def stepper(spec: dict, arrays) -> Loop:
    """Training steps; each gives its loss `[1]`."""
    trainer, runs, batch = setting(spec, arrays)
    state = trainer.init(runs)
    state.params.update(with_head(state.params, arrays, trainer.mesh))
    held = on_first_device(state)

    def step(number: int):
        nonlocal state
        inputs, supervision = runs.batch(number, batch)
        placed = trainer.place(inputs), sharding.place_batch(supervision, trainer.mesh)
        state, metrics = trainer.step(state, *placed, runs.hyper, trainer.frozen)
        return metrics['loss']
    return Loop(step, lambda: machine.memory_peak() | {'state_bytes': held})


def on_first_device(tree) -> int:
    """Bytes of a tree's arrays on the first device."""
    parts = [s.data for x in jax.tree.leaves(tree) for s in x.addressable_shards if s.device == jax.devices()[0]]
    return sum(x.size * x.dtype.itemsize for x in parts)


def stacked_params(trainer: train.Trainer, arrays) -> dict:
    """The parameters of one run, without an optimiser's."""
    params = jax.jit(trainer.model.init)(jax.random.key(0), trainer.model.load(trainer.shardings))
    return with_head(jax.tree.map(lambda x: x[None], params), arrays, trainer.mesh)


def labeller(spec: dict, arrays) -> Loop:
    """Batches of predictions, the same rows as a training step's; each gives probabilities `[1, B, K]`."""
    trainer, runs, batch = setting(spec, arrays)
    params = stacked_params(trainer, arrays)

    def step(number: int):
        return trainer.forward(params, trainer.place(runs.batch(number, batch)[0]), trainer.frozen)
    return Loop(step, machine.memory_peak)


def predictor(spec: dict, arrays) -> Loop:
    """`Trainer.predict` of all rows, as the labelling phase calls it; gives probabilities `[1, N, K]` on the host."""
    trainer, runs, _ = setting(spec, arrays)
    params = stacked_params(trainer, arrays)
    return Loop(lambda number: trainer.predict(params, runs.inputs), machine.memory_peak)


def products(spec: dict) -> Callable[[int], Any]:
    """Square matrix products, of the `size` and in the `dtype` of a spec; each step gives their operations a second."""
    return lambda number: machine.matmul_rate(spec['dtype'], spec['size'])
