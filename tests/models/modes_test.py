"""Full, LoRA and probe on one backbone: what is trained, what is frozen, and that they are the same model."""
import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import chess as chess_config
from w2s_jax.engine import experiment
from w2s_jax.errors import ConfigError
from w2s_jax.models import linear, lora, modes, transformer, zoo
from w2s_jax.models.config import TransformerConfig
from w2s_jax.phases import context as phases
from w2s_jax.phases import encode
from w2s_jax.runtime import sharding
from w2s_jax.store import trees
from w2s_jax.store.artifacts import Artifact

LORA = (('rank', 4), ('alpha', 8.0), ('targets', 'attention/|mlp/'))
PARTS = zoo.untrained_chess('chess-xs')


def rows(n=6):
    return {'tokens': np.random.default_rng(0).integers(0, 13, (n, 1, 64)).astype(np.int32)}


@functools.cache
def pretrained():
    return modes.draw(PARTS, jax.random.key(7))


def bound(mode, settings=()):
    parts = dataclasses.replace(PARTS, load=lambda _: pretrained(), weights='some', answers=True)
    return modes.bind(parts, mode, settings)


def moved(params, key=3):
    """Every trained number somewhere else, as after training."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    return tree.unflatten([x + .05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


@pytest.mark.long
def test_all_modes_start_as_the_pretrained_model():
    full, adapted, probe = bound('full'), bound('lora', LORA), bound('probe')
    want = full.apply(full.init(jax.random.key(0), full.load(None)), rows())
    got = adapted.apply(adapted.init(jax.random.key(0), adapted.load(None)), rows(), adapted.frozen(None))
    np.testing.assert_allclose(got, want, atol=1e-5)
    features = probe.featurize(probe.frozen(None), rows())
    np.testing.assert_allclose(probe.apply(pretrained(), {'features': features}), want, atol=1e-5)


@pytest.mark.long
def test_merged_adapters_are_the_same_function():
    adapted, full = bound('lora', LORA), bound('full')
    params = moved(adapted.init(jax.random.key(0), adapted.load(None)))
    merged = lora.merge(jax.device_get(pretrained()['backbone']), jax.device_get(params[linear.ADAPTERS]), 8 / 4)
    want = adapted.apply(params, rows(), adapted.frozen(None))
    plain = full.apply({'backbone': pretrained()['backbone'], 'head': params['head']}, rows())
    assert np.abs(want - plain).max() > .1  # the adapters do something
    np.testing.assert_allclose(full.apply({'backbone': merged, 'head': params['head']}, rows()), want, atol=1e-4)


def test_lora_trains_factors_and_head_alone():
    adapted = bound('lora', LORA)
    params = adapted.init(jax.random.key(0), adapted.load(None))
    assert set(params) == {linear.ADAPTERS, 'head'}
    grads = jax.grad(lambda p: jnp.square(adapted.apply(p, rows(), adapted.frozen(None))).sum())(moved(params))
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))
    factors = modes.count(params[linear.ADAPTERS])
    assert factors == 2 * 4 * (4 * (32 + 32) + 2 * (32 + 128))  # layers, rank, in + out of four and two kernels


@pytest.mark.parametrize(('pattern', 'names'), [
    ('attention/', {'key', 'out', 'query', 'value'}), ('query|value', {'query', 'value'}), ('mlp/down$', {'down'})])
def test_the_regular_expression_chooses_linear_layers(pattern, names):
    adapted = bound('lora', (*LORA[:2], ('targets', pattern)))
    layers = adapted.init(jax.random.key(0), adapted.load(None))[linear.ADAPTERS]['layers']
    assert {name for part in layers.values() for name in part} == names


@pytest.mark.parametrize(('pattern', 'reason'), [('attn', 'matches none of .*layers/attention/query'),
                                                 ('(', 'not a regular expression')])
def test_a_regular_expression_that_chooses_nothing(pattern, reason):
    with pytest.raises(ConfigError, match=f'lora.targets: .*{reason}'):
        bound('lora', (*LORA[:2], ('targets', pattern)))


@pytest.mark.long
def test_adapters_fit_grouped_heads_and_a_single_layer():
    config = TransformerConfig(vocab_size=11, d_model=24, num_layers=1, num_heads=6, num_kv_heads=2, d_ff=40)
    module, tokens = transformer.Transformer(config), jnp.arange(8).reshape(1, 8)
    params = module.init(jax.random.key(0), tokens)['params']
    found = lora.linears(module, params, tokens)
    assert found['layers', 'attention', 'key'] == ((1,), 24, 8) and found['layers', 'mlp', 'down'] == ((1,), 40, 24)
    factors = moved(lora.draw(jax.random.key(1), found, 3))
    merged = lora.merge(jax.device_get(params), jax.device_get(factors), .5)
    want = module.apply({'params': params, linear.ADAPTERS: lora.scaled(factors, .5)}, tokens)
    np.testing.assert_allclose(module.apply({'params': merged}, tokens), want, atol=1e-5)


def small(**changes):
    c = chess_config.get_config('chess-xs,chess-xs')
    c.task.train_size, c.task.test_size, c.seeds = 200, 60, (0, 1)
    c.train.epochs, c.train.evaluations, c.report.html, c.method.baselines = 1, 1, False, ()
    c.student.loss.name = 'xent'
    c.update_from_flattened_dict(changes)
    return c


def kept(results, folder):
    """Role -> the parts of the parameters that the store has, of each of its runs that has any."""
    ids = {'teacher': results['weak']['ids'], 'ceiling': results['ceiling']['ids'],
           'student': [i for s in results['students'] for i in s['ids']]}
    paths = {role: [folder / 'store' / f'fit-{i}' / 'params' / 'model.safetensors' for i in found]
             for role, found in ids.items()}
    assert {p for found in paths.values() for p in found if p.exists()} == set(folder.glob('store/*/params/*'))
    return {role: [set(trees.load(p)) for p in found if p.exists()] for role, found in paths.items()}


@pytest.mark.long
def test_a_probe_teaches_a_lora_student(tmp_path):
    c = small(**{'teacher.mode': 'probe', 'student.mode': 'lora', 'teacher.learning_rate': .03, 'train.epochs': 2})
    results = experiment.run(c, tmp_path, io.StringIO())
    kinds = [p['kind'] for p in results['timing']['phases']]
    assert kinds.count('features') == 2  # one for the pool, one for the test set
    assert [p['name'] for p in results['timing']['phases']].count('teacher') == 2
    assert 0 < results['weak']['accuracy']['mean'] < 1
    adapted = {'adapters', 'head'}
    assert kept(results, tmp_path) == {'teacher': [{'head'}] * 2, 'student': [adapted] * 2, 'ceiling': [adapted] * 2}
    zero_shot = experiment.run(small(**{'student.mode': 'full'}), tmp_path / 'full', io.StringIO())['zero_shot']
    np.testing.assert_allclose(results['zero_shot']['accuracy']['mean'], zero_shot['accuracy']['mean'])


@pytest.mark.long
def test_only_the_teacher_need_be_kept(tmp_path):
    results = experiment.run(small(**{'train.keep': 'teacher'}), tmp_path, io.StringIO())
    assert {role: len(found) for role, found in kept(results, tmp_path).items()} == {
        'teacher': 2, 'ceiling': 0, 'student': 0}
    assert all((tmp_path / 'store' / f'fit-{i}' / 'DONE').exists() for i in results['students'][0]['ids'])
    assert len(results['students'][0]['ids']) == 2


def test_features_that_were_computed_in_part_are_gone_on_with(tmp_path, monkeypatch):
    probe = bound('probe')
    context = phases.Context({'student': probe}, sharding.make_mesh(), small().train, None)
    inputs = rows(100)
    context.execution.eval_batch_size = 16
    monkeypatch.setattr(encode, 'PART', 2)

    def dies(step, steps, metrics):
        if step >= 4:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        encode.featurize(probe, inputs, (), context, tmp_path / 'a', dies)
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / 'a').iterdir()}
    seen = []
    again = encode.featurize(probe, inputs, (), context, tmp_path / 'a', lambda step, *_: seen.append(step))
    whole = encode.featurize(probe, inputs, (), context, tmp_path / 'b', lambda *a: None)
    np.testing.assert_array_equal(again, whole)
    assert len(kept) == 2 and all(p.stat().st_mtime_ns == t for p, t in kept.items()) and seen == [2, 4, 6, 7]
    want = probe.featurize(probe.frozen(None), inputs)
    np.testing.assert_allclose(whole, want, atol=1e-5)


def test_a_probe_reads_features_without_mean_and_of_unit_size():
    class Kept(Artifact):
        arrays = None
    pool, test = Kept(None), Kept(None)
    rng = np.random.default_rng(0)
    object.__setattr__(pool, 'arrays', {'features': rng.normal(3, 7, (500, 2, 4)).astype(np.float32)})
    object.__setattr__(test, 'arrays', {'features': rng.normal(3, 7, (50, 2, 4)).astype(np.float32)})
    a, b = phases.inputs({'inputs': pool, 'test': test}, 'inputs', 'test')
    flat = a['features'].reshape(-1, 4)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(flat.std(0), 1, atol=1e-4)
    scale = pool.arrays['features'].reshape(-1, 4).std(0)
    np.testing.assert_allclose(b['features'] * scale + pool.arrays['features'].reshape(-1, 4).mean(0),
                               test.arrays['features'], atol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_layers_are_unrolled_where_training_is_long_enough_to_pay_for_it(mode):
    model = bound(mode, LORA if mode == 'lora' else ())
    tokens = 10 * modes.COMPILATION / (6 * model.work)
    short, long = (model.apply_for(int(tokens * share / model.positions)) for share in (.9, 1.1))
    assert short is model.apply and long is model.unrolled() is not model.apply
    given = model.init(jax.random.key(0), model.load(None)), rows(3), model.frozen(lambda *_: None)
    programs = [jax.jit(apply).lower(*given).compile().as_text() for apply in (short, long)]
    assert [' while(' in text for text in programs] == [True, False]
    np.testing.assert_allclose(long(*given), short(*given), atol=1e-5)
    assert bound('probe').unrolled is None  # a head has no layers
