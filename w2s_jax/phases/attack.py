"""Kinds `attack` and `inverse`: a trained model on inputs that were searched for around a row, against it or for it."""
import functools
import pathlib
import time
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import data, metrics
from w2s_jax.graph import Phase
from w2s_jax.objectives import Bound
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.train import attacks
from w2s_jax.train.adversarial import JITTER


def attack(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """What models answer at the strongest attack on each test row, found with its truth: `robust.top` ...; so a model
    is measured, and learns nothing of it."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, section = time.perf_counter(), phase.section
        static = {k: section['attack'][k] for k in ('steps', 'restarts')}
        run = compiled(attacked, _forward(section, context), **static)
        hyper = _sizes(section['attack'], section)
        found = _batches(run, needs, np.asarray(needs['truth'], np.int32), None, hyper, context)
        best = metrics.best(found[None])
        out.append(({'seconds': time.perf_counter() - began, 'examples': len(found)},
                    {f'robust.{k}': v[0] for k, v in best.items()}, None))
    return out


def inverse(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Probabilities `[n, K]` of a teacher at its inverse adversaries; `lowered`: of how many rows they made it surer of
    its own answer."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, section = time.perf_counter(), phase.section
        run = compiled(inverted, _forward(section, context), steps=section['inverse']['steps'])
        rows = common.rows(needs)
        found = _batches(run, needs, None, rows, _sizes(section['hyper'], section), context)
        before, labels = found[:, 0], found[:, 1]
        own = before.argmax(-1)[:, None]
        surer = np.take_along_axis(labels, own, 1) >= np.take_along_axis(before, own, 1)
        out.append(({'seconds': time.perf_counter() - began, 'lowered': float(surer.mean()), 'examples': len(rows)},
                    {'labels': labels}, None))
    return out


def attacked(forward: Callable, params, x, truth, rows, key, eps, step, *, steps: int, restarts: int):
    """`[B, K]`: probabilities at the strongest attack."""
    logits = functools.partial(forward, params)
    worst = attacks.strongest(logits, x, truth, rows, key, eps=eps, step=step, steps=steps, restarts=restarts)
    return jax.nn.softmax(logits(worst))


def inverted(forward: Callable, params, x, truth, rows, key, eps, step, *, steps: int):
    """`[B, 2, K]`: probabilities of the rows, and of where cross-entropy with the model's own answers is low."""
    logits = functools.partial(forward, params)
    clean = logits(x)
    own = clean.argmax(-1)
    start = x + JITTER * attacks.draws(key, rows, lambda k: jax.random.normal(k, x.shape[1:], x.dtype))
    found = attacks.pgd(lambda at: -attacks.wrongness(logits(at), own), x, start, eps=eps, step=step, steps=steps)
    return jax.nn.softmax(jnp.stack([clean, logits(found)], axis=1))


@functools.lru_cache(maxsize=32)
def compiled(fn: Callable, forward: Callable, **static) -> Callable:
    """The jitted function of arrays."""
    return jax.jit(functools.partial(fn, forward, **static))


def _forward(section: dict, context: Context) -> Callable:
    return forward_of(common.model_of(section, context.models).apply, common.bound(section))


@functools.lru_cache(maxsize=32)
def forward_of(apply: Callable, bound: Bound) -> Callable:
    """(params, features `[B, ...]`) -> logits `[B, K]`, as an objective predicts. One for the same arguments: programs
    are compiled for it."""
    def forward(params, x):
        return bound.objective.predict(apply, params, {'features': x}).astype(jnp.float32)
    return forward


def _sizes(given: dict, section: dict) -> tuple:
    """The key of a run, eps, and the length of a step."""
    eps = section['hyper']['eps']
    return jax.random.fold_in(jax.random.key(section['hyper']['seed']), 7), np.float32(eps), np.float32(
        eps * given['step'])


def _batches(run: Callable, needs: dict, truth, rows: np.ndarray | None, sizes: tuple, context: Context) -> np.ndarray:
    """`[n, ...]`: what a function of a batch gives for rows of the inputs, or all of them."""
    features, params = common.arrays(needs['inputs'])['features'], needs['model'].params()
    rows = np.arange(len(features)) if rows is None else rows
    truth = np.zeros(len(rows), np.int32) if truth is None else truth
    return np.concatenate(list(_found(run, params, features, rows, truth, sizes, context.execution.eval_batch_size)))


def _found(run, params, features, rows, truth, sizes, most: int) -> Iterable[np.ndarray]:
    for at, real in data.eval_batches(len(rows), min(most, len(rows))):
        yield np.asarray(run(params, features[rows[at]], truth[at], at, *sizes))[:real]
