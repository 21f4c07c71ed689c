"""Programs: the pure functions of step.py over stacked runs, on a mesh or pmapped, compiled once for what they need.

Runs are stacked on a leading axis R. Runs that also see the same rows in the same order share their inputs, whose
leading axis U is then shorter (R is U blocks of such runs).
"""
import functools
from collections.abc import Callable

import jax

from w2s_jax.objectives import Bound
from w2s_jax.runtime import sharding
from w2s_jax.train import step as steps
from w2s_jax.train.step import Static


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
    """`stacked` (see `over_runs`) on a mesh: where runs divide by the devices (`sharding.deals_runs`) each device has
    whole runs and talks to no other; else they share each batch, and the state lives by `sharding.RULES`."""
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
        return apply(params, rows_of(pool, inputs), frozen)
    return taken


def rows_of(pool, inputs):
    """The rows of a pool on the devices that `inputs` names by their numbers."""
    return jax.tree.map(lambda x: x.at[inputs['rows']].get(mode='promise_in_bounds'), pool)


@functools.cache
def compiled_init(init: Callable, static: Static, mesh) -> Callable:
    """The jitted `init_state` over runs: (hypers, seeds, pretrained, starts, streams) -> states, where the step wants
    them. starts: parameters with a leading run axis, or None."""
    def states(hypers, seeds, pretrained, starts, streams):
        one = functools.partial(steps.init_state, init=init, static=static)
        made = jax.vmap(one, (0, 0, None, None if starts is None else 0))(hypers, seeds, pretrained, starts)
        if sharding.deals_runs(mesh, len(seeds), streams):
            return jax.lax.with_sharding_constraint(made, sharding.dealt(mesh))
        return sharding.constrain(mesh, made)
    return jax.jit(states, static_argnums=4)


def step_of(apply: Callable, static: Static, numbers: bool, axis: str | None = None) -> Callable:
    """`train_step` of a model. numbers: its inputs are the numbers of rows of a pool (see `taking`); an objective that
    looks at inputs gets the rows themselves."""
    if numbers and not static.bound.is_loss:
        def taken(state, inputs, columns, hyper, at_hand):
            pool, frozen = at_hand
            return steps.train_step(state, rows_of(pool, inputs), columns, hyper, frozen, apply=apply, static=static,
                                    axis=axis)
        return taken
    return functools.partial(steps.train_step, apply=taking(apply) if numbers else apply, static=static, axis=axis)


@functools.cache
def compiled_step(apply: Callable, static: Static, how: str, mesh, numbers: bool = False) -> Program:
    """The jitted step over runs: (states, inputs, columns, hypers, frozen) -> (states, metrics), states donated."""
    return Program(over_mesh(over_runs(step_of(apply, static, numbers), how), mesh), donate_argnums=0)


@functools.cache
def pmapped_step(apply: Callable, static: Static, how: str, mesh, numbers: bool = False) -> Program:
    """The same step by the other driver: each local device has the whole states and a part `[U, B / D, ...]` of each
    batch, given with a leading axis of devices (`sharding.deal_batch`)."""
    step = over_runs(step_of(apply, static, numbers, axis='devices'), how)
    return Program(step, jax.pmap, axis_name='devices', in_axes=(None, 0, 0, None, None), out_axes=None)


@functools.cache
def compiled_predict(apply: Callable, how: str, mesh, bound: Bound | None = None) -> Program:
    """The jitted prediction over runs: (params, inputs, frozen) -> `[R, B, K]`. bound: whose prediction it is."""
    bound = None if bound is None or bound.is_loss else bound
    return _compiled_predict(apply, how, mesh, bound)


@functools.cache
def _compiled_predict(apply: Callable, how: str, mesh, bound: Bound | None) -> Program:
    return Program(over_mesh(over_runs(functools.partial(steps.predict_step, apply=apply, bound=bound), how), mesh))


@functools.cache
def compiled_keep(mesh) -> Program:
    """The jitted `keep_better`."""
    return Program(steps.keep_better, donate_argnums=0)
