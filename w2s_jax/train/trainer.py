"""Training as pure functions: a state and a batch in, a state and metrics out; and the loop around them.

`apply(params, inputs, frozen) -> logits [B, K]` is all that is asked of a model; `frozen` is what it does not
train, shared by all runs. Runs that share their static part (`Static`) are stacked on a leading axis R and
trained in one program; what differs between them is `Hyper`, which is traced. Runs that also see the same rows
in the same order share their inputs, whose leading axis U is then shorter (R is U blocks of such runs).
"""
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax import data, losses
from w2s_jax.errors import ConfigError, Preempted
from w2s_jax.runtime import multihost, preemption, sharding
from w2s_jax.train import optimizers, prefetch
from w2s_jax.train.gradients import gradients
from w2s_jax.train.runs import History, Runs

FREED = 1e-3  # seconds after its results in which a step on a CPU frees its temporary memory


@flax.struct.dataclass
class Hyper:
    """The traced numbers of a run, each a scalar (or `[R]`, stacked)."""
    learning_rate: Any
    weight_decay: Any
    beta2: Any
    clip: Any
    warmup: Any  # fraction of training, of the learning rate
    alpha: Any
    alpha_warmup: Any  # fraction of training, of the loss


@dataclasses.dataclass(frozen=True)
class Static:
    """What a program is compiled for."""
    loss: str
    steps: int
    batch_size: int
    num_classes: int
    accumulate: int = 1  # microbatches a step
    optimizer: str = 'adamw'
    schedule: str = 'cosine'


@flax.struct.dataclass
class TrainState:
    """Everything a run remembers, one pytree. rng: the run's key; a step's key is fold_in(rng, step)."""
    step: Any
    params: Any
    opt_state: Any
    rng: Any
    loss_state: Any


def init_state(hyper: Hyper, seed, pretrained, *, init: Callable, static: Static) -> TrainState:
    """The state before the first step. `init(key, pretrained) -> params`; `seed` may be traced."""
    init_key, rng = jax.random.split(jax.random.key(seed))
    params = init(init_key, pretrained)
    tx = optimizers.build(static.optimizer, static.schedule, static.steps, hyper)
    loss_state = losses.init_state(losses.LOSSES[static.loss], static.num_classes)
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), rng, loss_state)


def train_step(state: TrainState, inputs, supervision, hyper: Hyper, frozen=None, *, apply: Callable, static: Static,
               axis: str | None = None):
    """One optimiser step on a batch.

    Args:
      supervision: `targets` `[B, K]`, rows summing to 1, and `weight` `[B]`.  axis: of a pmap over parts of the batch.
    Returns: the next state, and a dict of float32 scalars (loss, gradient norm, what the loss logs).
    """
    (loss, (aux, loss_state)), grads = gradients(state, {'inputs': inputs, **supervision}, hyper, frozen, apply=apply,
                                                 static=static, axis=axis)
    tx = optimizers.build(static.optimizer, static.schedule, static.steps, hyper)
    params, opt_state = optimizers.step(tx, grads, state.opt_state, state.params)
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads), **aux}
    return TrainState(state.step + 1, params, opt_state, state.rng, loss_state), metrics


def predict_step(params, inputs, frozen=None, *, apply: Callable):
    """Class probabilities `[B, K]` float32."""
    return jax.nn.softmax(apply(params, inputs, frozen).astype(jnp.float32), axis=-1)


def over_runs(fn: Callable, how: str) -> Callable:
    """`fn(own, inputs, *more, frozen)` over runs: side by side (`vmap`) or in turn (`map`).

    own and more have a leading axis R, inputs `[U, ...]` with R = U blocks of runs, frozen none.
    """
    def stacked(own, inputs, *rest):
        *more, frozen = rest
        runs, streams = leading(own), leading(inputs)
        blocks = jax.tree.map(lambda x: x.reshape(streams, runs // streams, *x.shape[1:]), (own, tuple(more)))

        def block(own, inputs, more):
            return each(lambda o, m: fn(o, inputs, *m, frozen))(own, more)

        out = each(block)(blocks[0], inputs, blocks[1])
        return jax.tree.map(lambda x: x.reshape(runs, *x.shape[2:]), out)

    def each(fn):
        return lambda *args: (jax.vmap if how == 'vmap' and leading(args) > 1 else in_turn)(fn)(*args)

    return stacked


def over_mesh(stacked: Callable, mesh) -> Callable:
    """`stacked` (see `over_runs`) on a mesh: where runs divide by the devices (`parallel.deals_runs`) each device has
    whole runs and talks to no other; else they share each batch, and the state lives by `parallel.RULES`."""
    def placed(own, inputs, *rest):
        if not sharding.deals_runs(mesh, leading(own), leading(inputs)):
            return sharding.constrain(mesh, sharding.traced_on(mesh, stacked)(own, inputs, *rest))
        dealt, whole = sharding.dealt(mesh).spec, sharding.replicated(mesh).spec
        specs = (dealt, whole if leading(inputs) == 1 else dealt, *(dealt for _ in rest[:-1]), whole)
        return jax.shard_map(stacked, mesh=mesh, in_specs=specs, out_specs=dealt, check_vma=False)(own, inputs, *rest)
    return placed


def leading(tree) -> int:
    """The size of the first axis of a tree's arrays."""
    return len(jax.tree.leaves(tree)[0])


def in_turn(fn: Callable) -> Callable:
    """`fn` over the leading axis of its arguments, one after the other; a loop of one would copy the state."""
    def mapped(*args):
        if leading(args) > 1:
            return jax.lax.map(lambda a: fn(*a), args)
        return jax.tree.map(lambda x: x[None], fn(*jax.tree.map(lambda x: x[0], args)))
    return mapped


def choose_how(how: str, num_params: int, side_by_side: bool = True) -> str:
    """`auto`: in turn where the runs do not fit side by side, and on a CPU for models above 100 thousand parameters,
    whose matrix products already fill it and batched ones run slower; side by side everywhere else."""
    if how != 'auto':
        return how
    full = jax.default_backend() == 'cpu' and num_params > 100_000
    return 'map' if full or not side_by_side else 'vmap'


class Program:
    """A compiled function that counts how often it was traced: once for each shape of its arguments."""

    def __init__(self, fn: Callable, compiler: Callable = jax.jit, **options):
        def counted(*args):
            self.traces += 1
            return fn(*args)
        self.traces, self.compiled = 0, compiler(counted, **options)

    def __call__(self, *args):
        return self.compiled(*args)


@functools.cache
def taking(apply: Callable) -> Callable:
    """`apply` for inputs that are `rows` `[B]` of a pool, which lies on the devices beside what is frozen."""
    def taken(params, inputs, at_hand):
        pool, frozen = at_hand
        found = jax.tree.map(lambda x: x.at[inputs['rows']].get(mode='promise_in_bounds'), pool)
        return apply(params, found, frozen)
    return taken


@functools.cache
def compiled_init(init: Callable, static: Static, mesh) -> Callable:
    """The jitted `init_state` over runs: (hypers, seeds, pretrained, streams) -> states, where the step wants them."""
    def states(hypers, seeds, pretrained, streams):
        one = functools.partial(init_state, init=init, static=static)
        made = jax.vmap(one, (0, 0, None))(hypers, seeds, pretrained)
        if sharding.deals_runs(mesh, len(seeds), streams):
            return jax.lax.with_sharding_constraint(made, sharding.dealt(mesh))
        return sharding.constrain(mesh, made)
    return jax.jit(states, static_argnums=3)


@functools.cache
def compiled_step(apply: Callable, static: Static, how: str, mesh) -> Program:
    """The jitted step over runs: (states, inputs, supervision, hypers, frozen) -> (states, metrics), states donated."""
    step = over_runs(functools.partial(train_step, apply=apply, static=static), how)
    return Program(over_mesh(step, mesh), donate_argnums=0)


@functools.cache
def pmapped_step(apply: Callable, static: Static, how: str, mesh) -> Program:
    """The same step by the other driver: each local device has the whole states and a part `[U, B / D, ...]` of each
    batch, given with a leading axis of devices (`parallel.deal_batch`)."""
    step = over_runs(functools.partial(train_step, apply=apply, static=static, axis='devices'), how)
    return Program(step, jax.pmap, axis_name='devices', in_axes=(None, 0, 0, None, None), out_axes=None)


@functools.cache
def compiled_predict(apply: Callable, how: str, mesh) -> Program:
    """The jitted prediction over runs: (params, inputs, frozen) -> `[R, B, K]`."""
    return Program(over_mesh(over_runs(functools.partial(predict_step, apply=apply), how), mesh))


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
        drive = functools.partial(make, static=static, how=how, mesh=mesh)
        apply = model.apply_for(static.steps * static.batch_size, shapes[-1] if shapes else 0)
        self.step, self.step_of_numbers = drive(apply), drive(taking(apply))
        self.forward = compiled_predict(model.apply, how, mesh)
        self.shardings = functools.partial(sharding.sharding, mesh)
        self.frozen = None if model.featurize else model.frozen(self.shardings)  # a probe's backbone has had its say
        self.compile_seconds, self.programs = 0.0, 0  # steps compiled, one a shape

    def init(self, runs: Runs) -> TrainState:
        """The stacked state of all runs before the first step."""
        make = compiled_init(self.model.init, self.static, self.mesh)
        return make(runs.hyper, np.asarray(runs.seeds, np.uint32), self.model.load(self.shardings), runs.streams)

    def put(self, params):
        """Parameters of this host, stacked over runs, on the devices."""
        return jax.tree.map(sharding.put, params, sharding.shardings(self.mesh, params))

    def place(self, inputs: data.Inputs, deals: bool = False):
        """Inputs `[U, B, ...]` on the devices (see `parallel.place_batch`), texts padded to one of the shapes."""
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
        Returns: (params with a leading run axis, History). A run whose loss is no number any more goes on in its
        lane, beside the others (`History.broken`); when all are, training stops. Raises Preempted, once all is saved,
        where the process is asked to stop.
        """
        state, history = self.init(runs), History.empty(self.static.steps, runs)
        if checkpoint is not None:
            state, saved = checkpoint.restore(state, history.arrays())
            history = dataclasses.replace(history, **saved)
        pending: list[tuple[int, dict]] = []
        start, (program, frozen) = int(multihost.fetch(state.step)[0]), self.at_hand(runs)
        deals = self.driver == 'jit' and sharding.deals_runs(self.mesh, len(runs.seeds), runs.streams)

        def make(step):
            batch = runs.batch(step, self.static.batch_size, program is not self.step)
            return self.place_step(*batch, deals)
        for step, (inputs, supervision) in prefetch.ahead(make, range(start, self.static.steps)):
            state, metrics = self.compiling(program, state, inputs, supervision, runs.hyper, frozen)
            pending.append((step, metrics))
            self.wait([metrics for _, metrics in pending])
            done = step + 1
            if done in history.steps:
                history.watched[history.steps.searchsorted(done)] = self.predict(state.params, runs.watch).argmax(-1)
            last, stop = done == self.static.steps, preemption.due()
            save = last or stop or (checkpoint_every and done % checkpoint_every == 0)
            if save or len(pending) >= 16:
                history.record(pending)
                log(done, self.static.steps, multihost.fetch(metrics))
                pending = []
                if not np.isfinite(history.loss[step]).any():
                    break
            if save and checkpoint is not None:
                checkpoint.save(done, state, history.arrays())
            if stop:
                raise Preempted(f'after step {done} of {self.static.steps}')
        return state.params, history


def one_run(params, run: int):
    """The parameters of one run, on the host, out of those of a stack."""
    return multihost.fetch(jax.tree.map(lambda x: x[run], params))


def stack(params: list):
    """The parameters of several runs with a leading run axis."""
    return jax.tree.map(lambda *x: np.stack(x), *params)
