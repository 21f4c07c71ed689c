"""Models of images: equality with transformers by golden files (tests/parity), positions, frozen norms, bad input."""
import functools
import io
import json
import pathlib
import shutil

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers

from configs.paper import vision_images
from w2s_jax import config as configs
from w2s_jax.data import Dataset, Examples
from w2s_jax.engine import experiment
from w2s_jax.errors import ConfigError, WeightsError
from w2s_jax.models import hf, zoo
from w2s_jax.models.families import configure
from w2s_jax.models.vision import families, images, resnet, vit

GOLDENS = pathlib.Path(__file__).parents[1] / 'parity' / 'image_goldens'
NAMES = sorted(p.name for p in GOLDENS.iterdir())
NUMBERS = {'hidden_size': 48, 'num_hidden_layers': 3, 'num_attention_heads': 4}


def loss_weights(shape):
    """As in tests/parity/make_goldens.py."""
    return np.sin(1 + 7. * np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


@functools.cache
def golden(name):
    """(checkpoint, parameters, what transformers computes, what we do, our gradients)."""
    folder, want = GOLDENS / name, dict(np.load(GOLDENS / name / 'expected.npz', allow_pickle=False))
    pooler = 'pooled' in want and name.startswith('vit')
    checkpoint, params = hf.read(folder, pooler=pooler), hf.load(folder, pooler=pooler)
    module, _ = hf.module_of(checkpoint.config)

    def loss(params):
        seen = module.apply({'params': params}, want['images'], every_layer=True)
        found = {'hidden': seen.hidden, 'pooled': seen.pooled} | {f'layer{i}': x for i, x in enumerate(seen.layers)}
        return sum(jnp.sum(found[k] * loss_weights(found[k].shape)) for k in ('hidden', 'pooled') if k in want), found
    gradients, found = jax.jit(jax.grad(loss, has_aux=True))(params)
    return checkpoint, params, want, found, gradients


def close(found, wanted, tolerance, what):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max()), err_msg=what)


def copy_of(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(GOLDENS / name, folder)
    return folder, safetensors.numpy.load_file(folder / 'model.safetensors')


def write(folder, tensors=None, **config):
    if tensors is not None:
        safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
    raw = json.loads((folder / 'config.json').read_text()) | config
    (folder / 'config.json').write_text(json.dumps(raw))


def task(height=12, width=12, classes=3):
    """A dataset of eight random images."""
    rows = Examples({'images': np.random.default_rng(0).integers(0, 256, (8, height, width, 3), np.uint8)},
                    (np.arange(8) % classes).astype(np.int32), np.arange(8))
    return Dataset('images', classes, rows, rows)


def get(model, dataset=None, **fields):
    c = configs.default_config()
    c.student.model, c.student.mode = str(model), 'probe'
    c.update_from_flattened_dict({f'student.{k}': v for k, v in fields.items()})
    return zoo.get(configs.compose(c).student, 'student', dataset or task())


@pytest.mark.parametrize('name', NAMES)
def test_hidden_states_equal_those_of_transformers(name):
    _, _, want, found, _ = golden(name)
    keys = [k for k in want if not k.startswith(('grad:', 'images'))]
    assert 'hidden' in keys and sum(k.startswith('layer') for k in keys) >= 2
    for key in keys:
        close(found[key], want[key], 1e-5, key)


@pytest.mark.parametrize('name', NAMES)
def test_gradients_equal_those_of_transformers(name):
    checkpoint, _, want, _, gradients = golden(name)
    found = hf.to_tensors(checkpoint, gradients)
    wanted = {k.removeprefix('grad:'): v for k, v in want.items() if k.startswith('grad:')}
    compared = [k for k in wanted if k in found]
    assert len(compared) >= 14 and all('running' in k for k in found.keys() - wanted.keys())
    for key in compared:
        scale = np.abs(wanted[key]).max()  # 0 of biases of keys, but for rounding
        np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=1e-4 * scale + 1e-5, err_msg=key)


@pytest.mark.parametrize('name', NAMES)
def test_export_gives_back_the_checkpoint(name, tmp_path):
    checkpoint, params, _, _, _ = golden(name)
    hf.export(tmp_path / 'out', params, checkpoint)
    stored = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
    first = safetensors.numpy.load_file(GOLDENS / name / 'model.safetensors')
    assert {k for k in first.keys() - stored.keys() if 'classifier' not in k} <= {
        'embeddings.mask_token', 'resnet.embedder.embedder.normalization.num_batches_tracked'}
    for key, tensor in stored.items():
        np.testing.assert_array_equal(tensor, first[key])


@pytest.mark.parametrize('name', NAMES)
def test_each_parameter_is_another_tensor_of_the_checkpoint(name):
    checkpoint, start, flat = golden(name)[0], 0, {}
    for path, shape in hf.expected(checkpoint.config).items():
        flat[path] = np.arange(start, start + np.prod(shape)).reshape(shape)
        start += np.prod(shape)
    tensors = hf.to_tensors(checkpoint, flax.traverse_util.unflatten_dict(flat, sep='.'))
    numbers = np.concatenate([x.ravel() for x in tensors.values()])
    assert len(numbers) == len(np.unique(numbers)) == start


def test_statistics_of_batch_norms_are_not_trained():
    gradients = flax.traverse_util.flatten_dict(golden('resnet-basic')[4], sep='/')
    still = {k for k, v in gradients.items() if not np.any(v)}
    assert still == {k for k in gradients if k.endswith(('/mean', '/variance'))} and len(still) == 2 * 8


def test_an_image_does_not_depend_on_its_batch():
    module = resnet.ResNet(images.UNTRAINED['resnet-s'])
    x = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    params = module.init(jax.random.key(0), x)
    close(module.apply(params, x).hidden[:1], module.apply(params, x[:1]).hidden, 1e-5, 'alone')


def cubic_by_hand(values, new):
    """PyTorch's bicubic along one axis, one point at a time."""
    old, out = len(values), []
    for i in range(new):
        at = (i + .5) * old / new - .5
        total = 0.
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            d = abs(at - j)
            weight = (1.25 * d - 2.25) * d * d + 1 if d <= 1 else ((-.75 * d + 3.75) * d - 6) * d + 3
            total += weight * values[min(max(j, 0), old - 1)]
        out.append(total)
    return np.array(out)


@pytest.mark.parametrize('old, new', [(4, 7), (7, 4), (5, 5), (3, 14), (1, 3)])
def test_positions_are_interpolated_by_cubic_convolution(old, new):
    values = np.random.default_rng(0).normal(size=old)
    close(vit.cubic(old, new) @ values, cubic_by_hand(values, new), 1e-6, 'values')
    close(vit.cubic(old, new).sum(1), np.ones(new), 1e-6, 'constants stay')
    if old == new:
        close(vit.cubic(old, new), np.eye(old), 1e-6, 'nothing to do')


def test_patches_are_those_of_the_image():
    x = np.arange(2 * 9 * 7 * 3).reshape(2, 9, 7, 3)
    found = np.asarray(vit.patches(x, 3))
    assert found.shape == (2, 3, 2, 3, 3, 3)
    np.testing.assert_array_equal(found[1, 2, 1], x[1, 6:9, 3:6])


@pytest.mark.parametrize('family', families.FAMILIES)
def test_what_a_config_leaves_out_is_as_in_transformers(family):
    raw = {'model_type': family} | ({} if family == 'resnet' else NUMBERS)
    stated = json.loads(transformers.AutoConfig.for_model(**raw).to_json_string(use_diff=False))
    assert configure(raw, families.FAMILIES) == configure(stated, families.FAMILIES)


@pytest.mark.parametrize('name, place, wanted', [
    ('vit-pooled', 'pooled', lambda w: w['pooled']), ('vit-pooled', '', lambda w: w['hidden'][:, 0]),
    ('vit-pooled', 'mean', lambda w: w['hidden'][:, 1:].mean(1)), ('dinov2', 'pooled', lambda w: w['hidden'][:, 0]),
    ('resnet-basic', '', lambda w: w['pooled']), ('resnet-basic', 'pooled', lambda w: w['hidden'].mean(1))])
def test_what_the_head_reads(name, place, wanted):
    """Pixels are scaled so that the network sees the golden's images, one number of them apart."""
    model = get(GOLDENS / name, task(*golden(name)[2]['images'].shape[1:3]), read_out=place)
    mean, deviation = (np.array(x) for x in images.IMAGENET)
    pixels = ((golden(name)[2]['images'] * deviation + mean) * 255).astype(np.float32)
    found = model.featurize(model.frozen(None), {'images': pixels})
    close(found, wanted(golden(name)[2]), 1e-4, place)


def test_pixels_are_scaled_as_the_model_was_trained(tmp_path):
    folder, _ = copy_of('resnet-basic', tmp_path)
    x = task().pool.inputs
    first = get(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps({'image_mean': [0, 0, 0], 'image_std': [1, 2, 4]}))
    second = get(folder)
    assert first.key != second.key
    module, _ = hf.module_of(hf.read(folder).config)
    direct = module.apply({'params': hf.load(folder)}, x['images'] / np.float32(255) / np.array([1, 2, 4], np.float32))
    close(second.featurize(second.frozen(None), x), direct.pooled, 1e-5, 'scaled')
    for bad in ({'image_mean': [0, 0]}, {'image_std': [1, 0, 1]}, {'image_std': 'x'}, {'rescale_factor': 1},
                {'image_mean': [0, float('nan'), 0]}):
        (folder / 'preprocessor_config.json').write_text(json.dumps(bad))
        with pytest.raises(WeightsError, match=f'preprocessor_config.json: .*{next(iter(bad))}'):
            get(folder)


@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_a_vision_transformer_is_trained_in_other_modes(mode):
    model = get(GOLDENS / 'dinov2', task(9, 17), mode=mode, **{'lora.rank': 2} if mode == 'lora' else {})
    params = model.init(jax.random.key(0), model.load(None) if mode == 'full' else None)
    frozen, x = model.frozen(None), task(9, 17).pool.inputs

    def loss(params):
        head = jax.tree.map(lambda p: p + .1 * loss_weights(p.shape), params['head'])
        return model.apply(params | {'head': head}, x, frozen).sum()
    gradients = flax.traverse_util.flatten_dict(jax.grad(loss)(params), sep='/')
    touched = {k for k, v in gradients.items() if np.any(v)}
    assert any('layers/mlp' in k for k in touched) and any('layers/attention/query' in k for k in touched)


def test_half_precision_is_near():
    x = task(9, 17).pool.inputs
    whole, half = (get(GOLDENS / 'dinov2', task(9, 17), dtype=d) for d in ('float32', 'bfloat16'))
    assert whole.key != half.key
    a, b = (np.asarray(m.featurize(m.frozen(None), x)) for m in (whole, half))
    assert 0 < np.abs(a - b).max() < .1 * np.abs(a).max()


def test_layers_cut_a_vision_transformer():
    model = get(GOLDENS / 'vit', layers=1)
    assert model.read < get(GOLDENS / 'vit').read
    with pytest.raises(ConfigError, match=r'student\.layers: 3, expected at most the 2'):
        get(GOLDENS / 'vit', layers=3)
    with pytest.raises(ConfigError, match=r'student\.layers: 1, expected at most the 0'):
        get(GOLDENS / 'resnet-basic', layers=1)


def test_what_does_not_go_together():
    for fields, said in (({'read_out': 'first'}, "student.read_out: 'first', expected one of mean, pooled of a resnet"),
                         ({'mode': 'lora'}, 'student.lora.targets: .* matches none'),
                         ({'dtype': 'bfloat16'}, "student.dtype: 'bfloat16'")):
        with pytest.raises(ConfigError, match=said):
            get(GOLDENS / 'resnet-basic', **fields)
    with pytest.raises(WeightsError, match=r'vit: missing tensor .pooler\.dense\.weight'):
        get(GOLDENS / 'vit', read_out='pooled')
    with pytest.raises(ConfigError, match=r'task\.size: images of 3 x 8 pixels, expected at least one patch of 4 x 4'):
        get(GOLDENS / 'vit', task(3, 8))
    with pytest.raises(WeightsError, match='bert reads texts, expected a model of images: one of vit, dinov2, resnet'):
        get(GOLDENS.parent / 'goldens' / 'bert')
    texts = Examples({'text': np.array([['a']] * 8, object)}, np.zeros(8, np.int32), np.arange(8))
    with pytest.raises(WeightsError, match='vit reads images, expected a language model'):
        get(GOLDENS / 'vit', Dataset('texts', 2, texts, texts))
    with pytest.raises(ConfigError, match=r"student\.read_out: 'pooled', expected one of last, first, mean"):
        get(GOLDENS.parent / 'goldens' / 'bert', Dataset('texts', 2, texts, texts), read_out='pooled')
    with pytest.raises(ConfigError, match="'vit-s' reads images, but task 'texts' has none"):
        get('vit-s', Dataset('texts', 2, texts, texts), mode='full')
    with pytest.raises(ConfigError, match='nothing pretrained to freeze'):
        get('resnet-xs').frozen(None)


@pytest.mark.parametrize('name, config, said', [
    ('vit', {'patch_size': [4, 3]}, 'patch_size'), ('vit', {'patch_size': 16}, 'image_size: 12'),
    ('vit', {'num_channels': 1}, 'num_channels: 1'), ('vit', {'hidden_size': 0}, 'hidden_size: 0'),
    ('vit', {'num_attention_heads': 3}, 'num_attention_heads: 3 does not divide'),
    ('vit', {'image_size': 2**20}, 'image_size'),
    ('vit', {'pooler_act': 'relu'}, 'pooler_act'), ('vit', {'hidden_act': 'mish'}, "hidden_act: 'mish'"),
    ('dinov2', {'use_swiglu_ffn': True}, 'use_swiglu_ffn'),
    ('dinov2', {'architectures': ['Dinov2Thing']}, 'Dinov2Thing'),
    ('resnet-basic', {'layer_type': 'other'}, "layer_type: 'other'"),
    ('resnet-basic', {'depths': [1]}, 'depths: 1 stages'),
    ('resnet-basic', {'depths': [1, 'x']}, "depths: 'x'"),
    ('resnet-basic', {'hidden_sizes': []}, 'hidden_sizes: 0 stages'),
    ('resnet-basic', {'hidden_sizes': [4, 10**9]}, 'hidden_sizes: 1000000000'),
    ('resnet-bottleneck', {'hidden_sizes': [2, 8]}, 'at least 4'),
    ('resnet-basic', {'depths': [300, 300]}, 'depths: 600 blocks'),
    ('resnet-basic', {'hidden_sizes': [4, 60000]}, 'its sizes make [0-9]+ parameters')])
def test_configs_that_we_cannot_follow_are_refused_by_name(name, config, said, tmp_path):
    folder, _ = copy_of(name, tmp_path)
    write(folder, **config)
    with pytest.raises(WeightsError, match=said) as caught:
        hf.read(folder)
    assert str(folder) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('name, key', [
    ('resnet-basic', 'resnet.encoder.stages.1.layers.0.shortcut.normalization.running_var'),
    ('vit-pooled', 'embeddings.position_embeddings'), ('dinov2', 'encoder.layer.1.layer_scale2.lambda1')])
def test_damaged_folders_are_refused_in_one_line(name, key, tmp_path):
    folder, tensors = copy_of(name, tmp_path)
    plain = key.removeprefix('resnet.')
    for change, said in (({k: v for k, v in tensors.items() if k != key}, f"missing tensor '{plain}'"),
                         (tensors | {key: tensors[key][..., :-1].copy()}, f"tensor '{key}' has shape"),
                         (tensors | {key + '2': tensors[key]}, f"unexpected tensor '{key}2'")):
        write(folder, change)
        with pytest.raises(WeightsError) as caught:
            hf.read(folder)
        assert said in str(caught.value)


@pytest.mark.parametrize('name', images.UNTRAINED)
def test_untrained_networks_start_at_the_shares_and_differ_by_seed(name):
    model = get(name, task(32, 32), mode='full')
    one, two = (model.init(jax.random.key(i)) for i in (0, 1))
    x = task(32, 32).pool.inputs
    np.testing.assert_array_equal(model.apply(one, x), np.zeros((8, 3)))
    a, b = (np.asarray(model.backbone().featurize(p['backbone'], x)) for p in (one, two))
    assert np.isfinite(a).all() and .01 < a.std() < 10 and np.abs(a - b).max() > .01


def test_untrained_networks_have_no_read_out():
    with pytest.raises(ConfigError, match=r"student\.read_out: 'mean', but 'vit-s'"):
        get('vit-s', task(32, 32), mode='full', read_out='mean')


def colours(path, n=240):
    """Images of noise that is red or blue: what kernels drawn at random tell apart."""
    label = np.arange(n) % 2
    colour = (60 * (2 * label - 1))[:, None] * np.array([1, 0, -1])
    noise = np.random.default_rng(0).normal(0, 60, (n, 12, 12, 3))
    np.savez(path, image=np.clip(128 + colour[:, None, None] + noise, 0, 255).astype(np.uint8), label=label)
    return str(path)


def configured(kind, path, **changes):
    c = vision_images.get_config(kind)
    c.task.path, c.task.size, c.seeds, c.report.html = path, 0, (0,), False
    c.update_from_flattened_dict(changes)
    return c


@pytest.mark.long
def test_probes_of_images_from_end_to_end(tmp_path):
    c = configured('pretrained', colours(tmp_path / 'f.npz'), **{
        'teacher.model': str(GOLDENS / 'vit'), 'student.model': str(GOLDENS / 'resnet-bottleneck'),
        'train.batch_size': 32})
    found = experiment.run(c, tmp_path / 'w', io.StringIO())
    assert found['task']['name'] == 'images' and found['students'][0]['model'] == 'resnet-bottleneck'
    assert found['ceiling']['accuracy']['mean'] > .8 and found['weak']['accuracy']['mean'] > .7
    assert len(list((tmp_path / 'w' / 'store').glob('features-*'))) == 4


@pytest.mark.long
def test_built_in_networks_from_end_to_end(tmp_path):
    c = configured('scratch', colours(tmp_path / 'f.npz'), **{'train.epochs': 6, 'student.model': 'vit-s',
                                                                       'train.batch_size': 16})
    found = experiment.run(c, tmp_path / 'w', io.StringIO())
    assert found['ceiling']['accuracy']['mean'] > .75 and found['weak']['accuracy']['mean'] > .75


def test_a_config_of_an_unknown_kind():
    with pytest.raises(ConfigError, match=r"vision_images\.py:x: unknown, expected 'pretrained' or 'scratch'"):
        vision_images.get_config('x')


@pytest.mark.parametrize(('name', 'places'), [('vit-s', 65), ('resnet-s', (256 + 64 + 16) / 3)])
def test_how_many_places_an_image_has(name, places):
    """For estimates of time: patches and the class token; of a ResNet the mean of its stages' maps."""
    pool = Examples({'images': np.zeros((1, 32, 32, 3), np.uint8)}, np.zeros(1, np.int32), np.arange(1))
    found = images.untrained(name, 'student.model', Dataset('x', 2, pool, pool), None)
    assert found.positions == round(places)
