"""Features as arrays: every kind of file, who reads what, what is refused, and digits from end to end."""
import io
import os
import pathlib
import re
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sections
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from configs import salient_concept
from configs.paper import vision
from w2s_jax import config as configs
from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import TASKS, array_files

KINDS = ('npz', 'npy', 'parquet')


def arrays(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return {'strong': rng.normal(size=(n, 5)).astype(np.float32), 'weak': rng.normal(size=(n, 2)),
            'label': np.arange(n) % 3}


def write(folder, found, kind='npz') -> str:
    if kind == 'npz':
        np.savez(folder / 'f.npz', **found)
        return str(folder / 'f.npz')
    if kind == 'npy':
        (folder / 'f').mkdir(exist_ok=True)
        for name, array in found.items():
            np.save(folder / 'f' / f'{name}.npy', array)
        return str(folder / 'f')
    pq.write_table(pa.table({k: v.tolist() for k, v in found.items()}), folder / 'f.parquet')
    return str(folder / 'f.parquet')


def load(path, **fields):
    return TASKS['features'].fn(sections.task('features', path=str(path), **fields), lambda line: None)


def refused(path, error=DataError, **fields) -> str:
    with pytest.raises(error) as caught:
        load(path, **fields)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


def in_order(d):
    """Rows of the pool and the test set in the file's order, by their groups."""
    at = np.argsort(np.concatenate([d.pool.group, d.test.group]))
    both = {k: np.concatenate([d.pool.inputs[k], d.test.inputs[k]])[at] for k in d.pool.inputs}
    return both | {'label': np.concatenate([d.pool.truth, d.test.truth])[at]}


@pytest.mark.parametrize('kind', KINDS)
def test_rows_are_as_they_were_written(tmp_path, kind):
    found = arrays()
    d = load(write(tmp_path, found, kind))
    rows = in_order(d)
    np.testing.assert_array_equal(rows['features'], found['strong'])
    np.testing.assert_array_equal(rows['weak'], found['weak'].astype(np.float32))
    np.testing.assert_array_equal(rows['label'], found['label'])
    assert (d.num_classes, len(d.test), d.notes['widths']) == (3, 12, {'features': 5, 'weak': 2})


@pytest.mark.parametrize('kind', KINDS)
def test_classes_that_are_texts_groups_and_weak_labels(tmp_path, kind):
    found = arrays() | {'label': np.array(['b', 'a', 'c'])[np.arange(60) % 3], 'by': np.arange(60) // 6,
                        'said': np.full((60, 3), [.5, .3, .2])}
    d = load(write(tmp_path, found, kind), group='by', given='said')
    assert d.notes['classes'] == ['a', 'b', 'c'] and np.bincount(d.pool.truth).tolist() == [16] * 3
    assert not np.intersect1d(d.pool.group, d.test.group).size
    np.testing.assert_allclose(d.pool.given[0], [.5, .3, .2], rtol=1e-6)
    hard = load(write(tmp_path, found | {'said': np.arange(60) % 3}, kind), given='said')
    assert hard.pool.given.sum(1).tolist() == [1] * 48


@pytest.mark.parametrize('kind', [k for k in KINDS if k != 'parquet'])
def test_weak_labels_of_several_teachers(tmp_path, kind):
    two = np.stack([np.eye(3)[np.arange(60) % 3], np.full((60, 3), 1 / 3)], 1)
    d = load(write(tmp_path, arrays() | {'said': two}, kind), given='said')
    assert d.pool.given.shape == (48, 2, 3) and (d.pool.given[:, 0].max(-1) == 1).all()
    two[6, 1] = .9
    with pytest.raises(DataError, match=r'task\.given: row 7 is .*, expected probabilities that sum to 1'):
        load(write(tmp_path, arrays() | {'said': two}, kind), given='said')


def test_soft_labels_know_classes_that_no_row_has(tmp_path):
    d = load(write(tmp_path, arrays() | {'said': np.full((60, 7), 1 / 7)}), given='said')
    assert d.num_classes == 7


def test_a_test_set_of_its_own(tmp_path):
    (tmp_path / 't').mkdir()
    path, test = write(tmp_path, arrays() | {'by': np.arange(60)}), write(
        tmp_path / 't', arrays(30, seed=1) | {'by': np.arange(50, 80)}, 'npy')
    d = load(path, test_path=test)
    assert (len(d.pool), len(d.test)) == (60, 30) and not np.intersect1d(d.pool.group, d.test.group).size
    d = load(path, test_path=test, group='by', train_size=40, test_size=20)
    assert (len(d.pool), len(d.test), d.notes['shared_with_test']) == (40, 20, 10)
    narrow = arrays(30) | {'weak': np.zeros((30, 3))}
    test = write(tmp_path / 't', narrow)
    assert refused(path, test_path=test) == f'{test}: task.weak has 3 numbers a row, expected the 2 of {path}'


BAD = [
    ({'weak': np.zeros((50, 2))}, 'task.weak has 50 rows and task.strong 60, expected as many'),
    ({'label': np.zeros(61, int)}, 'task.label has 61 rows and task.strong 60'),
    ({'strong': np.zeros(60)}, r'task.strong is float64 of shape \[60\], expected numbers \[N, D\]'),
    ({'strong': np.zeros((60, 0))}, r'task.strong is float64 of shape \[60, 0\]'),
    ({'weak': np.full((60, 2), 'x')}, r'task.weak is <U1 of shape'),
    ({'weak': np.where(np.arange(120).reshape(60, 2) == 7, np.nan, 0)}, 'task.weak: row 4 holds what is not finite'),
    ({'weak': np.full((60, 2), 1e300)}, 'task.weak: row 1 holds what is not finite or too large'),
    ({'label': np.arange(60) - 1}, 'task.label: row 1 is -1, expected a class'),
    ({'label': np.arange(60) * 10**7}, 'task.label: row 2 is 10000000, expected a class'),
    ({'label': np.arange(60) / 2}, 'task.label: row 2 is 0.5, expected a class'),
    ({'label': np.full(60, np.nan)}, 'task.label: row 1 is nan, expected a class'),
    ({'label': np.zeros(60, int)}, "task.label has only the class '0', expected two or more"),
    ({'label': np.zeros((60, 2), int)}, r'task.label is int64 of shape \[60, 2\]')]


@pytest.mark.parametrize(('change', 'said'), BAD, ids=lambda x: str(x)[:40] if isinstance(x, str) else '')
@pytest.mark.parametrize('kind', ['npz', 'npy'])
def test_arrays_that_are_wrong(tmp_path, kind, change, said):
    path = write(tmp_path, arrays() | change, kind)
    assert re.match(f'{re.escape(path)}: {said}', refused(path))


@pytest.mark.parametrize(('given', 'said'), [
    (np.full((60, 2), .5), 'has 2 classes, expected the 3 of task.label'),
    (np.full((60, 3), .5), 'row 1 is .*expected probabilities that sum to 1'),
    (np.full((60, 3), np.nan), 'row 1 is .*expected probabilities that sum to 1'),
    (np.full(60, 3), "row 1 is '3', expected a class"), (np.full(60, 'x'), r'is <U1 of shape \[60\]')])
def test_weak_labels_that_are_none(tmp_path, given, said):
    assert re.search(f'task.given:? ?{said}', refused(write(tmp_path, arrays() | {'g': given}), given='g'))


def test_fields_that_do_not_go_together(tmp_path):
    path = write(tmp_path, arrays())
    assert refused('', ConfigError).startswith('task.path: empty')
    assert refused(path, ConfigError, label='').startswith('task.label: empty')
    assert 'expected a different array each' in refused(path, ConfigError, weak='strong')
    assert refused(path, weak='x') == f"{path}: task.weak: no array 'x', it has 'strong', 'weak', 'label'"
    assert 'expected at most 48, the rows that whole groups leave' in refused(path, train_size=49)
    assert refused(path, test_size=60).startswith('task.test_size: 60, expected fewer than the 60')
    folder = write(tmp_path, arrays(), 'npy')
    assert refused(folder, weak='../x').endswith('no file ../x.npy, it has label, strong, weak')
    assert load(path, weak='').pool.inputs.keys() == {'features'}


def test_nothing_is_unpickled_and_nothing_waits(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'trapped'),)
    trap = np.array([Trap()] * 60, object)
    for kind in ('npz', 'npy'):
        said = refused(write(tmp_path, arrays() | {'label': trap}, kind))
        assert 'holds Python objects, which are not unpickled' in said
    assert not (tmp_path / 'trapped').exists()
    (tmp_path / 'f' / 'label.npy').unlink()
    os.mkfifo(tmp_path / 'f' / 'label.npy')
    assert 'a pipe or a device' in refused(tmp_path / 'f')
    os.mkfifo(tmp_path / 'pipe.npz')
    assert 'a pipe or a device' in refused(tmp_path / 'pipe.npz')


def test_sizes_are_known_before_anything_is_read(tmp_path, monkeypatch):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d, 1000), }"
    for rows, said in ((10**9, 'bytes, expected at most'), (10**5, 'expected the 800000000 that its header says'),
                       (-3, 'not a readable|expected')):
        text = (header % rows).ljust(117) + b'\n'
        with zipfile.ZipFile(tmp_path / 'f.npz', 'w', zipfile.ZIP_DEFLATED) as file:
            for name, array in arrays().items():
                file.writestr(f'{name}.npy', b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text
                              if name == 'weak' else _bytes(array))
        assert re.search(said, refused(tmp_path / 'f.npz'))
    monkeypatch.setattr(array_files, 'MOST', 1000)
    for kind in KINDS:
        assert re.search('bytes, expected at most 1000', refused(write(tmp_path, arrays(), kind)))


def _bytes(array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_parquet_files_that_are_wrong(tmp_path):
    rows = {k: v.tolist() for k, v in arrays().items()}
    path = tmp_path / 'f.parquet'
    for change, said in (({'weak': [[1., 2.]] * 59 + [[1.]]}, 'row 60 has 1 numbers and row 1 2, expected as many'),
                         ({'weak': [[1., None]] * 60}, 'a list has a gap'), ({'label': [None] + [1] * 59}, 'row 1 is '),
                         ({'strong': [1.] * 60}, 'expected numbers'), ({'weak': [['a', 'b']] * 60}, 'task.weak is'),
                         ({'label': [{'a': 1}] * 60}, 'task.label is')):
        pq.write_table(pa.table(rows | change), path)
        assert said in refused(path)
    wider = pa.table(rows | {'weak': pa.array(rows['weak'], pa.list_(pa.float32(), 2))})
    pq.write_table(wider, path)
    assert load(path).pool.inputs['weak'].shape == (48, 2)


@pytest.mark.parametrize('kind', ['npz', 'parquet'])
def test_damaged_files_end_in_one_line(tmp_path, kind):
    path, rng = write(tmp_path, arrays(), kind), np.random.default_rng(0)
    whole, taken = pathlib.Path(path).read_bytes(), 0
    for _ in range(60):
        broken = bytearray(whole[:rng.integers(len(whole))] if rng.random() < .3 else whole)
        for at in rng.integers(0, max(len(broken), 1), 5 if broken else 0):
            broken[at] = rng.integers(256)
        pathlib.Path(path).write_bytes(broken)
        try:
            load(path)
            taken += 1
        except DataError as e:
            assert '\n' not in str(e)
    assert taken < 60
    for name in ('x.npz', 'x.txt', 'x.npy', 'a\0b.npz', 'y' * 500):
        refused(tmp_path / name)


def digits(path) -> str:
    """Handwritten digits: the weak model sees 8 principal components, the strong one all 64 pixels."""
    images, label = load_digits(return_X_y=True)
    np.savez(path, strong=images, weak=PCA(8, random_state=0).fit_transform(images), label=label)
    return str(path)


def config(path, **changes):
    c = vision.get_config()
    c.task.path, c.seeds, c.report.html = str(path), (0, 1), False
    c.update_from_flattened_dict(changes)
    return c


def prepared(c):
    return plan.prepare(plan.ready(c), lambda *a: None)


def test_teacher_and_student_read_arrays_of_their_own(tmp_path):
    made = prepared(config(write(tmp_path, arrays(300)), **{'train.batch_size': 64}))
    assert made.models['teacher'].identity['column'] == 'weak'
    assert made.models['student'].identity['column'] == 'features'
    assert made.models['teacher'].num_params == 2 * 3 + 3 and made.models['student'].num_params == 5 * 3 + 3
    assert {p.section['stopping']['name'] for p in made.phases if p.kind == 'fit'} == {'calibrated'}
    same = prepared(config(write(tmp_path, arrays(300)), **{'train.batch_size': 64, 'teacher.reads': 'features'}))
    assert same.models['teacher'].identity['column'] == 'features'


def test_linear_models_that_do_not_fit(tmp_path):
    path = write(tmp_path, arrays(300))
    for changes, said in (({'student.mode': 'full'}, "student.mode: 'full', but 'linear' has nothing to train below"),
                          ({'student.mode': 'lora'}, "student.mode: 'lora', but 'linear' has nothing to train below"),
                          ({'student.reads': 'weak', 'task.weak': ''}, "student.reads: 'weak', but task 'features' has"
                                                                       ' features, expected one of them')):
        with pytest.raises(ConfigError, match=re.escape(said)):
            prepared(config(path, **changes | {'train.batch_size': 64}))
    c = configs.default_config()
    c.teacher.model = 'linear'
    with pytest.raises(ConfigError, match=r"teacher.model: 'linear' does not fit task 'chess'"):
        prepared(configs.compose(c))
    with pytest.raises(ConfigError, match='unknown, expected'):
        vision.get_config('x')


@pytest.mark.long
def test_digits_from_end_to_end(tmp_path):
    c = config(digits(tmp_path / 'd.npz'))
    c.optimizer.name = 'lbfgs'  # 2 x 700 rows are too few steps of Adam's
    found = experiment.run(c, tmp_path / 'w', io.StringIO())
    weak, ceiling = found['weak']['accuracy']['mean'], found['ceiling']['accuracy']['mean']
    student = found['students'][0]
    assert .85 < weak < ceiling - .03 and ceiling > .93
    assert student['pgr']['defined'] and -.5 < student['pgr']['mean'] < .7
    print(f'weak {weak:.3f}, student {student["accuracy"]["mean"]:.3f}, ceiling {ceiling:.3f}, PGR {student["pgr"]}')


@pytest.mark.long
def test_weak_labels_that_come_with_features(tmp_path):
    images, label = load_digits(return_X_y=True)
    said = np.where(np.random.default_rng(0).random(len(label)) < .7, label, (label + 1) % 10)
    np.savez(tmp_path / 'd.npz', strong=images, label=label, said=said)
    c = vision.get_config('given')
    c.task.path, c.task.given, c.seeds, c.report.html, c.train.batch_size = (
        str(tmp_path / 'd.npz'), 'said', (0,), False, 64)
    found = experiment.run(c, tmp_path / 'w', io.StringIO())
    assert .65 < found['weak']['accuracy']['mean'] < .75 and found['task']['student_examples'] > 1200
    assert found['students'][0]['accuracy']['mean'] > .8


def test_features_of_another_task(tmp_path):
    c = salient_concept.get_config()
    c.student.model, c.student.mode = 'linear', 'probe'
    made = prepared(configs.compose(c))
    assert made.models['student'].identity['column'] == 'features'
