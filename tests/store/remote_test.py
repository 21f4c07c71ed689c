"""A store at a URL is the same store: whole artifacts, found by all, damaged ones named."""
import contextlib
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import uuid

import fsspec
import numpy as np
import pytest

from w2s_jax.engine import execute
from w2s_jax.errors import StoreError
from w2s_jax.graph import Phase, Source
from w2s_jax.store import command
from w2s_jax.store.artifacts import Store
from w2s_jax.store.remote import Files, open_store
from w2s_jax.text import digest

ARRAYS = {'top': np.arange(50, dtype=np.int32)}
PARAMS = {'layer': {'kernel': np.ones((2, 3), np.float32)}}
S3 = [name for name in ('s3fs', 'moto', 'flask') if importlib.util.find_spec(name) is None]


@pytest.fixture(scope='module')
def s3_server():
    """An object store of this test's own, in a process of its own."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    code = 'from moto.server import main; import sys; main(sys.argv[1:])'
    server = subprocess.Popen([sys.executable, '-c', code, '-H', '127.0.0.1', '-p', str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
            break
        time.sleep(.1)
    yield f'http://127.0.0.1:{port}'
    server.kill()


@pytest.fixture(params=['memory', 'file', pytest.param('s3', marks=pytest.mark.skipif(
    bool(S3), reason=f'not installed: {", ".join(S3)}'))])
def url(request, tmp_path, monkeypatch):
    if request.param == 'file':
        return f'file://{tmp_path}/remote'
    name = f'bucket-{uuid.uuid4().hex}'
    if request.param == 's3':
        for key, value in (('AWS_ENDPOINT_URL', request.getfixturevalue('s3_server')), ('AWS_ACCESS_KEY_ID', 'test'),
                           ('AWS_SECRET_ACCESS_KEY', 'test'), ('AWS_DEFAULT_REGION', 'us-east-1')):
            monkeypatch.setenv(key, value)
        fsspec.filesystem('s3', skip_instance_cache=True).mkdir(name)
    return f'{request.param}://{name}/store'


@pytest.fixture
def machine(url, tmp_path):
    """(name) -> the store at the URL, as a machine with a cache of its own has it."""
    return lambda name: open_store(url, tmp_path / name)


def named(word):
    return digest({'kind': 'student', 'word': word})


ID = named('ab12')


def save(store, metrics=None, word='ab12'):
    return store.save({'kind': 'student', 'word': word}, metrics or {'steps': 3}, ARRAYS, PARAMS)


def cached(store) -> set[str]:
    return {str(p.relative_to(store.folder)) for p in store.folder.rglob('*') if p.is_file()}


def forget_lists(*stores):
    """As if some seconds had gone by."""
    for store in stores:
        store.listed = (-1e9, store.listed[1])


def test_what_one_machine_saves_another_finds(machine):
    one, other = machine('one'), machine('other')
    assert other.find('student', ID) is None
    save(one)
    forget_lists(other)
    found = other.find('student', ID)
    assert cached(other) == {f'student-{ID}/{n}' for n in ('config.json', 'metrics.json', 'DONE')}  # no more than asked
    assert found.metrics == {'steps': 3} and json.loads((found.path / 'config.json').read_text()) == {
        'kind': 'student', 'word': 'ab12'}
    np.testing.assert_array_equal(found.arrays['top'], ARRAYS['top'])
    np.testing.assert_array_equal(found.params()['layer']['kernel'], PARAMS['layer']['kernel'])
    assert cached(other) == cached(one)
    assert other.find('teacher', ID) is None and other.find('student', 'ab13') is None


def test_texts_come_when_they_are_asked_for(machine):
    one, other = machine('one'), machine('other')
    one.save({'kind': 'table'}, {}, {'words': ['naïve', '']})
    found = other.find('table', digest({'kind': 'table'}))
    assert cached(other) == {f'{found.path.name}/{n}' for n in ('config.json', 'metrics.json', 'DONE')}
    assert found.arrays['words'].tolist() == ['naïve', ''] and cached(other) == cached(one)


def test_what_is_cached_needs_no_network(machine, monkeypatch):
    store = machine('one')
    save(store)

    def gone(*args, **kwargs):
        raise OSError('no network')
    monkeypatch.setattr(store.files.fs, 'cat_file', gone)
    monkeypatch.setattr(store.files.fs, 'find', gone)
    found = store.find('student', ID)
    assert found.metrics == {'steps': 3} and found.arrays.keys() == ARRAYS.keys()
    with pytest.raises(StoreError, match=r'cannot be listed \(no network\)') as e:
        store.find('student', 'other')
    assert '\n' not in str(e.value) and store.files.url in str(e.value)


def test_a_failure_is_seen_by_others(machine):
    save(machine('one'), {'failed': 'loss is nan at step 7'})
    other = machine('other')
    assert other.find('student', ID).failed == 'loss is nan at step 7'
    save(machine('one'), word='good')
    forget_lists(other)
    assert other.find('student', named('good')).failed is None


def test_the_first_that_is_whole_counts(machine):
    one, other = machine('one'), machine('other')
    save(one, {'steps': 1})
    assert save(other, {'steps': 2}).metrics == {'steps': 1}
    assert other.find('student', ID).metrics == {'steps': 1}
    assert not [n for n in cached(other) if n.startswith('.')]


def test_done_is_uploaded_last_and_half_an_artifact_is_none(machine, monkeypatch):
    one, put, uploaded = machine('one'), [], []
    original = one.files.fs.put_file

    def put_file(source, target, *args, **kwargs):
        if len(uploaded) == put[0]:
            raise KeyboardInterrupt
        uploaded.append(target.partition(f'student-{ID}/')[2])
        return original(source, target, *args, **kwargs)
    monkeypatch.setattr(one.files.fs, 'put_file', put_file)
    for number in range(5):
        put[:], uploaded[:] = [number], []
        with pytest.raises(KeyboardInterrupt):
            save(one)
        one.clear_parts()
        forget_lists(one)
        assert one.find('student', ID) is None and machine('other').find('student', ID) is None
    put[:], uploaded[:] = [5], []
    save(one, {'steps': 9})
    assert uploaded[-1] == 'DONE' and len(uploaded) == 5
    assert machine('other').find('student', ID).metrics == {'steps': 9}


def test_an_upload_that_fails_is_an_error_in_one_line(machine, monkeypatch):
    store = machine('one')

    def full(*args, **kwargs):
        raise OSError('quota\nexceeded')
    with monkeypatch.context() as patch, pytest.raises(StoreError) as e:
        patch.setattr(store.files.fs, 'put_file', full)
        save(store)
    assert str(e.value) == f'{store.files.url}/student-{ID}: cannot be written (quota exceeded)'
    assert save(store).metrics == {'steps': 3}


@pytest.mark.parametrize('name', ['metrics.json', 'predictions.npz', 'params/model.safetensors'])
def test_damage_is_noticed_when_it_is_downloaded(machine, name):
    one, other = machine('one'), machine('other')
    save(one)
    path = f'student-{ID}/{name}'
    content = bytearray(one.files.fs.cat_file(path))
    content[-1] ^= 1
    one.files.fs.pipe_file(path, bytes(content))
    with pytest.raises(StoreError, match=rf'student-{ID}/{name}: damaged') as e:
        found = other.find('student', ID)
        (found.metrics, found.arrays, found.params())
    assert '\n' not in str(e.value)
    assert not [n for n in cached(other) if n.endswith(name)]


def test_leases_are_in_the_cache_and_no_machine_waits_for_another(machine):
    one, other = machine('one'), machine('other')
    with one.lease('group') as held:
        assert held and not held.lost()
        with machine('one').lease('group') as theirs, other.lease('group') as elsewhere:
            assert theirs is None and elsewhere
    assert not one.files.fs.exists('leases') and (one.folder / 'leases' / 'group').exists()


@pytest.mark.parametrize('meanwhile', ['predictions.npz', 'params/model.safetensors', 'metrics.json', 'config.json'])
def test_two_that_upload_at_the_same_time_leave_a_whole_artifact(machine, monkeypatch, meanwhile, capsys):
    """The other one is done just before the first one uploads that file: its lost files are made up for."""
    one, other, put = machine('one'), machine('other'), Files.put

    def slow(self, source, name):
        if self is one.files and name.endswith(meanwhile) and not other.find('student', ID):
            other.save({'kind': 'student', 'word': 'ab12'}, {'steps': 2}, {'top': np.zeros(3)}, PARAMS)
        put(self, source, name)
    monkeypatch.setattr(Files, 'put', slow)
    save(one, {'steps': 1})
    assert command.main(['verify', f'--store={one.files.url}']) == 0
    found = machine('third').find('student', ID)
    assert (found.metrics['steps'], found.arrays['top'].shape) in ((1, (50,)), (2, (3,)))


def test_names_are_written_there(machine, capsys):
    one = machine('one')
    save(one)
    save(one, word='cd34')
    one.name('/w', [named('cd34')])
    assert command.main(['gc', f'--store={one.files.url}', '--older_than_hours=0']) == 0
    assert f'removed student-{ID}' in capsys.readouterr().out
    other = machine('other')
    assert other.find('student', ID) is None and other.find('student', named('cd34')) is not None


def test_the_command_looks_after_it(machine, capsys):
    one = machine('one')
    save(one)
    save(one, word='cd34')
    one.files.fs.pipe_file(f'student-{ID}/metrics.json', b'{}')
    assert command.main(['verify', f'--store={one.files.url}']) == 1
    out = capsys.readouterr().out
    assert f'student-{ID}: metrics.json has changed' in out and '2 artifacts checked, 1 damaged' in out
    assert command.main(['ls', f'--store={one.files.url}']) == 0
    assert ' 0min  not needed' in capsys.readouterr().out
    assert command.main(['verify', f'--store={one.files.url}', '--delete']) == 0
    assert machine('other').find('student', ID) is None and machine('third').find('student', named('cd34'))


def test_a_graph_runs_on_it_and_then_never_again(machine):
    first = Phase('teacher', {'seed': 0}, {'rows': Source('r', 'rows')}, 'teacher')
    second = Phase('student', {'seed': 0}, {'teacher': first}, 'student')
    ran = []

    def run(phases, inputs, folder):
        ran.extend(p.kind for p in phases)
        return [({'found': i['teacher'].metrics['found'] + 1 if 'teacher' in i else 1}, ARRAYS, None) for i in inputs]
    one = machine('one')
    assert execute.execute([first], one, run, report=lambda text: None)[first.id].metrics == {'found': 1}
    other = machine('other')
    assert execute.execute([second], other, run, report=lambda text: None)[second.id].metrics == {'found': 2}
    forget_lists(one)
    assert execute.execute([second], one, run, report=lambda text: None)[second.id].metrics == {'found': 2}
    assert ran == ['teacher', 'student'] and not list(one.folder.glob('pending/*'))


# What can be opened


def test_a_path_is_a_store_here(tmp_path):
    assert type(open_store(tmp_path / 's')) is Store and type(open_store(f'{tmp_path}/s')) is Store


def test_a_url_that_cannot_be_opened(tmp_path):
    for url in ('nonesuch://b/s', *(['s3://b/s'] if 's3fs' in S3 else [])):
        with pytest.raises(StoreError, match=f'^{url}: cannot be opened') as e:
            open_store(url, tmp_path)
        assert '\n' not in str(e.value)


def test_without_a_cache_it_is_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    store = open_store(f'memory://{uuid.uuid4().hex}')
    assert store.folder.is_relative_to(pathlib.Path(os.environ['HOME']) / '.cache')
