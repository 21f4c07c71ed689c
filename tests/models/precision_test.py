"""What is kept and added up is float32, what is multiplied is what the config says; remat changes memory alone."""
import dataclasses
import functools
import itertools

import jax
import jax.extend.core
import jax.numpy as jnp
import large_program
import numpy as np
import pytest

from w2s_jax import config as configs
from w2s_jax import losses
from w2s_jax.data import Dataset, Examples
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.models import chess_moves, modes, zoo
from w2s_jax.models.config import REMATS, TransformerConfig
from w2s_jax.models.linear import Embed
from w2s_jax.models.transformer import attend
from w2s_jax.registry import Settings
from w2s_jax.train import memory
from w2s_jax.train import step as steps
from w2s_jax.train.gradients import gradients
from w2s_jax.train.optimizers import OPTIMIZERS

TINY = TransformerConfig(vocab_size=50, d_model=32, num_layers=2, num_heads=4, num_kv_heads=1, d_ff=48, max_length=512)
HALF = dataclasses.replace(TINY, dtype='bfloat16')


def batch(size=8, length=16):
    rng = np.random.default_rng(0)
    inputs = {'tokens': rng.integers(0, 50, (size, 1, length)).astype(np.int32),
              'length': rng.integers(1, length + 1, (size, 1)).astype(np.int32)}
    return {'inputs': inputs, 'targets': rng.dirichlet([1, 1], size).astype(np.float32),
            'weight': np.ones(size, np.float32)}


def test_attention_of_bfloat16_is_that_of_float32_but_for_its_rounding():
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=(2, 30, heads, 16)), jnp.bfloat16) for heads in (4, 2, 2)]
    weight = rng.normal(size=(2, 30, 4, 16))

    def value(*arrays):
        y = attend(*arrays, jnp.tril(jnp.ones((30, 30), bool))[None, None], scale=.25)
        return (y.astype(jnp.float32) * weight).sum(), y
    find = jax.jit(jax.value_and_grad(value, (0, 1, 2), has_aux=True))
    (_, want), grads = find(*(a.astype(jnp.float32) for a in arrays))
    (_, found), again = find(*arrays)
    for a, b in zip((found, *again), (want, *grads), strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.linalg.norm(a.astype(jnp.float32) - b) < 6e-3 * np.linalg.norm(b)  # bfloat16's steps are 4e-3 to 8e-3


def hyper():
    return jax.tree.map(jnp.float32, steps.hyper(3e-3, 0., .99, 1., 0., alpha=.5, alpha_warmup=.2))


def products(jaxpr):
    """The kinds of what every product of a program multiplies, in its loops and calls too."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == 'dot_general':
            yield tuple(str(v.aval.dtype) for v in eqn.invars), [v.aval.shape for v in (*eqn.invars, *eqn.outvars)]
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_program):
            if is_program(inner):
                yield from products(getattr(inner, 'jaxpr', inner))


def is_program(x):
    return isinstance(x, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr)


def kinds(tree):
    return {str(x.dtype) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


def frozen_of(model):
    if model.frozen_shapes is None:
        return None
    return jax.jit(large_program.model(TINY).init)(jax.random.key(0))['backbone']


def initial(model, static):
    return steps.init_state(hyper(), 0, None, init=model.init, static=static)


@pytest.mark.parametrize('mode', ['full', 'lora'])
@pytest.mark.parametrize('loss', ['xent', 'confidence'])
@pytest.mark.parametrize('accumulate', [1, 2])
def test_parameters_gradients_and_losses_are_float32_and_products_bfloat16(mode, loss, accumulate):
    model, static = large_program.model(HALF, mode), steps.Static(loss, 10, 8, 2, accumulate=accumulate)
    state = jax.eval_shape(functools.partial(initial, model, static))
    find = functools.partial(gradients, apply=model.apply, static=static)
    (value, aux), grads = jax.eval_shape(find, state, batch(), hyper(), model.frozen_shapes)
    assert kinds((state, value, aux, grads)) == {'float32'}
    program = jax.make_jaxpr(find)(state, batch(), hyper(), model.frozen_shapes)
    found = list(products(program.jaxpr))
    assert len(found) >= 25
    exact = [shapes for pair, shapes in found if set(pair) != {'bfloat16'}]
    assert all(any(2 in shape for shape in shapes) for shapes in exact), exact  # those of the head, of two classes
    assert 2 <= len(exact) <= 4


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_a_step_keeps_every_kind(name):
    model, static = large_program.model(HALF), steps.Static('xent', 10, 8, 2, optimizer=name)
    state = jax.eval_shape(functools.partial(initial, model, static))
    b = batch()
    after, metrics = jax.eval_shape(functools.partial(steps.train_step, apply=model.apply, static=static), state,
                                    b.pop('inputs'), b, hyper())
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
    halves = kinds(state.opt_state) - {'float32'}
    assert halves == ({'bfloat16'} if name in ('adamw_half', 'lion') else set())
    assert kinds((state.params, metrics)) == {'float32'}


@pytest.mark.parametrize('mode', ['full', 'lora', 'probe'])
def test_logits_probabilities_and_features_are_float32(mode):
    model = large_program.model(HALF, mode)
    params, inputs = jax.eval_shape(model.init, jax.random.key(0)), batch()['inputs']
    if mode == 'probe':
        shapes = jax.eval_shape(large_program.model(HALF).init, jax.random.key(0))['backbone']
        features = jax.eval_shape(model.featurize, shapes, inputs)
        assert features.dtype == jnp.float32
        inputs = {'features': features}
    for fn in (model.apply, functools.partial(steps.predict_step, apply=model.apply)):
        assert jax.eval_shape(fn, params, inputs, model.frozen_shapes).dtype == jnp.float32


@pytest.mark.parametrize('loss', losses.LOSSES)
def test_a_loss_of_bfloat16_logits_is_float32(loss):
    logits, targets = jnp.ones((4, 2), jnp.bfloat16), jnp.full((4, 2), .5)
    settings = Settings({k: np.float32(s.default) for k, s in losses.LOSSES[loss].settings.items()})
    found = losses.LOSSES[loss].fn(logits, targets, progress=.5, settings=settings, state=())
    assert kinds(found[:2]) == {'float32'}


def trained(config, number=20):
    model, static = large_program.model(config), steps.Static('xent', number, 8, 2)
    state, found = jax.jit(functools.partial(initial, model, static))(), []
    step = jax.jit(functools.partial(steps.train_step, apply=model.apply, static=static))
    for _ in range(number):
        b = batch()
        state, metrics = step(state, b.pop('inputs'), b, hyper())
        found.append(float(metrics['loss']))
    return np.array(found), jax.jit(model.apply)(state.params, batch()['inputs'], None)


@pytest.mark.long
def test_a_bfloat16_run_stays_close_to_float32():
    (want, logits), (found, others) = trained(TINY), trained(HALF)
    assert want[-1] < want[0] - .02
    np.testing.assert_allclose(found, want, atol=.02)
    assert np.abs(found - want).max() > 0  # it is another computation
    assert np.corrcoef(np.ravel(logits), np.ravel(others))[0, 1] > .99


def test_gradients_of_a_frequent_token_are_added_up_in_float32():
    """A bfloat16 sum of ones stops at 256."""
    module, tokens = Embed(3, 4, dtype=jnp.bfloat16), jnp.zeros((2, 500), jnp.int32)
    params = module.init(jax.random.key(0), tokens)
    grads = jax.grad(lambda p: module.apply(p, tokens).astype(jnp.float32).sum())(params)
    np.testing.assert_array_equal(grads['params']['embedding'][0], 1000)


def chess_dataset():
    examples = Examples({'tokens': np.zeros((4, 1, 64), np.int8)}, np.zeros(4, np.int32), np.arange(4))
    return Dataset('chess', chess_moves.NUM_MOVES, examples, examples)


def part(**changes):
    section = configs.default_config().student
    section.update(changes)
    return section


def test_a_chess_model_computes_in_the_config_s_dtype():
    plain, half = (zoo.get(part(dtype=d), 'student', chess_dataset()) for d in ('float32', 'bfloat16'))
    assert half.identity == {**plain.identity, 'dtype': 'bfloat16'}  # and of float32 it is as it always was
    assert plain is zoo.get(part(), 'teacher', chess_dataset(), configs.default_config().train)
    params, inputs = plain.load(None), {'tokens': np.zeros((2, 1, 64), np.int8)}
    assert {p for p, _ in products(jax.make_jaxpr(plain.apply)(params, inputs, None).jaxpr)} == {('float32', 'float32')}
    program = jax.make_jaxpr(half.apply)(params, inputs, None)
    assert ('bfloat16', 'bfloat16') in {p for p, _ in products(program.jaxpr)}
    assert program.out_avals[0].dtype == jnp.float32


def test_a_perceptron_has_no_other_dtype():
    examples = Examples({'features': np.zeros((4, 3), np.float32)}, np.zeros(4, np.int32), np.arange(4))
    with pytest.raises(ConfigError, match=r"^student.dtype: 'bfloat16', but 'mlp-4' is no transformer"):
        zoo.get(part(model='mlp-4', dtype='bfloat16'), 'student', Dataset('points', 2, examples, examples))


def kept(remat, length=64, config=TINY):
    """Bytes that the forward pass keeps for the backward pass."""
    model = large_program.model(dataclasses.replace(config, remat=remat))
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    inputs = {'tokens': shape((8, 1, length)), 'length': shape((8, 1))}
    return memory.run_bytes(model, steps.Static('xent', 10, 8, 2), hyper(), inputs)[1]


@pytest.mark.long
def test_each_remat_keeps_less_than_the_one_before():
    sizes = [kept(remat) for remat in REMATS]
    assert all(a > 1.2 * b for a, b in itertools.pairwise(sizes)), dict(zip(REMATS, sizes, strict=True))


@pytest.mark.parametrize(('remat', 'numbers'), [('full', 32), ('linear', 32 + 32 + 2 * 8 + 32 + 2 * 48)])
def test_what_a_layer_keeps_of_a_token(remat, numbers):
    """What enters it; and queries, keys and values, the output of attention, gate and up."""
    deeper = dataclasses.replace(TINY, num_layers=4)
    assert kept(remat, config=deeper) - kept(remat) == pytest.approx(2 * 4 * 8 * 64 * numbers, rel=.02)


@pytest.mark.parametrize(('remat', 'power'), [('products', 2), ('linear', 1), ('full', 1)])
def test_how_what_is_kept_grows_with_length(remat, power):
    growth = np.log2(kept(remat, 4096) / kept(remat, 2048))
    assert growth == pytest.approx(power, abs=.15)


@pytest.mark.long
@pytest.mark.parametrize('remat', REMATS[1:])
@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_gradients_are_the_same_whatever_is_kept(remat, mode):
    parts = [large_program.parts(TINY) for _ in range(2)]
    settings = (('rank', 2), ('alpha', 4.), ('targets', 'attention')) if mode == 'lora' else ()
    models = [modes.bind(modes.computing(p, 'float32', r), mode, settings)
              for p, r in zip(parts, ('none', remat), strict=True)]
    static = steps.Static('xent', 10, 8, 2)
    state, programs, found = jax.jit(functools.partial(initial, models[0], static))(), [], []
    state = dataclasses.replace(state, params=jax.tree.map(  # the head and half of the adapters start at zero
        lambda x: x + .1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.params))
    for model in models:
        find = functools.partial(gradients, apply=model.apply, static=static)
        programs.append(str(jax.make_jaxpr(find)(state, batch(), hyper(), frozen_of(model))))
        found.append(jax.jit(find)(state, batch(), hyper(), frozen_of(model)))
    assert 'remat' not in programs[0] and 'checkpoint[' not in programs[0]
    assert 'remat' in programs[1] or 'checkpoint[' in programs[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *found)
    assert all(np.abs(x).max() > 1e-6 for x in jax.tree.leaves(found[0][1]))


def test_remat_and_attention_change_no_phase_but_how_it_is_computed():
    def planned(**changes):
        c = configs.default_config()
        c.task.train_size, c.task.test_size = 200, 50
        c.train.update(changes)
        return plans.prepare(configs.validate(c), lambda line: None)
    plain, other = planned(), planned(remat='full', attention='xla')
    assert [p.id for p in plain.phases] == [p.id for p in other.phases]
    assert plain.models['student'] is not other.models['student']
    assert plain.models['student'].identity == other.models['student'].identity
    for field in ('train.remat', 'train.attention'):
        assert not configs.decides(configs.default_config(), field)


@pytest.mark.parametrize('field', ['remat', 'attention'])
def test_an_unknown_way_is_refused(field):
    c = configs.default_config()
    c.train[field] = 'some'
    with pytest.raises(ConfigError, match=rf"^train.{field}: unknown 'some', expected one of auto, "):
        configs.validate(c)


def test_an_attention_that_is_not_there_is_refused_before_anything_runs():
    c = configs.default_config()
    c.train.attention = 'cudnn'
    with pytest.raises(ConfigError, match=r"^train.attention: 'cudnn' needs an NVIDIA GPU"):
        zoo.get(c.student, 'student', chess_dataset(), c.train)


@pytest.mark.parametrize(('backend', 'activations', 'steps'), [('cpu', .8e9, 1), ('cpu', .9e9, 0), ('gpu', 9e9, 1)])
def test_no_step_is_dispatched_ahead_on_a_cpu_whose_memory_is_short(monkeypatch, backend, activations, steps):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    assert memory.ahead(int(2e9), int(activations), 12e9) == steps
