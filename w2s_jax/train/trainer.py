"""The loop around the pure functions of step.py: batches in, steps dispatched, checkpoints, predictions."""
import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import numpy as np

from w2s_jax import data
from w2s_jax.errors import ConfigError, Preempted
from w2s_jax.runtime import multihost, preemption, sharding
from w2s_jax.train import prefetch
from w2s_jax.train.program import (
    Program,
    compiled_init,
    compiled_keep,
    compiled_predict,
    compiled_step,
    leading,
    pmapped_step,
)
from w2s_jax.train.runs import History, Runs
from w2s_jax.train.step import Static, TrainState

FREED = 1e-3  # seconds after its results in which a step on a CPU frees its temporary memory


def choose_how(how: str, num_params: int, side_by_side: bool = True) -> str:
    """`auto`: in turn where the runs do not fit side by side, and on a CPU for models above 100 thousand parameters,
    whose matrix products already fill it and batched ones run slower; side by side everywhere else."""
    if how != 'auto':
        return how
    full = jax.default_backend() == 'cpu' and num_params > 100_000
    return 'map' if full or not side_by_side else 'vmap'


class Trainer:
    """Binds a model, a program and a place. Everything it calls is a pure function above.

    shapes: the lengths that texts are padded to, each compiled for once; () where inputs are no texts.  driver: of the
    training step, jit or pmap.  ahead: how many steps are dispatched while one is computed, 0 or 1.
    """

    def __init__(self, model, static: Static, mesh, how: str = 'auto', eval_batch_size: int = 64,
                 shapes: tuple[int, ...] = (), driver: str = 'jit', ahead: int = 1):
        if driver == 'pmap' and multihost.count() > 1:
            raise ConfigError("train.driver: 'pmap' computes on the devices of one host, expected 'jit' on several")
        how = choose_how(how, model.num_params)
        self.model, self.static, self.mesh, self.shapes = model, static, mesh, shapes
        self.eval_batch_size, self.driver, self.ahead = eval_batch_size, driver, ahead
        make = pmapped_step if driver == 'pmap' else compiled_step
        apply = model.apply_for(static.steps * static.batch_size, shapes[-1] if shapes else 0)
        self.step, self.step_of_numbers = (make(apply, static, how, mesh, numbers) for numbers in (False, True))
        self.forward = compiled_predict(model.apply, how, mesh, static.objective)
        self.shardings = functools.partial(sharding.sharding, mesh)
        self.frozen = None if model.featurize else model.frozen(self.shardings)  # a probe's backbone has had its say
        self.compile_seconds, self.programs = 0.0, 0  # steps compiled, one a shape

    def init(self, runs: Runs) -> TrainState:
        """The stacked state of all runs before the first step."""
        make = compiled_init(self.model.init, self.static, self.mesh)
        return make(runs.hyper, np.asarray(runs.seeds, np.uint32), self.model.load(self.shardings), runs.start,
                    runs.streams)

    def put(self, params):
        """Parameters of this host, stacked over runs, on the devices."""
        return jax.tree.map(sharding.put, params, sharding.shardings(self.mesh, params))

    def place(self, inputs: data.Inputs, deals: bool = False):
        """Inputs `[U, B, ...]` on the devices (see `sharding.place_batch`), texts padded to one of the shapes."""
        return sharding.place_batch(data.trim(inputs, self.shapes), self.mesh, deals)

    def place_step(self, inputs: data.Inputs, supervision: dict, deals: bool):
        """A batch of a training step as its driver takes it."""
        if self.driver == 'pmap':
            return sharding.deal_batch((data.trim(inputs, self.shapes), supervision), jax.local_device_count())
        return self.place(inputs, deals), sharding.place_batch(supervision, self.mesh, deals)

    def at_hand(self, runs: Runs):
        """The step for these runs, and what it reads beside a batch. Cached features go to the devices once, and a
        batch is then the numbers of their rows: for heads, copying rows is most of the work."""
        if 'features' not in runs.inputs:
            return self.step, self.frozen
        pool = jax.tree.map(lambda x: sharding.put(x, sharding.replicated(self.mesh)), runs.inputs)
        return self.step_of_numbers, (pool, self.frozen)

    def predict(self, params, inputs: data.Inputs, rows: np.ndarray | None = None, reduce: Callable = lambda p: p):
        """Probabilities `[R, N, K]` of inputs `[N, ...]`; with `rows` `[R, n]`, of each run's own rows.

        reduce: a function of a batch's probabilities `[R, B, K]` to a tree of `[R, B, ...]`, so that what is
        not needed is not kept.
        """
        rows = np.arange(len(next(iter(inputs.values()))))[None] if rows is None else rows
        lengths = data.longest(inputs)
        order = np.argsort(np.zeros(rows.shape) if lengths is None else lengths[rows], axis=1, kind='stable')
        deals, whole = sharding.deals_runs(self.mesh, leading(params), len(rows)), None

        def place(batch):
            return self.place(data.take(inputs, np.take_along_axis(rows, order[:, batch[0]], axis=1)), deals)
        batches = data.eval_batches(rows.shape[1], min(self.eval_batch_size, rows.shape[1]))
        for (at, real), out in prefetch.late((batch, self.forward(params, placed, self.frozen))
                                         for batch, placed in prefetch.ahead(place, batches)):
            found = jax.tree.map(lambda x, real=real: x[:, :real], reduce(multihost.fetch(out)))
            if whole is None:
                whole = jax.tree.map(lambda x: np.empty((len(x), rows.shape[1], *x.shape[2:]), x.dtype), found)
            jax.tree.map(functools.partial(data.put, at=order[:, at[:real]]), whole, found)
        return whole

    def compiling(self, program: Program, *args):
        """What the program gives; where it has to be compiled for these shapes, that is counted and timed."""
        known, began = program.traces, time.perf_counter()
        out = program(*args)
        if program.traces > known:
            self.compile_seconds += time.perf_counter() - began
            self.programs += 1
        return out

    def wait(self, pending: list) -> None:
        """Lets no more than `ahead` of the steps be under way whose metrics these are, in order (`memory.ahead`)."""
        if len(pending) > self.ahead:
            jax.block_until_ready(pending[-1 - self.ahead])
        if not self.ahead:
            time.sleep(FREED)

    @preemption.at_steps()
    def fit(self, runs: Runs, checkpoint=None, checkpoint_every: int = 0, log: Callable = lambda *a, **k: None):
        """Trains all runs to the end, from the last checkpoint where there is one.

        Args:
          checkpoint: a `checkpoint.Checkpoint` or None.  log: called as log(step, steps, metrics).
        Returns: (params with a leading run axis, History). A run whose loss becomes NaN has diverged: it stays beside
        the others and does not affect them (`History.broken`); when all have, training stops. Raises Preempted,
        once all is saved, if the process is asked to stop.
        """
        state, history = self.init(runs), History.empty(self.static.steps, runs)
        if checkpoint is not None:
            state, saved, aux = checkpoint.restore(state, history.arrays())
            history = dataclasses.replace(history, **saved, aux=aux)
        pending: list[tuple[int, dict]] = []
        start, (program, frozen) = int(multihost.fetch(state.step)[0]), self.at_hand(runs)
        deals = self.driver == 'jit' and sharding.deals_runs(self.mesh, len(runs.seeds), runs.streams)
        rows = not self.static.bound.is_loss

        def make(step):
            batch = runs.batch(step, self.static.batch_size, program is not self.step, rows)
            return self.place_step(*batch, deals)
        for step, (inputs, columns) in prefetch.ahead(make, range(start, self.static.steps)):
            state, metrics = self.compiling(program, state, inputs, columns, runs.hyper, frozen)
            pending.append((step, metrics))
            self.wait([metrics for _, metrics in pending])
            done = step + 1
            if done in history.steps:
                state = self.look(runs, state, history, int(history.steps.searchsorted(done)))
            last, stop = done == self.static.steps, preemption.due()
            save = last or stop or (checkpoint_every and done % checkpoint_every == 0)
            if save or len(pending) >= 16:
                history.record(pending)
                log(done, self.static.steps, history.logged(metrics))
                pending = []
                if not np.isfinite(history.loss[step]).any():
                    break
            if save and checkpoint is not None:
                checkpoint.save(done, state, history.arrays(), history.aux)
            if stop:
                raise Preempted(f'after step {done} of {self.static.steps}')
        history.final.update(multihost.fetch(_named(state.loss_state)))
        return state.kept['params'] if self.static.stops else state.params, history

    def look(self, runs: Runs, state: TrainState, history: History, at: int) -> TrainState:
        """An evaluation on the way: what the models say of the watched rows, and, with a stopping rule, how they score
        on the held-out ones. Returns the states, with the parameters kept that score best so far."""
        history.watched[at] = self.predict(state.params, runs.watch).argmax(-1)
        return self.keep(runs, state, history, at)

    def keep(self, runs: Runs, state: TrainState, history: History, at: int) -> TrainState:
        """With a stopping rule, the states with the parameters kept that score best so far on the held-out rows."""
        held = runs.held
        if not self.static.stops:
            return state
        assert held is not None
        found = self.predict(state.params, runs.inputs, held.rows)
        history.scores[at] = held.scores(found, (history.answers[:at], history.scores[:at]))
        history.answers[at] = found.argmax(-1)[:, :history.answers.shape[-1]]
        return compiled_keep(self.mesh)(state, history.scores[at])


def _named(state) -> dict:
    """The leaves of a state by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path, simple=True, separator='/') or 'state': leaf for path, leaf in leaves}


def one_run(params, run: int):
    """The parameters of one run, on the host, out of those of a stack."""
    return multihost.fetch(jax.tree.map(lambda x: x[run], params))


def stack(params: list):
    """The parameters of several runs with a leading run axis."""
    return jax.tree.map(lambda *x: np.stack(x), *params)
