"""Hugging Face folders: equality with transformers by golden files (tests/parity), round trips, and bad input."""
import functools
import json
import pathlib
import shutil
import subprocess
import sys

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import transformers

from w2s_jax.errors import WeightsError
from w2s_jax.models import hf
from w2s_jax.models.families import FAMILIES, configure
from w2s_jax.models.transformer import Transformer, language_logits

GOLDENS = pathlib.Path(__file__).parents[1] / 'parity' / 'goldens'
NAMES = sorted(p.name for p in GOLDENS.iterdir() if p.is_dir())
SHARED = pathlib.Path(__file__).parents[3] / 'shared' / 'assets' / 'models'
CACHE = pathlib.Path('~/.cache/w2s_assets/models').expanduser()


@functools.cache
def golden(name):
    """(checkpoint, parameters, head's table or None, what transformers computes)."""
    folder = GOLDENS / name
    checkpoint = hf.read(folder)
    head = hf.load_head(folder) if checkpoint.config.causal else None
    return checkpoint, hf.load(folder), head, dict(np.load(folder / 'expected.npz'))


def outputs(checkpoint, params, head, tokens, length):
    """{hidden, layers, logits}, zero at padding, as in tests/parity/make_goldens.py."""
    c = checkpoint.config
    hidden, layers = Transformer(c).apply({'params': params}, tokens, length, every_layer=True)
    found = {'hidden': hidden, 'layers': layers[:-1]}
    if c.causal:
        found['logits'] = language_logits(hidden, params['tokens']['embedding'] if head is None else head, c)
    real = (jnp.arange(tokens.shape[1])[None] < length[:, None])[..., None]
    return {k: jnp.where(real if v.ndim == 3 else real[None], v, 0) for k, v in found.items()}


def loss_weights(shape):
    return np.sin(1 + 7. * np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


@functools.cache
def computed(name):
    """(what `outputs` gives, the gradients of one scalar of it), in one program compiled in a hurry."""
    checkpoint, params, head, want = golden(name)

    def loss(params):
        found = outputs(checkpoint, params, head, want['tokens'], want['length'])
        return sum(jnp.sum(found[k] * loss_weights(found[k].shape)) for k in ('hidden', 'logits') if k in found), found
    program = jax.jit(jax.grad(loss, has_aux=True), compiler_options={
        'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True})
    gradients, found = program(params)
    return found, gradients


def close(found, wanted, tolerance, what):
    """Equal within `tolerance` of the largest number, or of 1."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max()), err_msg=what)


def copy_of(name, tmp_path):
    """A golden's folder that a test may damage, and its tensors."""
    folder = tmp_path / name
    shutil.copytree(GOLDENS / name, folder)
    path = folder / 'model.safetensors'
    return folder, safetensors.numpy.load_file(path) if path.exists() else {}


def write(folder, tensors=None, **config):
    if tensors is not None:
        safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
    raw = json.loads((folder / 'config.json').read_text()) | config
    (folder / 'config.json').write_text(json.dumps(raw))


@pytest.mark.parametrize('name', NAMES)
def test_hidden_states_and_logits_equal_those_of_transformers(name):
    want, found = golden(name)[3], computed(name)[0]
    keys = [k for k in ('hidden', 'layers', 'logits') if k in want]
    assert 'hidden' in keys and ('logits' in keys) == ('logits' in found)
    for key in keys:
        close(found[key], want[key], 1e-4, key)


@pytest.mark.parametrize('name', NAMES)
def test_gradients_equal_those_of_transformers(name):
    checkpoint, _, _, want = golden(name)
    found = hf.to_tensors(checkpoint, computed(name)[1])
    wanted = {k.removeprefix('grad:'): v for k, v in want.items() if k.startswith('grad:')}
    compared = [key for key in wanted if key in found]
    assert len(compared) >= 8
    for key in compared:
        scale = np.abs(wanted[key]).max()
        np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=1e-3 * scale + 1e-5, err_msg=key)


@pytest.mark.parametrize('name', NAMES)
def test_export_gives_back_the_checkpoint(name, tmp_path):
    checkpoint, params, head, _ = golden(name)
    hf.export(tmp_path / 'out', params, checkpoint, head=head)
    again = hf.read(tmp_path / 'out')
    keys = {t.key for t in again.tensors.values()}
    assert keys <= {t.key for t in checkpoint.tensors.values()} and again.config == checkpoint.config
    ignored = {k for k in checkpoint.raw if k in ('dtype', 'torch_dtype')}
    assert all(again.raw[k] == v for k, v in checkpoint.raw.items() if k not in ignored)
    jax.tree.map(np.testing.assert_array_equal, hf.load(tmp_path / 'out'), params)
    stored = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
    for file in (checkpoint.folder).glob('*.safetensors'):
        for key, tensor in safetensors.numpy.load_file(file).items():
            if key in stored:
                np.testing.assert_array_equal(stored[key], tensor.astype(np.float32), err_msg=key)


def test_each_parameter_is_another_tensor_of_the_checkpoint():
    """Numbers that are all different come back as they were: nothing is read twice, or from the wrong place."""
    for name in NAMES:
        checkpoint, _, _, _ = golden(name)
        shapes, start, flat = hf.expected(checkpoint.config), 0, {}
        for path, shape in shapes.items():
            flat[path] = np.arange(start, start + np.prod(shape)).reshape(shape)
            start += np.prod(shape)
        tensors = hf.to_tensors(checkpoint, flax.traverse_util.unflatten_dict(flat, sep='.'))
        numbers = np.concatenate([x.ravel() for x in tensors.values()])
        assert len(numbers) == len(np.unique(numbers)) == start


def test_sharded_equals_single(tmp_path):
    folder, _ = copy_of('llama', tmp_path)
    tensors = {k: v for file in folder.glob('*.safetensors') for k, v in safetensors.numpy.load_file(file).items()}
    for file in folder.glob('model*'):
        file.unlink()
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
    jax.tree.map(np.testing.assert_array_equal, hf.load(folder), golden('llama')[1])
    assert hf.fingerprint(folder) != hf.fingerprint(GOLDENS / 'llama')


def test_bfloat16_parameters_are_the_rounded_ones():
    params = hf.load(GOLDENS / 'qwen3', dtype='bfloat16')
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(ml_dtypes.bfloat16)), params,
                 golden('qwen3')[1])


def test_large_tensors_are_read_in_parts_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr('w2s_jax.models.tensors._CHUNK', 3 * 16 * 4)
    for name in ('gpt2', 'llama-old'):
        jax.tree.map(np.testing.assert_array_equal, hf.load(GOLDENS / name), golden(name)[1])


_PEAK = """
import pathlib, sys
sys.path.insert(0, {root!r})
import numpy as np
import jax
from w2s_jax.models import hf
hf.load(pathlib.Path({small!r}))
status = lambda key: int(next(l for l in open('/proc/self/status') if l.startswith(key)).split()[1]) * 1024
pathlib.Path('/proc/self/clear_refs').write_text('5')
before = status('VmRSS')
hf.read(pathlib.Path({folder!r}))
params = hf.load(pathlib.Path({folder!r}))
print(status('VmHWM') - before, sum(x.nbytes for x in jax.tree.leaves(params)))
"""


@pytest.mark.long
@pytest.mark.skipif(not pathlib.Path('/proc/self/clear_refs').exists(), reason='needs /proc/self/clear_refs')
def test_loading_peaks_at_1_3_times_the_parameters(tmp_path):
    folder = CACHE / 'SmolLM2-135M-Instruct-d6'
    folder = folder if folder.exists() else SHARED / 'paraphrase-MiniLM-L3-v2'
    if not folder.exists():
        pytest.skip(f'{folder} is absent')
    code = _PEAK.format(root=str(pathlib.Path(__file__).parents[2]), small=str(GOLDENS / 'bert'), folder=str(folder))
    peak, size = map(int, subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                                         timeout=120).stdout.split())
    assert size <= peak <= 1.3 * size, (peak, size)


def real_names():
    return ['paraphrase-MiniLM-L3-v2', 'all-MiniLM-L6-v2', 'SmolLM2-135M-Instruct-d6',
            pytest.param('SmolLM2-135M-Instruct', marks=pytest.mark.slow)]


@pytest.mark.parametrize('name', real_names())
def test_real_models_agree(name):
    folder = next((p / name for p in (CACHE, SHARED) if (p / name / 'model.safetensors').exists()), None)
    if folder is None:
        pytest.skip(f'no weights in {CACHE / name} or {SHARED / name}')
    want = np.load(GOLDENS / 'real.npz')
    tokens, length, hidden = (want[f'{name}:{k}'] for k in ('tokens', 'length', 'hidden'))
    checkpoint = hf.read(folder)
    with jax.default_matmul_precision('highest'):
        found = outputs(checkpoint, hf.load(folder), None, tokens, length)['hidden']
    close(found[..., :32], hidden, 1e-4, name)


def test_fingerprint_is_of_the_content(tmp_path):
    folder, tensors = copy_of('bert', tmp_path)
    first = hf.fingerprint(folder)
    assert first == hf.fingerprint(GOLDENS / 'bert')
    (folder / 'notes.txt').write_text('not part of the model')
    assert hf.fingerprint(folder) == first
    (folder / 'tokenizer.json').write_text('{}')
    with_tokenizer = hf.fingerprint(folder)
    tensors['bert.embeddings.LayerNorm.bias'][0] += 1
    write(folder, tensors)
    assert len({first, with_tokenizer, hf.fingerprint(folder)}) == 3


def test_read_out_follows_the_model(tmp_path):
    assert hf.read_out(golden('gpt2')[0]) == 'last'
    assert hf.read_out(golden('roberta')[0]) == 'first'
    folder, _ = copy_of('bert', tmp_path)
    write(folder, _name_or_path='somebody/MiniLM-L6-H384-uncased')
    assert hf.read_out(hf.read(folder)) == 'mean'
    (folder / '1_Pooling').mkdir()
    for content, place in (({'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': False}, 'first'),
                           ({'pooling_mode_cls_token': False, 'pooling_mode_mean_tokens': True}, 'mean'),
                           ({'pooling_mode': 'lasttoken', 'word_embedding_dimension': 16}, 'last')):
        (folder / '1_Pooling' / 'config.json').write_text(json.dumps(content))
        assert hf.read_out(hf.read(folder)) == place
    (folder / '1_Pooling' / 'config.json').write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(WeightsError, match='max_tokens'):
        hf.read_out(hf.read(folder))


@pytest.mark.parametrize('family', FAMILIES)
def test_what_a_config_leaves_out_is_as_in_transformers(family):
    sizes = {'vocab_size': 40, 'hidden_size': 128, 'num_hidden_layers': 12, 'num_attention_heads': 16,
             'intermediate_size': 20, 'ffn_dim': 20, 'max_position_embeddings': 24, 'n_embd': 128, 'n_layer': 12,
             'n_head': 16, 'n_positions': 24}
    full = transformers.AutoConfig.for_model(family).to_dict()
    raw = {k: v for k, v in sizes.items() if k in full} | {'model_type': family}
    if family in ('qwen2', 'qwen3'):  # there 32, whatever the number of heads
        raw['num_key_value_heads'] = 8
    stated = json.loads(transformers.AutoConfig.for_model(**raw).to_json_string(use_diff=False))
    assert configure(raw | {'head_dim': stated.get('head_dim')}) == configure(stated)
    assert configure(raw).per_head == configure(stated).per_head
    assert FAMILIES[family].tied == stated['tie_word_embeddings']


def test_max_length_leaves_out_rows_that_are_not_positions():
    assert hf.max_length(golden('roberta')[0]) == 22 and hf.max_length(golden('opt')[0]) == 24


@pytest.mark.parametrize('name, config, said', [
    ('bert', {'model_type': 'mpnet'}, 'mpnet.*bert, roberta, gpt2.*gemma3_text'),
    ('bert', {'model_type': ['bert']}, 'unknown'),
    ('bert', {'model_type': 'bert', 'architectures': ['MysteryModel']}, 'MysteryModel'),
    ('bert', {'hidden_act': 'mish'}, "hidden_act: 'mish'"),
    ('bert', {'position_embedding_type': 'relative_key'}, 'position_embedding_type.*relative_key'),
    ('bert', {'is_decoder': True}, 'is_decoder'),
    ('bert', {'hidden_size': None}, 'hidden_size is missing'),
    ('bert', {'hidden_size': '16'}, "hidden_size: '16'"),
    ('bert', {'num_hidden_layers': 0}, 'num_hidden_layers'),
    ('bert', {'num_attention_heads': 3}, 'num_attention_heads: 3 does not divide hidden_size'),
    ('bert', {'quantization_config': {'bits': 4}}, 'quantization_config'),
    ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx'),
    ('opt', {'layer_norm_elementwise_affine': False}, 'layer_norm_elementwise_affine'),
    ('llama', {'rope_parameters': {'rope_type': 'yarn', 'factor': 2.}}, "rope_type: 'yarn'"),
    ('llama-old', {'rope_scaling': {'type': 'dynamic', 'factor': 2.}}, "rope_type: 'dynamic'"),
    ('llama-old', {'rope_scaling': {'type': 'linear'}}, 'factor is missing'),
    ('llama-old', {'rope_scaling': {'type': 'linear', 'factor': 0.}}, 'above 0'),
    ('llama-old', {'partial_rotary_factor': .5}, 'partial_rotary_factor'),
    ('mistral', {'layer_types': ['full_attention']}, 'layer_types'),
    ('qwen2', {'layer_types': ['chunked_attention'] * 3}, 'chunked_attention'),
    ('qwen2', {'layer_types': ['full_attention']}, 'layer_types: 1 entries, expected 3'),
    ('gemma3', {'rope_parameters': {'full_attention': 3}}, 'full_attention: 3'),
    ('gemma3', {'rope_parameters': {'sliding_attention': {'rope_type': 'linear', 'factor': 2.}}}, 'sliding_attention'),
    ('gemma3', {'use_bidirectional_attention': True}, 'use_bidirectional_attention'),
])
def test_configs_that_we_cannot_follow_are_refused_by_name(name, config, said, tmp_path):
    folder, _ = copy_of(name, tmp_path)
    write(folder, **config)
    with pytest.raises(WeightsError, match=said) as caught:
        hf.read(folder)
    assert str(folder) in str(caught.value) and '\n' not in str(caught.value)


def damage(folder, tensors, how):
    """Does one bad thing to a copy of 'gpt2-old'."""
    path, key = folder / 'model.safetensors', 'h.1.mlp.c_fc.weight'
    if how == 'missing':
        write(folder, {k: v for k, v in tensors.items() if k != key})
    elif how == 'extra':
        write(folder, tensors | {'h.2.mlp.c_fc.weight': tensors[key]})
    elif how == 'decoy':
        write(folder, tensors | {'other.lm_head.weight': tensors[key]})
    elif how == 'misshapen':
        write(folder, tensors | {key: np.ascontiguousarray(tensors[key].T)})
    elif how == 'integers':
        write(folder, tensors | {key: tensors[key].astype(np.int32)})
    elif how == 'twice':
        write(folder, tensors | {f'transformer.{key}': tensors[key]})
    elif how == 'not finite':
        write(folder, tensors | {key: np.full_like(tensors[key], np.nan)})
    elif how == 'truncated':
        path.write_bytes(path.read_bytes()[:-100])
    elif how == 'empty':
        path.write_bytes(b'')
    elif how == 'pickle':
        path.rename(folder / 'pytorch_model.bin')
    elif how == 'no config':
        (folder / 'config.json').unlink()
    elif how == 'broken config':
        (folder / 'config.json').write_text('{"model_type": ')


@pytest.mark.parametrize('how, said', [
    ('missing', r"missing tensor 'h\.1\.mlp\.c_fc\.weight'"),
    ('extra', r"unexpected tensor 'h\.2\.mlp\.c_fc\.weight'"),
    ('decoy', r"unexpected tensor 'other\.lm_head\.weight'"),
    ('misshapen', r"'h\.1\.mlp\.c_fc\.weight' has shape \(20, 16\), expected \(16, 20\)"),
    ('integers', r"'h\.1\.mlp\.c_fc\.weight' is not of a type"), ('twice', 'are the same parameter'),
    ('not finite', r"'h\.1\.mlp\.c_fc\.weight' holds numbers that are not finite"),
    ('truncated', 'not a readable safetensors file'), ('empty', 'not a readable safetensors file'),
    ('pickle', 'pickle can run code'), ('no config', 'no such file'), ('broken config', 'not readable as JSON')])
def test_damaged_folders_are_refused_in_one_line(how, said, tmp_path):
    folder, tensors = copy_of('gpt2-old', tmp_path)
    damage(folder, tensors, how)
    with pytest.raises(WeightsError, match=said) as caught:
        hf.load(folder)
    assert str(folder) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('change, said', [
    (lambda m: m.pop('model.norm.weight'), r"'model\.norm\.weight' is in model-0000"),
    (lambda m: m.update({'model.norm.bias': 'model-00001-of-00003.safetensors'}), 'model.norm.bias'),
    (lambda m: m.update({'model.norm.weight': 'model-00004-of-00003.safetensors'}), '00004.*no such weight file'),
    (lambda m: m.update({'model.norm.weight': '../secret.safetensors'}), 'not the name of a file'),
    (lambda m: m.clear(), 'no weight_map')])
def test_an_index_that_does_not_fit_is_refused(change, said, tmp_path):
    folder, _ = copy_of('llama', tmp_path)
    path = folder / 'model.safetensors.index.json'
    index = json.loads(path.read_text())
    change(index['weight_map'])
    path.write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=said):
        hf.read(folder)


def test_a_head_that_is_not_there_is_named(tmp_path):
    assert hf.load_head(GOLDENS / 'gpt2') is None
    with pytest.raises(WeightsError, match='bert has no next-token head'):
        hf.load_head(GOLDENS / 'bert')
    folder, tensors = copy_of('mistral', tmp_path)
    write(folder, {k: v for k, v in tensors.items() if k != 'lm_head.weight'})
    with pytest.raises(WeightsError, match=r"missing tensor 'lm_head\.weight'"):
        hf.load_head(folder)


def test_export_refuses_what_does_not_fit(tmp_path):
    checkpoint, params, _, _ = golden('qwen3')
    with pytest.raises(WeightsError, match='overwrite'):
        hf.export(GOLDENS / 'qwen3', params, checkpoint)
    with pytest.raises(WeightsError, match=r"missing tensor 'tokens\.embedding'"):
        hf.export(tmp_path, {k: v for k, v in params.items() if k != 'tokens'}, checkpoint)


def test_nothing_here_needs_torch():
    code = 'import sys; import w2s_jax.models.hf; assert not {"torch", "transformers"} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)
