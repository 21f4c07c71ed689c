
"""What is larger than memory should hold stays in files: the same values, read where they are looked at."""
import pickle
import tracemalloc
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from w2s_jax import data
from w2s_jax.errors import StoreError
from w2s_jax.graph import Phase
from w2s_jax.models import tokens
from w2s_jax.models.modes import Model
from w2s_jax.phases import kinds
from w2s_jax.phases.context import Context
from w2s_jax.runtime import sharding
from w2s_jax.store import arrays as disk
from w2s_jax.store.artifacts import Artifact, Store

WORDS = np.array([['naïve', ''], ['two words', '𝄞'], ['x' * 1000, 'last']], object)
BIG = np.arange(2 * disk.LARGE, dtype=np.int32).reshape(-1, 4, 8)


def mapped(array: np.ndarray) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, 'base', None)
    return array is not None


def peak(function) -> int:
    """Bytes that Python and NumPy held at once while it ran; what is mapped does not count."""
    tracemalloc.start()
    function()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_rows_that_were_appended_come_back_mapped_and_leave_no_file(tmp_path):
    growing, rows = disk.Growing(np.int32, tmp_path), np.arange(60).reshape(5, 12)
    for row in rows:
        growing.append(row[None])
    found = growing.array(-1, 3, 4)
    del growing
    np.testing.assert_array_equal(found, rows.reshape(5, 3, 4))
    assert found.dtype == np.int32 and mapped(found) and type(found) is np.ndarray and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='read-only'):
        found[0] = 1
    assert disk.Growing(np.float32, tmp_path).array(-1, 7).shape == (0, 7)


def test_texts_on_disk_are_those_texts(tmp_path):
    texts = disk.Texts(WORDS, tmp_path)
    assert texts.shape == (3, 2) and len(texts) == 3 and texts.dtype == object and not list(tmp_path.iterdir())
    for index in (1, slice(0, 2), slice(None), np.array([2, 0, 0]), np.array([[1], [2]]), np.array([], int)):
        np.testing.assert_array_equal(texts[index], WORDS[index])
        assert texts[index].dtype == object
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(texts))[:], WORDS)
    np.testing.assert_array_equal(texts[:, 1], WORDS[:, 1])
    np.testing.assert_array_equal(np.concatenate([texts, texts]), np.concatenate([WORDS, WORDS]))
    assert texts[2, 1] == 'last' and [row.tolist() for row in texts] == WORDS.tolist()
    with pytest.raises(IndexError):
        texts[3]
    assert len(disk.Texts([])) == 0


def test_data_on_disk_have_the_fingerprint_of_those_in_memory(tmp_path):
    many = np.array([[f'{i} {"é" * (i % 7)}'] for i in range(5000)], object)
    for texts in (WORDS, many):
        assert data.fingerprint(disk.Texts(texts, tmp_path)) == data.fingerprint(texts)
    assert data.fingerprint(WORDS) != data.fingerprint(WORDS[::-1])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / 'store')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_large_arrays_of_an_artifact_are_mapped_and_small_ones_are_not(store, save):
    """np.savez is what every store so far was written with."""
    path = store.save({'kind': 'tokens'}, {}, {'nothing': np.zeros(0)}).path
    arrays = {'small': BIG[:3], 'large': BIG, 'columns': np.asfortranarray(BIG[:, 0]), 'bytes': BIG.astype(np.uint8)}
    save(path / 'predictions.npz', **arrays)
    found = disk.read_npz(path / 'predictions.npz')
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and type(found[name]) is np.ndarray
        assert mapped(found[name]) == (name != 'small' and save is np.savez)


@pytest.mark.parametrize('where', [.3, .6, .99])
def test_damage_inside_a_large_array_is_noticed(store, where):
    path = store.save({'kind': 'tokens'}, {}, {'large': BIG}).path / 'predictions.npz'
    content = bytearray(path.read_bytes())
    content[int(where * len(content)) - 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match='has changed since') as e:
        _ = Artifact(path.parent).arrays
    assert str(path) in str(e.value)
    with pytest.raises(zipfile.BadZipFile):
        disk.read_npz(path)


def test_a_large_pickle_is_never_loaded(store):
    path = store.save({'kind': 'tokens'}, {}, {'x': BIG}).path / 'predictions.npz'
    objects = np.empty(400_000, object)
    objects[:] = [str(i) for i in range(400_000)]
    np.savez(path, x=objects)
    assert path.stat().st_size > 2 * disk.LARGE
    with pytest.raises(ValueError, match='holds objects'):
        disk.read_npz(path)


def test_saving_and_reading_hold_a_block_at_a_time(store, tmp_path):
    growing = disk.Growing(np.int32, tmp_path)
    for _ in range(5):
        growing.append(BIG)
    large = growing.array(-1, 4, 8)
    assert large.nbytes == 5 * BIG.nbytes == 40 * 2**20

    def both():
        found = store.save({'kind': 'tokens'}, {}, {'large': large}).arrays
        assert found['large'].nbytes == large.nbytes
    assert peak(both) < large.nbytes / 2


# The way from texts to labels: of 20 thousand short texts one is long, so that tokens take 40 MB and labels 160 kB.

N, LENGTH, BATCH = 20_000, 512, 100


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('tokenizer')
    tiny.tokenizer(path)
    return path


def short_texts() -> np.ndarray:
    rng = np.random.default_rng(0)
    texts = np.array([[''.join(rng.choice(list('bcdefgh'), rng.integers(1, 9)))] for _ in range(N)], object)
    texts[777, 0] = 'b' * LENGTH
    return texts


def apply(params, inputs, frozen=None):
    """Weights `[2]` times the share of the letter c among the real tokens."""
    real = jnp.arange(inputs['tokens'].shape[-1])[None, None] < inputs['length'][..., None]
    share = (real & (inputs['tokens'] == tiny.CHARACTERS.index('c'))).sum((1, 2)) / inputs['length'][:, 0]
    return params['w'][None] * share[:, None]


def test_texts_become_labels_without_ever_being_in_memory_together(tmp_path, folder, store):
    texts = disk.Texts(short_texts(), tmp_path)
    tokenizer = tokens.load(folder)
    whole, made = N * LENGTH * 4, []

    def encode():
        made.append(tokens.encode(tokenizer, texts, LENGTH, 'end', tmp_path)[0])
    used = peak(encode)
    assert made[0]['tokens'].nbytes == whole and mapped(made[0]['tokens']) and used < whole / 3
    pool = store.save({'kind': 'tokens'}, {}, made.pop())
    identity = {'model': 'tiny', 'weights': ''}
    model = Model('tiny', lambda key, pretrained=None: {'w': jnp.ones(2)}, apply, 2, identity, 1e-3)
    execution = types.SimpleNamespace(eval_batch_size=BATCH, shapes=2, runs='vmap', memory=None, driver='jit')
    context = Context({'teacher': model}, sharding.make_mesh(), execution, lambda *a: None)
    teacher = types.SimpleNamespace(params=lambda: {'w': np.array([1, 2], np.float32)})
    section = {'model': identity, 'labels': 'soft', 'num_classes': 2,
               'hyper': {'seed': 0, 'temperature': 1.0, 'noise': 0.0}}
    phase = Phase('predict', section, {}, 'labels')
    inputs = {'inputs': pool, 'rows': np.arange(N), 'model': teacher}
    found = []

    def label():
        found.extend(kinds.run([phase], [inputs], tmp_path, context=context))
    used = peak(label)
    labels = found[0][1]['labels']
    share = np.array([text.count('c') / len(text) for text in texts[:].ravel()])
    want = np.exp(share[:, None] * [1, 2])
    np.testing.assert_allclose(labels, want / want.sum(1, keepdims=True), atol=1e-5)
    assert used < whole / 3
