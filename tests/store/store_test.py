"""Artifacts: whole or not there, never changed, and readable or an error in one line."""
import errno
import hashlib
import json
import multiprocessing
import os
import pathlib

import numpy as np
import pytest

from w2s_jax.errors import StoreError, WeightsError
from w2s_jax.store import artifacts as stores
from w2s_jax.store import lease, trees
from w2s_jax.store.artifacts import Store

ARRAYS = {'top': np.arange(6, dtype=np.int32).reshape(3, 2), 'loss': np.array([.5, .25], np.float32)}
ID = stores.digest({'kind': 'student'})
PARAMS = {'layer': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3), 'bias': np.zeros(3, np.float32)}}

# Processes to kill are forked from a small one: this one has threads of JAX's, which do not survive a fork.
PROCESSES = multiprocessing.get_context('forkserver')
PROCESSES.set_forkserver_preload(['pytest', 'w2s_jax.store.artifacts'])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / 'store')


def save(store: Store, metrics=None):
    return store.save({'kind': 'student'}, metrics or {'steps': 3}, ARRAYS, PARAMS)


def names(folder: pathlib.Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()}


def test_what_is_saved_is_found_and_read_back(store):
    assert store.find('student', ID) is None
    save(store)
    found = store.find('student', ID)
    assert found.metrics == {'steps': 3}
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    np.testing.assert_array_equal(found.params()['layer']['kernel'], PARAMS['layer']['kernel'])
    assert names(store.folder) == {f'student-{ID}/{name}' for name in (
        'config.json', 'metrics.json', 'predictions.npz', 'params/model.safetensors', 'DONE')}
    assert json.loads((found.path / 'config.json').read_text()) == {'kind': 'student'}


def test_kind_and_identity_both_name_an_artifact(store):
    save(store)
    assert store.find('teacher', ID) is None and store.find('student', 'ab13') is None


def test_the_second_save_leaves_the_first(store):
    path = save(store, {'steps': 1}).path
    before = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in path.rglob('*') if f.is_file()}
    again = save(store, {'steps': 2})
    assert again.metrics == {'steps': 1}
    assert {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in path.rglob('*') if f.is_file()} == before
    assert [p.name for p in store.folder.glob('.*')] == []


def test_a_folder_without_done_is_not_an_artifact_and_is_replaced(store):
    path = save(store, {'steps': 1}).path
    (path / 'DONE').unlink()
    (path / 'leftover').write_text('')
    assert store.find('student', ID) is None
    assert save(store, {'steps': 2}).metrics == {'steps': 2}
    assert not (path / 'leftover').exists()


def test_done_is_written_last(store, monkeypatch):
    written = []
    write = pathlib.Path.rename

    def rename(self, target):
        written.append(pathlib.Path(target).name)
        if pathlib.Path(target).name == 'DONE':
            assert names(self.parent) >= {'config.json', 'metrics.json', 'predictions.npz', 'params/model.safetensors'}
        return write(self, target)
    monkeypatch.setattr(pathlib.Path, 'rename', rename)
    save(store)
    assert written == ['config.json', 'metrics.json', 'DONE', f'student-{ID}']


def exit_code(function, *args) -> int:
    process = PROCESSES.Process(target=function, args=args)
    process.start()
    process.join()
    return process.exitcode


def die_before(call: int, folder: pathlib.Path) -> None:
    """Saves, and ends without any tidying up just before the `call`-th write of a file or rename."""
    left = [call]

    def mortal(function):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return function(*args, **kwargs)
        return wrapped
    pathlib.Path.write_text, pathlib.Path.rename = mortal(pathlib.Path.write_text), mortal(pathlib.Path.rename)
    np.savez, trees.save = mortal(np.savez), mortal(trees.save)
    save(Store(folder))
    os._exit(0)


def test_a_writer_killed_at_any_moment_leaves_nothing_or_everything(tmp_path):
    codes, call = [], 0
    while not codes or codes[-1] != 0:
        folder = tmp_path / str(call)
        codes.append(exit_code(die_before, call, folder))
        found = Store(folder).find('student', ID)
        assert (found is not None) == (codes[-1] == 0)
        Store(folder).clear_parts()
        assert not list(folder.glob('.part-*'))
        assert save(Store(folder)).metrics == {'steps': 3}
        call += 1
    assert codes == [9] * 10 + [0]  # probe, 3 JSON files of two calls each, arrays, parameters, folder


@pytest.mark.parametrize('name', ['metrics.json', 'predictions.npz', 'params/model.safetensors'])
@pytest.mark.parametrize('damage', ['truncated', 'garbage', 'empty', 'missing'])
def test_a_damaged_file_is_an_error_in_one_line_that_names_it(store, name, damage):
    path = save(store).path / name
    content = path.read_bytes()
    path.unlink()
    if damage != 'missing':
        path.write_bytes({'truncated': content[:len(content) // 2], 'garbage': b'\x80\x04junk', 'empty': b''}[damage])
    found = store.find('student', ID)
    with pytest.raises((StoreError, WeightsError)) as e:
        (found.metrics, found.arrays, found.params())
    assert str(path) in str(e.value) and '\n' not in str(e.value)


def test_a_pickle_is_never_loaded(store):
    found = save(store)
    np.savez(found.path / 'predictions.npz', top=np.array([{'an': 'object'}], dtype=object))
    with pytest.raises(StoreError, match='has changed since it was written'):
        _ = found.arrays
    sums = json.loads((found.path / 'DONE').read_text())  # by someone who knows how
    sums['predictions.npz'] = hashlib.sha256((found.path / 'predictions.npz').read_bytes()).hexdigest()
    (found.path / 'DONE').write_text(json.dumps(sums))
    with pytest.raises(StoreError, match='unreadable'):
        _ = stores.Artifact(found.path).arrays


@pytest.mark.parametrize('below', ['file/store', 'file/a/b/store'])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, below):
    (tmp_path / 'file').write_text('')
    with pytest.raises(StoreError, match='cannot be written to') as e:
        Store(tmp_path / below)
    assert str(tmp_path / below) in str(e.value) and '\n' not in str(e.value)


@pytest.mark.skipif(not pathlib.Path('/proc/self').exists(), reason='no /proc')
def test_a_file_system_that_takes_no_files_is_an_error():
    with pytest.raises(StoreError, match=r'/proc/w2s.*cannot be written to'):
        Store(pathlib.Path('/proc/w2s'))


def test_a_full_disk_is_an_error_and_leaves_no_artifact(store, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as patch:
        patch.setattr(np, 'savez', full)
        with pytest.raises(StoreError, match='No space left'):
            save(store)
        patch.setattr(pathlib.Path, 'write_text', full)
        with pytest.raises(StoreError, match=r'results.json.*No space left'):
            stores.write_json(store.folder / 'results.json', {})
    assert store.find('student', ID) is None
    assert save(store).metrics == {'steps': 3}


def test_json_is_replaced_whole_and_never_holds_nan(tmp_path):
    path = tmp_path / 'results.json'
    stores.write_json(path, {'a': 1})
    with pytest.raises(ValueError, match='not JSON compliant'):
        stores.write_json(path, {'a': float('nan')})
    assert json.loads(path.read_text()) == {'a': 1}
    stores.write_json(path, {'a': 2})
    assert json.loads(path.read_text()) == {'a': 2} and names(tmp_path) == {'results.json'}


def write_often(path: pathlib.Path, letter: str) -> None:
    for _ in range(300):
        stores.write_json(path, letter * 5000)


def test_processes_that_write_the_same_json_do_not_disturb_each_other(tmp_path):
    path = tmp_path / 'results.json'
    stores.write_json(path, '')
    writers = [PROCESSES.Process(target=write_often, args=(path, letter)) for letter in 'abc']
    for writer in writers:
        writer.start()
    seen = set()
    while any(w.is_alive() for w in writers):
        seen.add(path.read_text())
    assert [w.exitcode for w in writers] == [0, 0, 0]
    assert seen <= {f'"{letter * 5000}"\n' for letter in 'abc'} | {'""\n'}
    assert names(tmp_path) == {'results.json'}


def test_what_a_killed_writer_of_json_left_is_removed_by_the_next(tmp_path):
    mine, dead = lease.process(), f'{lease._machine()}.1.0'
    rests = [tmp_path / f'.part-{name}-{owner}' for name in ('a.json', 'b.json') for owner in (dead, 'elsewhere.1.2')]
    for rest in rests:
        rest.write_text('{')
    stores.write_json(tmp_path / 'a.json', {})
    assert names(tmp_path) == {'a.json', *(r.name for r in rests[1:])} and not list(tmp_path.glob(f'*{mine}'))


def test_json_that_found_no_space_leaves_nothing(tmp_path, monkeypatch):
    def full(self, text):
        self.touch()
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(pathlib.Path, 'write_text', full)
    with pytest.raises(StoreError, match='No space left'):
        stores.write_json(tmp_path / 'a.json', {})
    assert names(tmp_path) == set()


def save_at_once(folder: pathlib.Path, number: int) -> None:
    store = Store(folder)
    for i in range(20):
        store.save({'kind': 'student', 'number': i}, {'writer': number}, ARRAYS)


def test_processes_that_save_the_same_artifacts_do_not_disturb_each_other(store):
    writers = [PROCESSES.Process(target=save_at_once, args=(store.folder, n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [w.exitcode for w in writers] == [0, 0, 0]
    found = [store.find('student', stores.digest({'kind': 'student', 'number': i})) for i in range(20)]
    assert all(f.metrics['writer'] in range(3) and f.arrays.keys() == ARRAYS.keys() for f in found)
    assert not list(store.folder.glob('.part-*'))


def test_digest_ignores_the_order_of_keys_and_nothing_else():
    assert stores.digest({'a': 1, 'b': [1, 2]}) == stores.digest({'b': [1, 2], 'a': 1})
    values = [{'a': 1}, {'a': 1.5}, {'a': '1'}, {'a': None}, {'a': [1]}, {'a': {'a': 1}}, {'b': 1}, {'a': True}, [1, 2],
              [2, 1], 'a', 'b']
    assert len({stores.digest(v) for v in values}) == len(values)


def enter(folder: pathlib.Path) -> None:
    try:
        with stores.alone(folder):
            os._exit(0)
    except StoreError:
        os._exit(2)


def test_one_process_at_a_time(tmp_path):
    with stores.alone(tmp_path):
        assert exit_code(enter, tmp_path) == 2
    assert exit_code(enter, tmp_path) == 0


def test_begun_means_an_artifact_or_a_checkpoint(store):
    (store.folder / 'pending' / 'x').mkdir()
    stores.write_json(store.folder / 'pending' / 'x' / 'members.json', ['a'])
    assert not store.begun()
    (store.folder / 'pending' / 'x' / 'checkpoint').mkdir()
    assert store.begun()


def test_an_artifact_means_begun(store):
    save(store)
    assert store.begun()


# Weight files


def flipped(content: bytes) -> bytes:
    return content[:8] + bytes(255 - b for b in content[8:40]) + content[40:]


@pytest.mark.parametrize('content', [
    lambda good: good[:-3], lambda good: good[:5], lambda good: b'', lambda good: b'\x00' * 200, flipped,
    lambda good: b'\x80\x04\x95' + good, lambda good: b'\xff' * 8 + good[8:]])
def test_a_damaged_weight_file_is_an_error_in_one_line(tmp_path, content):
    path = tmp_path / 'w.safetensors'
    trees.save(path, PARAMS)
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(WeightsError) as e:
        trees.load(path)
    assert str(path) in str(e.value) and '\n' not in str(e.value)


def test_a_missing_weight_file_is_an_error(tmp_path):
    for read in (trees.load, trees.file_fingerprint):
        with pytest.raises(WeightsError, match=r'nowhere.safetensors: no such'):
            read(tmp_path / 'nowhere.safetensors')
    with pytest.raises(WeightsError, match=str(tmp_path)):
        trees.load(tmp_path)


@pytest.mark.parametrize(('dtype', 'rtol'), [(None, 0), ('float16', 1e-3), ('bfloat16', 1e-2)])
def test_weights_are_read_back_as_float32(tmp_path, dtype, rtol):
    trees.save(tmp_path / 'w', PARAMS, dtype)
    kernel = trees.load(tmp_path / 'w')['layer']['kernel']
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, PARAMS['layer']['kernel'], rtol)


@pytest.mark.parametrize(('changed', 'message'), [
    ({'layer': {'kernel': PARAMS['layer']['kernel']}}, "missing tensor 'layer.bias'"),
    (PARAMS | {'more': np.zeros(1)}, "unexpected tensor 'more'"),
    ({'layer': PARAMS['layer'] | {'bias': np.zeros(4)}}, r"'layer.bias' has shape \(4,\), expected \(3,\)"),
    ({'layer': PARAMS['layer'] | {'kernel': np.zeros((3, 2))}}, r"shape \(3, 2\), expected \(2, 3\)"),
    ({'layer': PARAMS['layer'] | {'bias': np.array([0, np.nan, 0])}}, "'layer.bias' holds numbers that are not finite"),
    ({'layer': PARAMS['layer'] | {'bias': np.array([0, np.inf, 0])}}, "'layer.bias' holds numbers that are not finite"),
])
def test_check_names_the_tensor_that_does_not_fit(changed, message):
    trees.check('w.safetensors', PARAMS, PARAMS)
    with pytest.raises(WeightsError, match=rf'w.safetensors: .*{message}'):
        trees.check('w.safetensors', changed, PARAMS)



def test_an_artifact_is_on_the_disk_before_it_has_its_name(store, monkeypatch):
    calls, sync, rename = [], os.fsync, pathlib.Path.rename
    monkeypatch.setattr(os, 'fsync', lambda fd: (calls.append(os.readlink(f'/proc/self/fd/{fd}')), sync(fd)))
    monkeypatch.setattr(pathlib.Path, 'rename', lambda self, to: (calls.append(str(to)), rename(self, to))[1])
    path = save(store).path
    named = calls.index(str(path))
    flushed = {pathlib.Path(c).name for c in calls[:named]}
    assert {'config.json', 'metrics.json', 'predictions.npz', 'model.safetensors', 'params', 'DONE'} <= flushed
    assert calls[named + 1:] == [str(store.folder)]  # and then its name is
