"""Heads on stored features by L-BFGS: the minimum of a convex loss, which no learning rate or number of steps decides.

Minimises, over all rows of a run at once, the weighted mean loss plus l2 / 2 times the sum of the squared weights (not
of intercepts). With a stopping rule (stopping.py) the strength l2 is the one of `PATH` whose minimum scores best on the
rows that are held out; without one it is `optimizer.l2`.
"""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax import data
from w2s_jax.runtime import multihost
from w2s_jax.train import optimizers
from w2s_jax.train.gradients import batch_loss
from w2s_jax.train.runs import History, Runs
from w2s_jax.train.trainer import Trainer

PATH = tuple(float(x) for x in np.geomspace(1e-5, 10, 13))  # strengths that a rule chooses from
ENOUGH, MOST = 1e-5, 1000  # stop at so small a gradient's norm, or after so many iterations


def fit(trainer: Trainer, runs: Runs) -> tuple:
    """(params with a leading run axis, History), as `Trainer.fit`; there are no steps in between, and no checkpoints.

    `History.loss` has one row, the losses at the minima; `scores` one for each strength that was tried, `steps` their
    numbers from 1 on, and nothing is watched.
    """
    static = trainer.static
    given = runs.hyper['optimizer']['l2']
    path = [np.full(given.shape, l2, np.float32) for l2 in PATH] if static.stops else [given]
    state, seeds = trainer.init(runs), len(runs.seeds)
    history = History(np.full((1, seeds), np.nan, np.float32), np.zeros((0, seeds, 0), np.int32),
                      np.arange(1, len(path) + 1, dtype=np.int32), np.full((len(path), seeds), np.nan, np.float32),
                      np.zeros((len(path), seeds, 0), np.int32))
    losses = []
    for at, l2 in enumerate(path):
        hyper = runs.hyper | {'optimizer': {'l2': l2}}
        params, loss = solver(trainer.model.apply, static)(state, runs.rows, columns(runs), hyper, runs.inputs)
        losses.append(multihost.fetch(loss))
        state = trainer.keep(runs, dataclasses.replace(state, params=params), history, at)
    best = np.nan_to_num(history.scores, nan=-np.inf).argmax(0)
    history.loss[0] = np.stack(losses)[best, np.arange(seeds)]
    return state.kept['params'] if static.stops else state.params, history


def columns(runs: Runs) -> dict[str, np.ndarray]:
    """`targets` `[R, n, K]` and `weight` `[R, n]` of all rows of the runs."""
    targets = data.distributions(runs.targets, runs.num_classes)
    return {'weight': np.ones(runs.rows.shape, np.float32), **runs.columns, 'targets': targets}


@functools.cache
def solver(apply, static):
    """The jitted solution of R runs, one after the other: (states, rows, columns, hypers, pool) -> parameters,
    losses."""
    def solve(state, rows, columns, hyper, pool):
        batch = {'inputs': jax.tree.map(lambda x: x[rows], pool), **columns}
        forward = functools.partial(_forward, apply)

        def penalised(params):
            loss, _ = batch_loss(forward, params, batch, state, hyper, static)
            squares = jax.tree.map(lambda x, decays: decays * jnp.sum(x * x), params, optimizers.decays(params))
            return loss + hyper['optimizer']['l2'] / 2 * optax.tree.sum(squares)
        params = minimum(penalised, state.params)
        return params, batch_loss(forward, params, batch, state, hyper, static)[0]

    return jax.jit(lambda states, rows, columns, hypers, pool: jax.lax.map(
        lambda x: solve(x[0], x[1], x[2], x[3], pool), (states, rows, columns, hypers)))


def _forward(apply, params, inputs):
    return apply(params, inputs, None)


def minimum(value, params):
    """The parameters that minimise a smooth convex function of them (`optax.lbfgs`), from `params` on."""
    method, look = optax.lbfgs(memory_size=20), optax.value_and_grad_from_state(value)

    def step(carry):
        params, state, count, _ = carry
        loss, gradient = look(params, state=state)
        updates, state = method.update(gradient, state, params, value=loss, grad=gradient, value_fn=value)
        return optax.apply_updates(params, updates), state, count + 1, optax.tree.norm(gradient)

    def on(carry):
        return (carry[2] < MOST) & (carry[3] > ENOUGH)

    return jax.lax.while_loop(on, step, (params, method.init(params), 0, jnp.float32(jnp.inf)))[0]
