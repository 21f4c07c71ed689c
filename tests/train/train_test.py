"""One step and the loop: microbatches, devices and stacks of runs change nothing; resuming changes nothing."""
import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import losses
from w2s_jax.errors import ConfigError
from w2s_jax.models import mlp
from w2s_jax.models.modes import Model
from w2s_jax.runtime import sharding
from w2s_jax.train import step as stepping
from w2s_jax.train import stopping
from w2s_jax.train import trainer as train
from w2s_jax.train.checkpoint import Checkpoint
from w2s_jax.train.gradients import gradients
from w2s_jax.train.runs import Runs, evaluated, num_steps

MODULE = mlp.FeatureMLP(16, 2)
EXAMPLE = jnp.zeros((1, 6))


def init(key, pretrained=None):
    return MODULE.init(key, EXAMPLE)['params']


def apply(params, inputs, frozen=None):
    return MODULE.apply({'params': params}, inputs['features'])


MODEL = Model('tiny', init, apply, 200, {}, 1e-3)
STATIC = stepping.Static('xent', steps=20, batch_size=16, num_classes=2, schedule='cosine')


def hyper(runs=None, **changes):
    values = dict(learning_rate=3e-2, weight_decay=.1, beta2=.99, clip=1., warmup=.1, alpha=.5, alpha_warmup=.2)
    return stepping.hyper(**{k: np.full((runs,) if runs else (), v, np.float32) for k, v in (values | changes).items()})


def batch(seed=0, size=16, soft=True):
    rng = np.random.default_rng(seed)
    positive = rng.random(size).astype(np.float32)
    positive = positive if soft else (positive > .5).astype(np.float32)
    return {'inputs': {'features': rng.normal(size=(size, 6)).astype(np.float32)},
            'targets': np.stack([1 - positive, positive], 1),
            'weight': np.ones(size, np.float32)}


def steps(static, number=5, place=lambda x: x, **changes):
    state = stepping.init_state(hyper(**changes), 0, None, init=init, static=static)
    step = jax.jit(functools.partial(stepping.train_step, apply=apply, static=static))
    for i in range(number):
        b = place(batch(i))
        state, metrics = step(state, b.pop('inputs'), b, hyper(**changes))
    return state, metrics


@pytest.mark.parametrize('loss', losses.LOSSES)
@pytest.mark.parametrize('accumulate', [2, 8])
def test_microbatches_give_the_plain_gradient(loss, accumulate):
    plain = dataclasses.replace(STATIC, objective=loss)
    numbers = hyper(**{k: s.default for k, s in losses.LOSSES[loss].settings.items()})
    state = stepping.init_state(numbers, 0, None, init=init, static=plain)
    state = dataclasses.replace(state, step=jnp.int32(10))
    b = batch()
    b['weight'] = np.linspace(.5, 2, 16).astype(np.float32)
    (want, _), grads = gradients(state, b, numbers, None, apply=apply, static=plain)
    parts = dataclasses.replace(plain, accumulate=accumulate)
    (got, _), summed = gradients(state, b, numbers, None, apply=apply, static=parts)
    chex.assert_trees_all_close((got, summed), (want, grads), atol=1e-6)


def test_a_loss_per_microbatch_would_be_seen():
    """The threshold of the confidence loss over half a batch is another one: the test above can fail."""
    plain = dataclasses.replace(STATIC, objective='confidence')
    state = dataclasses.replace(stepping.init_state(hyper(), 0, None, init=init, static=plain), step=jnp.int32(10))
    (_, _), whole = gradients(state, batch(), hyper(alpha=1.), None, apply=apply, static=plain)
    halves = [jax.tree.map(lambda x, h=h: x[h::2], batch()) for h in (0, 1)]
    parts = [gradients(state, h, hyper(alpha=1.), None, apply=apply, static=plain)[1] for h in halves]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    assert max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (mean, whole)), strict=True)) > 1e-3


def runs(seeds=(0, 1, 2), n=64, evaluations=3, rate=(3e-2, 1e-2, 3e-3), **changes):
    rng = np.random.default_rng(5)
    features = rng.normal(size=(100, 6)).astype(np.float32)
    rows = np.stack([np.random.default_rng(s).permutation(100)[:n] for s in seeds])
    targets = (features[:, 0] > 0).astype(np.int32)[rows]
    h = hyper(len(seeds), **changes)
    h = h | {'learning_rate': np.array(rate[:len(seeds)], np.float32)}
    return Runs({'features': features}, rows, targets, np.array(seeds), h,
                      {'features': features[:10]}, evaluations, 2)


def fit(static, r, how='vmap', **kwargs):
    return train.Trainer(MODEL, static, sharding.make_mesh(), how).fit(r, **kwargs)


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_stacked_runs_equal_single_ones(how):
    params, history = fit(STATIC, runs(), how)
    for i, (seed, rate) in enumerate(zip((0, 1, 2), (3e-2, 1e-2, 3e-3), strict=True)):
        alone, own = fit(STATIC, runs((seed,), rate=(rate,)))
        chex.assert_trees_all_close(train.one_run(params, i), train.one_run(alone, 0), atol=1e-5)
        np.testing.assert_allclose(history.loss[:, i], own.loss[:, 0], atol=1e-5)


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_runs_that_see_the_same_rows_share_their_inputs(how):
    grid = runs((0, 0, 1, 1), rate=(3e-2, 1e-2, 3e-2, 1e-2))
    rng = np.random.default_rng(0)
    grid = dataclasses.replace(grid, rows=grid.rows[[0, 0, 1, 1]], targets=rng.integers(0, 2, (4, 64)).astype(np.int32))
    inputs, supervision = grid.batch(3, 16)
    assert grid.streams == 2 and len(inputs['features']) == 2 and len(supervision['targets']) == 4
    shared, history = fit(STATIC, grid, how)
    for i in range(4):
        one = dataclasses.replace(grid, rows=grid.rows[[i]], targets=grid.targets[[i]], seeds=grid.seeds[[i]],
                                  hyper=jax.tree.map(lambda x, i=i: x[[i]], grid.hyper))
        alone, own = fit(STATIC, one, how)
        np.testing.assert_allclose(history.loss[:, i], own.loss[:, 0], atol=1e-5)
        chex.assert_trees_all_close(train.one_run(shared, i), train.one_run(alone, 0), atol=1e-5)


@pytest.mark.parametrize(('seeds', 'streams'), [((0, 1, 2), 3), ((5, 5), 1), ((0, 0, 1), 3), ((1, 1, 2, 2, 1, 1), 3)])
def test_only_equal_blocks_of_neighbours_share(seeds, streams):
    assert runs(seeds, rate=(1e-2,) * 6).streams == streams


def test_a_batch_of_numbers_is_that_batch():
    grid = runs((0, 0, 1, 1), rate=(3e-2,) * 4)
    grid = dataclasses.replace(grid, rows=grid.rows[[0, 0, 1, 1]])
    (inputs, supervision), (numbers, same) = grid.batch(5, 16), grid.batch(5, 16, True)
    chex.assert_trees_all_equal(supervision, same)
    np.testing.assert_array_equal(grid.inputs['features'][numbers['rows']], inputs['features'])
    trainer = train.Trainer(MODEL, STATIC, sharding.make_mesh(), 'vmap')
    step, (pool, frozen) = trainer.at_hand(grid)
    results = [program(trainer.init(grid), *sharding.place_batch((batch, supervision), trainer.mesh), grid.hyper, rest)
               for program, batch, rest in ((trainer.step, inputs, frozen), (step, numbers, (pool, frozen)))]
    chex.assert_trees_all_close(results[0][1], results[1][1], atol=1e-6)


def texts(n=40, seed=0):
    """Inputs as a language model takes them, with junk after the end of each text."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 25, (n, 1)).astype(np.int32)
    return {'tokens': rng.integers(0, 50, (n, 1, 24)).astype(np.int32), 'length': length}


def bag(params, inputs, frozen=None):
    """A model of texts that looks at real tokens alone: the mean of their embeddings."""
    tokens, length = inputs['tokens'][:, 0], inputs['length']
    real = jnp.arange(tokens.shape[1])[None] < length
    return jnp.where(real[..., None], params['table'][tokens], 0).sum(1) / length


BAG = Model('bag', lambda key, pretrained=None: {'table': jax.random.normal(key, (50, 2))}, bag, 100, {}, 1e-3)


def test_texts_are_padded_to_few_lengths_and_predictions_come_back_in_order():
    inputs = texts()
    trainer = train.Trainer(BAG, STATIC, sharding.make_mesh(), 'vmap', 8, shapes=(8, 16, 24))
    params = jax.vmap(BAG.init)(jax.random.split(jax.random.key(0), 2))
    want = jax.nn.softmax(jnp.stack([bag(train.one_run(params, r), inputs) for r in range(2)]))
    np.testing.assert_allclose(trainer.predict(params, inputs), want, atol=1e-6)
    rows = np.random.default_rng(1).integers(0, 40, (2, 21))
    np.testing.assert_allclose(trainer.predict(params, inputs, rows), np.take_along_axis(want, rows[..., None], 1),
                               atol=1e-6)


@chex.assert_max_traces(n=3)
def traced_bag(params, inputs, frozen=None):
    return bag(params, inputs)


def test_one_program_a_length():
    inputs = texts(200)
    model = dataclasses.replace(BAG, apply=traced_bag)
    rows = np.stack([np.random.default_rng(s).permutation(200)[:160] for s in range(2)])
    r = Runs(inputs, rows, inputs['length'][rows, 0] % 2, np.arange(2), hyper(2), {}, 0, 2, window=4)
    trainer = train.Trainer(model, STATIC, sharding.make_mesh(), 'vmap', 16, shapes=(8, 16, 24))
    state, seen = trainer.init(r), set()
    for step in range(20):
        batch, supervision = r.batch(step, 16)
        placed = trainer.place(batch)
        seen.add(placed['tokens'].shape[-1])
        state, _ = trainer.step(state, placed, sharding.place_batch(supervision, trainer.mesh), r.hyper, None)
    assert seen == {8, 16, 24}


def test_training_learns_and_watches():
    params, history = fit(STATIC, runs())
    assert history.loss.shape == (20, 3) and np.isfinite(history.loss).all()
    assert history.loss[-4:, 0].mean() < .7 * history.loss[:4, 0].mean()
    np.testing.assert_array_equal(history.steps, [7, 13, 20])
    trainer = train.Trainer(MODEL, STATIC, sharding.make_mesh(), 'vmap', eval_batch_size=3)
    last = trainer.predict(params, runs().watch)
    assert last.shape == (3, 10, 2)
    np.testing.assert_array_equal(last.argmax(-1), history.watched[-1])


def test_one_program_serves_every_seed_and_rate():
    traces = []

    def counted(params, inputs, frozen):
        traces.append(1)
        return apply(params, inputs, frozen)
    model = dataclasses.replace(MODEL, apply=counted)
    static = dataclasses.replace(STATIC, steps=4)
    train.Trainer(model, static, sharding.make_mesh(), 'vmap').fit(runs())
    first = len(traces)
    train.Trainer(model, static, sharding.make_mesh(), 'vmap').fit(
        runs((7, 8, 9), rate=(1., .1, .01), alpha=.3, weight_decay=0.))
    assert len(traces) == first > 0


def test_a_resumed_run_is_bit_identical(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, *_):
        if step >= 12:
            raise Killed
    want, whole = fit(STATIC, runs(), checkpoint=None)
    for attempt in range(2):
        checkpoint = Checkpoint(tmp_path / 'c')
        try:
            got, history = fit(STATIC, runs(), checkpoint=checkpoint, checkpoint_every=4, log=kill if not attempt else
                               lambda *_: None)
        except Killed:
            assert not attempt
        checkpoint.close()
    assert Checkpoint(tmp_path / 'c').manager.latest_step() == 20
    chex.assert_trees_all_equal(got, want)
    chex.assert_trees_all_equal(history.arrays(), whole.arrays())


class Poison(Runs):
    """Runs some of which get a target that is no number, at step 9."""
    lanes = (1,)

    def batch(self, step, *how):
        inputs, supervision = super().batch(step, *how)
        if step >= 9:
            supervision['targets'][list(self.lanes), 0] = np.nan
        return inputs, supervision


@pytest.mark.parametrize('seeds', [(0, 1, 2), tuple(range(8))])  # on all devices together; one on each
def test_a_loss_that_is_not_a_number_stays_in_its_lane(seeds):
    r = runs(seeds, rate=(1e-2,) * 8)
    (got, history), (want, whole) = fit(STATIC, Poison(**vars(r))), fit(STATIC, r)
    assert history.broken(1).startswith('loss is nan at step 9')
    for i in set(range(len(seeds))) - {1}:
        assert history.broken(i) is None
        chex.assert_trees_all_equal(train.one_run(got, i), train.one_run(want, i))
        np.testing.assert_array_equal(history.loss[:, i], whole.loss[:, i])
    assert not all(np.isfinite(x).all() for x in jax.tree.leaves(train.one_run(got, 1)))


def test_when_no_lane_has_a_number_left_training_stops():
    class AllPoison(Poison):
        lanes = (0, 1, 2)
    static, steps = dataclasses.replace(STATIC, steps=100), []
    _, history = fit(static, AllPoison(**vars(runs())), log=lambda step, *_: steps.append(step))
    assert max(steps) < 40
    assert all(history.broken(i).startswith('loss is nan at step 9') for i in range(3))


def test_the_state_is_donated_and_predictions_are_not():
    trainer, r = train.Trainer(MODEL, STATIC, sharding.make_mesh(), 'vmap'), runs()
    state = trainer.init(r)
    trainer.predict(state.params, r.watch)
    assert not any(x.is_deleted() for x in jax.tree.leaves(state.params))
    trainer.step(state, *sharding.place_batch(r.batch(0, 16), sharding.make_mesh()), r.hyper, None)
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ConfigError, match=r'train\.batch_size: 32, expected at most the 10'):
        num_steps(10, 32, 1)


def test_weight_decay_spares_biases_and_norms():
    from w2s_jax.train import optimizers
    params = {'layers': {'scale': jnp.ones((2, 4)), 'kernel': jnp.ones((2, 4, 4))}, 'bias': jnp.ones(4),
              'table': jnp.ones((4, 4))}
    assert optimizers.decays(params) == {'layers': {'scale': False, 'kernel': True}, 'bias': False, 'table': True}


@pytest.mark.parametrize('name, at_half', [('constant', 1.), ('linear', .5), ('cosine', .5)])
def test_schedules(name, at_half):
    from w2s_jax.train import optimizers
    assert float(optimizers.schedule(name, jnp.float32(.5), 0.)) == pytest.approx(at_half)
    assert float(optimizers.schedule(name, jnp.float32(.05), .1)) == pytest.approx(
        .5 * float(optimizers.SCHEDULES[name](jnp.float32(.05))))
    assert float(optimizers.schedule(name, jnp.float32(0.), 0.)) == pytest.approx(1.)


@pytest.mark.parametrize('ahead', [0, 1])
def test_so_many_steps_are_dispatched_while_one_is_computed(monkeypatch, ahead):
    trainer = train.Trainer(MODEL, STATIC, sharding.make_mesh(), 'vmap', ahead=ahead)
    program, wait, under_way, most = trainer.step_of_numbers, jax.block_until_ready, [], []

    def dispatched(*args):
        state, metrics = program(*args)
        under_way.append(metrics)
        most.append(len(under_way))
        return state, metrics

    def done(metrics):
        del under_way[:1 + next(i for i, m in enumerate(under_way) if m is metrics)]
        return wait(metrics)
    trainer.step_of_numbers, dispatched.traces = dispatched, 0
    monkeypatch.setattr(jax, 'block_until_ready', done)
    trainer.fit(runs(evaluations=1), log=lambda *_: under_way.clear())
    assert max(most) == 1 + ahead and len(most) == STATIC.steps


def test_a_rule_is_not_held_back_by_a_model_that_is_too_sure():
    labels = np.eye(2)[np.arange(200) % 2]
    sure = np.where(labels > 0, .9999, .0001)
    sure[:40] = sure[:40, ::-1]  # wrong in a fifth of the rows, and sure of it
    unsure = np.full((200, 2), .5)
    calibrated, likelihood = (stopping.STOPPING[name].fn for name in ('calibrated', 'likelihood'))
    assert likelihood(unsure, labels, {}) > likelihood(sure, labels, {})
    assert calibrated(sure, labels, {}) > calibrated(unsure, labels, {}) == pytest.approx(np.log(.5))
    best = .8 * np.log(.8) + .2 * np.log(.2)  # by hand: a T that makes it right as often as it says
    assert calibrated(sure, labels, {}) == pytest.approx(best, abs=.01)


@pytest.mark.parametrize(('steps', 'number', 'stops'), [(100, 4, False), (100, 0, True), (7, 1, True), (3, 20, True)])
def test_models_are_looked_at_after_the_last_step_whatever_else(steps, number, stops):
    found = evaluated(steps, number, stops)
    assert found[-1] == steps and found[0] >= 1 and (np.diff(found) > 0).all()
    assert len(found) <= (number or 20) and (not stops or number < 20 or found[0] <= max(steps / 25, 1))
