"""Text columns of an artifact come back as they were, take little memory, and nothing is ever pickled."""
import json
import pickle
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from w2s_jax import data
from w2s_jax.errors import StoreError
from w2s_jax.store import arrays as disk
from w2s_jax.store.artifacts import Artifact, Store, sha256

WORDS = np.array([['naïve', ''], ['two words', '𝄞'], ['x' * 1000, 'nul \0 and \r\n']], object)
MANY = 100_000


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / 'store')


def save(store, **columns) -> Artifact:
    return store.save({'kind': 'table'}, {}, columns)


def there(store) -> list[str]:
    return [p.name for p in store.folder.iterdir() if p.name != 'pending']


@pytest.mark.parametrize(('given', 'expected'), [
    (WORDS, WORDS), (WORDS[:, 0], WORDS[:, 0]), (disk.Texts(WORDS), WORDS), (disk.Texts(WORDS[:, 1]), WORDS[:, 1]),
    (['a', ''], ['a', '']), (pa.array(['a', 'ü']), ['a', 'ü']), (pa.chunked_array([['a'], ['b']]), ['a', 'b']),
    (pa.array([['a', 'b'], ['', 'c']], pa.list_(pa.large_string())), [['a', 'b'], ['', 'c']]),
    (WORDS.astype(np.dtypes.StringDType()), WORDS), (WORDS[:0], WORDS[:0]), (np.empty(0, object), []),
    (np.empty((3, 0), object), np.empty((3, 0))), (disk.Texts([]), np.empty((0, 1))),
], ids=range(13))
def test_texts_come_back_as_they_were(store, given, expected):
    found = save(store, words=given, numbers=np.arange(5)).arrays
    assert found.keys() == {'words', 'numbers'} and found['words'].dtype == object
    assert found['words'].shape == np.shape(expected) and found['words'].tolist() == np.asarray(expected).tolist()
    np.testing.assert_array_equal(found['numbers'], np.arange(5))


def test_columns_need_not_be_equally_long(store):
    found = save(store, a=WORDS, b=WORDS[:1, 0], none=WORDS[:0]).arrays
    for name, expected in (('a', WORDS), ('b', WORDS[:1, 0]), ('none', WORDS[:0])):
        assert found[name].shape == expected.shape and found[name].tolist() == expected.tolist()


def test_they_are_arrow_strings_and_counted_in_done(store):
    path = save(store, words=WORDS, numbers=np.arange(5)).path
    assert parquet.read_table(path / 'texts.parquet')['words'].to_pylist() == WORDS.tolist()
    assert np.load(path / 'predictions.npz').files == ['numbers']
    with open(path / 'texts.parquet', 'rb') as stream:
        assert json.loads((path / 'DONE').read_text())['texts.parquet'] == sha256(stream)


def test_without_texts_there_is_no_file_of_them(store):
    found = save(store, numbers=np.arange(5))
    assert not (found.path / 'texts.parquet').exists() and found.arrays.keys() == {'numbers'}


@pytest.mark.parametrize('bad', [
    np.array([{'an': 'object'}], object), np.array(['a', 1], object), np.array([None], object), [{}],
    np.zeros(2, [('a', object)]), np.array(['\ud800'], object), np.array('a', object), np.full((1, 1, 1), 'a', object)],
    ids=range(8))
def test_objects_are_refused_before_anything_is_written(store, bad):
    with pytest.raises(StoreError, match=r"^array 'extra': holds objects, expected numbers, or texts .*$") as e:
        save(store, top=np.arange(3), extra=bad)
    assert '\n' not in str(e.value) and there(store) == []


@pytest.mark.parametrize('bad', [pa.array([1]), pa.array(['a', None]), pa.array([['a'], ['b', 'c']]),
                                 pa.array([['a'], None]), pa.array([['a', None]])], ids=range(5))
def test_arrow_arrays_of_anything_else_are_refused_too(store, bad):
    with pytest.raises(StoreError, match=r"^array 'extra': .*, expected strings, .*no nulls$"):
        save(store, extra=bad)
    assert there(store) == []


@pytest.mark.long
def test_many_texts_hold_some_rows_at_a_time(store):
    texts = disk.Texts((f'{i} {"é" * (i % 300)}', '') for i in range(MANY))
    whole = len(texts.content[0])
    tracemalloc.start()
    found = save(store, words=texts).arrays['words']
    ends = [found[0].tolist(), found[MANY - 1].tolist()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole > 25e6 and peak < whole / 4
    assert isinstance(found, disk.Texts) and found.shape == (MANY, 2)
    assert ends == [texts[0].tolist(), texts[MANY - 1].tolist()]
    assert data.fingerprint(found) == data.fingerprint(texts)
    assert found[np.array([[7], [70_001]]), 0].tolist() == texts[np.array([[7], [70_001]]), 0].tolist()
    assert pickle.loads(pickle.dumps(found))[12_345].tolist() == texts[12_345].tolist()
    assert {p.name for p in store.folder.iterdir()} == {'pending', save(store, top=np.arange(3)).path.name}


def flip(path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('damage', [lambda p: flip(p, .5), lambda p: flip(p, .9), lambda p: p.write_bytes(b'PAR1junk'),
                                    lambda p: p.unlink()], ids=range(4))
@pytest.mark.parametrize('many', [3, 60_000])
def test_damage_is_an_error_in_one_line(store, damage, many):
    path = save(store, words=disk.Texts(str(i) * 30 for i in range(many))).path
    damage(path / 'texts.parquet')
    with pytest.raises(StoreError) as e:
        _ = Artifact(path).arrays['words'][:]
    assert str(e.value).startswith(f'{path}/texts.parquet: ') and '\n' not in str(e.value)


@pytest.mark.parametrize('where', np.linspace(0, .99, 25).round(2))
def test_damage_never_makes_other_texts(store, where):
    found = save(store, words=WORDS)
    flip(found.path / 'texts.parquet', where)
    try:
        assert found.arrays['words'].tolist() == WORDS.tolist()
    except StoreError as e:
        assert str(e).startswith(f'{found.path}/texts.parquet: ')


def test_rows_of_different_widths_are_no_texts():
    with pytest.raises(ValueError, match=r'row 2 has shape \(1,\), the rows before \(2,\)'):
        disk.Texts([*WORDS[:2].tolist(), ['alone']])
