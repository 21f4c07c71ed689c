"""What looks after a store finds all damage, removes no byte that anybody needs, and says everything in one line."""
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from w2s_jax.errors import StoreError
from w2s_jax.store import command as store_command
from w2s_jax.store import remote
from w2s_jax.store.artifacts import Store
from w2s_jax.text import digest

ROOT = pathlib.Path(__file__).parents[2]
HOUR = 3600


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / 'w' / 'store')


def save(store, kind, identity, **metrics) -> pathlib.Path:
    arrays, params = {'top': np.arange(500)}, {'layer': {'kernel': np.ones((3, 4), np.float32)}}
    return store.save({'kind': kind, 'word': identity}, metrics, arrays, params).path


def named(word, kind='student'):
    return digest({'kind': kind, 'word': word})


def age(folder: pathlib.Path, hours: float) -> None:
    for path in [folder, *folder.rglob('*')]:
        os.utime(path, (time.time() - hours * HOUR,) * 2)


def call(capsys, *args) -> tuple[int, list[str], str]:
    code = store_command.main(list(map(str, args)))
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def files(folder: pathlib.Path) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


# verify


def test_a_whole_store_is_whole(store, capsys):
    save(store, 'student', 'aa')
    save(store, 'teacher', 'bb', failed='loss is nan')
    before = files(store.folder)
    for place in (f'--workdir={store.folder.parent}', f'--store={store.folder}', f'--store=file://{store.folder}'):
        assert call(capsys, 'verify', place) == (0, ['2 artifacts checked, 0 damaged'], '')
    assert files(store.folder) == before


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    'predictions.npz has changed': lambda p: flip(p / 'predictions.npz'),
    'params/model.safetensors has changed': lambda p: flip(p / 'params' / 'model.safetensors'),
    'config.json has changed': lambda p: (p / 'config.json').write_text('{}'),
    'metrics.json is missing': lambda p: (p / 'metrics.json').unlink(),
    'FAILED should not be there': lambda p: (p / 'FAILED').touch(),
    'DONE is unreadable': lambda p: (p / 'DONE').write_text('{'),
}


@pytest.mark.parametrize('what', DAMAGE)
def test_damage_is_found_and_named(store, capsys, what):
    path, other = save(store, 'student', 'aa'), save(store, 'student', 'bb')
    DAMAGE[what](path)
    code, out, _ = call(capsys, 'verify', f'--store={store.folder}')
    assert (code, out) == (1, [f'{path.name}: {what}; delete {path} to compute it again',
                               '2 artifacts checked, 1 damaged'])
    assert path.exists()
    code, out, _ = call(capsys, 'verify', f'--store={store.folder}', '--delete')
    assert (code, out[0]) == (0, f'{path.name}: {what}; deleted')
    assert not path.exists() and other.exists() and store.find('student', named('bb'))
    save(store, 'student', 'aa')
    assert call(capsys, 'verify', f'--store={store.folder}')[0] == 0


def test_all_that_is_wrong_is_said(store, capsys):
    path = save(store, 'student', 'aa')
    (path / 'metrics.json').unlink()
    flip(path / 'predictions.npz')
    out = call(capsys, 'verify', f'--store={store.folder}')[1]
    assert out[0].startswith(f'{path.name}: metrics.json is missing, predictions.npz has changed; ')


def test_artifacts_in_each_others_place_are_found(store, capsys):
    path, other = save(store, 'student', 'aa'), save(store, 'student', 'bb')
    aside = path.with_name('aside')
    for one, place in ((path, aside), (other, path), (aside, other)):
        one.rename(place)
    code, out, _ = call(capsys, 'verify', f'--store={store.folder}')
    assert code == 1 and f'{path.name}: its config is that of {other.name}; delete' in '\n'.join(out)
    with pytest.raises(StoreError, match=rf'{path.name}/config.json: is that of {other.name}; delete .* again$'):
        _ = store.find('student', named('aa')).metrics


# ls


def test_list(store, capsys):
    path = save(store, 'student', 'aa')
    save(store, 'teacher', 'bb', failed='loss is nan')
    (save(store, 'teacher', 'cc') / 'DONE').unlink()
    store.name('/w/one', [named('aa')])
    age(path, 5)
    (store.folder / 'pending' / 'u' / 'checkpoint').mkdir(parents=True)
    (store.folder / 'pending' / 'u' / 'members.json').write_text('["aa"]')
    code, out, _ = call(capsys, 'ls', f'--store={store.folder}')
    rows = [line.split() for line in out]
    size = sum(p.stat().st_size for p in path.rglob('*') if p.is_file())
    assert code == 0 and len(rows) == 6
    assert rows[0] == ['student', named('aa'), f'{size / 1000:.1f}', 'kB', '5h', 'needed', 'by', '/w/one']
    assert {line.rpartition('  ')[2] for line in out[1:3]} == {'not needed, failed', 'not needed, not whole'}
    assert out[3].split() == ['student:', '1', 'artifact,', f'{size / 1000:.1f}', 'kB']
    assert out[4].startswith('teacher:    2 artifacts, ')
    assert out[5].startswith('all:        3 artifacts, ') and out[5].endswith('; 1 unit pending, 6 B')


# gc


def full(store) -> dict[str, pathlib.Path]:
    """A store with one of everything, all of it two hours old, and 'aa' and 'pp' named."""
    out = {'named': save(store, 'student', 'aa'), 'other': save(store, 'student', 'bb'),
           'half': save(store, 'student', 'cc'), 'part': store.folder / '.part-student-dd-elsewhere.1.2'}
    (out['half'] / 'DONE').unlink()
    out['part'].mkdir()
    (out['part'] / 'config.json').write_text('{}')
    for name, members in (('needed', '["xx", "pp"]'), ('not_needed', '["qq"]'), ('damaged', '["')):
        out[name] = store.folder / 'pending' / name
        (out[name] / 'checkpoint' / '10').mkdir(parents=True)
        (out[name] / 'checkpoint' / '10' / 'state').write_bytes(b'x' * 100)
        (out[name] / 'members.json').write_text(members)
    out['lease'] = store.folder / 'leases' / 'group'
    with store.lease('group'):
        pass
    store.name('/w/one', [named('aa'), 'pp'])
    age(store.folder, 2)
    return out


def test_what_nothing_names_is_removed(store, capsys):
    paths = full(store)
    code, out, _ = call(capsys, 'gc', f'--store={store.folder}')
    assert code == 0
    assert {k for k, p in paths.items() if p.exists()} == {'named', 'needed'}
    assert len(out) == 6 and all(line.startswith('removed ') for line in out[:-1])
    assert out[-1].startswith('freed ') and out[-1].endswith(' in 5 folders')
    assert store.find('student', named('aa')) is not None
    assert call(capsys, 'verify', f'--store={store.folder}')[0] == 0
    assert call(capsys, 'gc', f'--store={store.folder}')[1] == ['freed 0 B in 0 folders']


@pytest.mark.parametrize('hours', [0, 30])
def test_the_lease_of_a_process_that_may_live_stays(store, capsys, hours):
    """Also of one that was suspended long ago: its number must not be given again."""
    with store.lease('mine'):
        age(store.folder, hours)
        call(capsys, 'gc', f'--store={store.folder}', '--older_than_hours=0')
        assert list((store.folder / 'leases' / 'mine').iterdir())
    age(store.folder, hours)
    call(capsys, 'gc', f'--store={store.folder}', '--older_than_hours=0')
    assert not (store.folder / 'leases' / 'mine').exists()


@pytest.mark.parametrize(('hours', 'stays'), [(23, True), (25, False)])
def test_the_lease_of_another_machine_stays_for_a_day(store, capsys, hours, stays):
    path = store.folder / 'leases' / 'theirs' / '3'
    path.parent.mkdir(parents=True)
    path.write_text('{"token": "t", "process": "elsewhere.1.2"}')
    age(store.folder, hours)
    call(capsys, 'gc', f'--store={store.folder}')
    assert path.exists() == stays


def test_a_dry_run_says_the_same_and_removes_nothing(store, capsys):
    full(store)
    before = files(store.folder)
    code, said, _ = call(capsys, 'gc', f'--store={store.folder}', '--dry_run')
    assert code == 0 and files(store.folder) == before
    done = call(capsys, 'gc', f'--store={store.folder}')[1]
    assert [s.replace('would remove', 'removed').replace('would free', 'freed') for s in said] == done


@pytest.mark.parametrize('which', ['other', 'half', 'part', 'not_needed', 'damaged', 'lease'])
def test_what_is_young_stays(store, capsys, which):
    paths = full(store)
    newest = max((p for p in paths[which].rglob('*') if p.is_file()), key=lambda p: len(p.parts))
    os.utime(newest)
    call(capsys, 'gc', f'--store={store.folder}')
    assert {k for k, p in paths.items() if p.exists()} == {'named', 'needed', which}


def test_the_age_is_chosen(store, capsys):
    paths = full(store)
    call(capsys, 'gc', f'--store={store.folder}', '--older_than_hours=3')
    assert all(p.exists() for p in paths.values())
    call(capsys, 'gc', f'--store={store.folder}', '--older_than_hours=1.9')
    assert not paths['other'].exists()


def test_a_run_that_begins_meanwhile_keeps_what_it_needs(store, capsys, monkeypatch):
    paths = full(store)
    take_stock = store_command.take_stock

    def then_begin(files):
        stock = take_stock(files)
        store.name('/w/two', [named('bb')])
        return stock
    monkeypatch.setattr(store_command, 'take_stock', then_begin)
    out = call(capsys, 'gc', f'--store={store.folder}')[1]
    assert paths['other'].exists() and out[-1].endswith('in 4 folders')


def test_a_work_directory_can_be_forgotten(store, capsys):
    paths = full(store)
    assert call(capsys, 'gc', f'--store={store.folder}', '--forget=/w/one')[0] == 0
    assert not paths['named'].exists()
    code, _, err = call(capsys, 'gc', f'--store={store.folder}', '--forget=/w/one')
    assert code == 2 and err.startswith('error: /w/one: names nothing')


def test_the_last_list_of_a_work_directory_counts(store, capsys):
    paths = full(store)
    store.name('/w/one', [named('bb')])
    call(capsys, 'gc', f'--store={store.folder}')
    assert paths['other'].exists() and not paths['named'].exists()


def test_where_a_list_is_unreadable_nothing_is_removed(store, capsys):
    full(store)
    path = next(store.folder.glob('named/*.json'))
    path.write_text('{"workdir": "/w/one", "ids"')
    before = files(store.folder)
    code, out, err = call(capsys, 'gc', f'--store={store.folder}')
    assert (code, out) == (2, []) and err.startswith(f'error: {path}: unreadable') and err.count('\n') == 1
    assert files(store.folder) == before


def test_an_artifact_loses_done_first(store, monkeypatch):
    path = save(store, 'student', 'aa')
    place = remote.Files(str(store.folder))
    [folder] = store_command.take_stock(place).artifacts

    def die(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr(type(place.fs), 'rm', die)
    with pytest.raises(KeyboardInterrupt):
        store_command.remove(folder, place)
    assert store.find('student', named('aa')) is None and (path / 'config.json').exists()


# Errors


@pytest.mark.parametrize(('args', 'expected'), [
    ([], 'the following arguments are required: action'),
    (['verify'], 'one of the arguments --workdir --store is required'),
    (['verify', '--workdir=a', '--store=b'], 'not allowed with argument'),
    (['verfy', '--workdir=a'], "invalid choice: 'verfy'"),
    (['ls', '--workdir=a', '--dry'], 'unrecognized arguments: --dry'),
    (['gc', '--workdir=a', '--older_than_hours=x'], "invalid float value: 'x'"),
    (['gc', '--workdir=a', '--older_than_hours=nan'], '--older_than_hours=nan: expected'),
    (['ls', '--store=/no/such/place'], '/no/such/place: no store there'),
    (['ls', '--store=nonesuch://a/b'], 'nonesuch://a/b: cannot be opened'),
    (['ls', '--store=memory://nothing/here'], 'memory://nothing/here: no store there'),
])
def test_errors_are_one_line(capsys, args, expected):
    code, out, err = call(capsys, *args)
    assert (code, out) == (2, []) and expected in err and err.startswith('error: ') and err.count('\n') == 1


@pytest.mark.long
def test_the_commands_as_a_user_starts_them(store):
    save(store, 'student', 'aa')
    w2s = 'import sys; from w2s_jax.engine import commands; sys.exit(commands.main())'
    for command in (['-m', 'experiments.store'], ['-c', w2s, 'store']):
        done = subprocess.run([sys.executable, *command, 'ls', f'--store={store.folder}'], cwd=ROOT,
                              capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (0, '') and f'student    {named("aa")}' in done.stdout


def test_a_list_has_each_name_once(store):
    store.name('/w/one', ['b', 'a', 'b'])
    [path] = store.folder.glob('named/*')
    assert json.loads(path.read_text()) == {'workdir': '/w/one', 'ids': ['a', 'b']}
