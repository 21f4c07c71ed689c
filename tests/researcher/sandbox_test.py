"""The sandbox: scripted cheats get nothing, and the same script gets it all where the guards are taken away."""
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from researcher import attempts, jail, sandbox
from w2s_jax.errors import ConfigError

CHEATS = pathlib.Path(__file__).parent / 'cheats.py'
needs_kernel = pytest.mark.skipif(bool(sandbox.missing()), reason=f'no {sandbox.missing()}')
# What runs without a sandbox cannot do either: there is no truth in its memory, and nobody may trace its own parent
# everywhere.
NEVER = {'memory of this process'}
MAYBE = {'ptrace', 'process_vm_readv', 'memory of the parent'}


@pytest.fixture
def cell(tmp_path):
    """(text of a script, arguments, limits) -> a cell in a folder of its own."""
    folder = tmp_path / 'job'
    (folder / 'in').mkdir(parents=True)
    (folder / 'work').mkdir()

    def make(text, *arguments, **limits):
        script = folder / 'in' / 'script.py'
        script.write_text(text)
        return sandbox.Cell(script, arguments, folder, (tmp_path / 'private',), limits=sandbox.Limits(**limits))
    return make


@pytest.fixture
def scene(tmp_path, cell):
    """A truth, a folder outside, listeners; -> () a cell that tries all cheats on them."""
    private, outside = tmp_path / 'private', tmp_path / 'outside'
    private.mkdir(mode=0o700)
    outside.mkdir()
    (outside / 'there').write_text('')
    np.save(private / 'truth.npy', np.arange(1000))
    (private / 'truth_of_test.py').write_text('TRUTH = 1')
    (tmp_path / 'source.py').write_text('')
    with socket.create_server(('127.0.0.1', 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / 's'))
        local.listen()
        yield cell(CHEATS.read_text(), str(private / 'truth.npy'), str(outside), str(server.getsockname()[1]),
                   str(tmp_path / 'source.py'), str(os.getpid()), str(tmp_path / 's'))


def results(outcome) -> dict[str, str]:
    return dict(line.split(': ', 1) for line in outcome.output.splitlines() if ': got' in line or ': refused' in line)


@needs_kernel
def test_no_cheat_gets_anything(scene):
    outcome = sandbox.run(scene)
    found = results(outcome)
    assert len(found) >= 30, outcome.output
    assert [name for name, what in found.items() if what.startswith('got')] == []
    assert {'landlock', 'seccomp'} <= {g.split()[0] for g in outcome.guards}


def test_without_guards_every_cheat_works(scene, monkeypatch):
    """That is: the script above can tell."""
    monkeypatch.setattr(sandbox, 'missing', lambda: ['a guard'])
    outcome = sandbox.run(scene, trust=True)
    found = results(outcome)
    assert {name for name, what in found.items() if what.startswith('refused')} - MAYBE == NEVER, found
    assert outcome.guards == []


@needs_kernel
@pytest.mark.parametrize('guard, works', [
    ('landlock', {'open', 'memmap', 'pyarrow', 'ctypes open', 'import', 'write elsewhere'}),
    ('seccomp', {'fork', 'modes'})])
def test_each_guard_holds_something_alone(scene, tmp_path, monkeypatch, guard, works):
    """A jail without one of its guards lets pass what that one is there for; and the truth is not hidden by a mount."""
    text = (sandbox.HERE / 'jail.py').read_text()
    line = {'landlock': "landlock(spec['read'], spec['list'], spec['write'])", 'seccomp': ', seccomp()]'}[guard]
    assert text.count(line) == 1
    (tmp_path / 'open').mkdir()
    off = f"'{guard} is off'"
    changed = text.replace(line, f', {off}]' if line.startswith(',') else off)
    changed = changed.replace("namespaces(spec['hidden'])", '[]')
    (tmp_path / 'open' / 'jail.py').write_text(changed)
    run = subprocess.Popen
    monkeypatch.setattr(sandbox.subprocess, 'Popen', lambda command, **how: run(
        [*command[:3], str(tmp_path / 'open' / 'jail.py'), *command[4:]], **how))
    found = results(sandbox.run(scene))
    assert works <= {name for name, what in found.items() if what.startswith('got')}


@needs_kernel
def test_where_it_can_the_truth_is_absent_and_not_only_unreadable(scene):
    outcome = sandbox.run(scene)
    if 'truth absent' not in outcome.guards:
        pytest.skip('no namespaces here')
    assert results(outcome)['see it'] == 'refused FileNotFoundError'


def test_a_system_without_guards_is_refused_unless_trusted(cell, monkeypatch):
    monkeypatch.setattr(jail, 'landlock_version', lambda: 0)
    with pytest.raises(ConfigError, match=r'no Landlock .* --trust') as e:
        sandbox.run(cell('print(1)'))
    assert '\n' not in str(e.value)
    assert sandbox.run(cell('print(1)'), trust=True).reason == ''


ENDS = {
    'never ends': ('while True: pass', {'seconds': 1}, 'longer than 1 s'),
    'sleeps': ('import time; time.sleep(99)', {'seconds': 1}, 'longer than 1 s'),
    'eats memory': ('x = []\nwhile True: x.append(bytearray(b"x" * 10**7))', {'memory': 200 << 20}, '200 MB of memory'),
    'asks for all memory': ('bytearray(1 << 40)', {}, 'MemoryError'),
    'prints megabytes': ('while True: print("x" * 10**6)', {'file_bytes': 5 << 20}, 'printed'),
    'a large file': ('open("x", "wb").write(b"x" * 10**7)', {'file_bytes': 1 << 20}, 'File too large'),
    'many files': ('i = 0\nwhile True:\n open(f"x{i}", "w"); i += 1', {}, 'files, expected at most'),
    'much in all': ('i = 0\nwhile True:\n open(f"x{i}", "wb").write(b"x" * 10**6); i += 1', {'folder_bytes': 9 << 20},
                    'wrote'),
    'breaks the interpreter': ('import ctypes; ctypes.string_at(0)', {}, 'SIGSEGV'),
    'an exit': ('import sys; sys.exit("I am\\nleaving")', {}, 'leaving'),
    'many lines of error': ('raise ValueError("a\\nb\\nc")', {}, 'c'),
}


@pytest.mark.parametrize('what', ENDS)
def test_what_misbehaves_ends_in_one_line(cell, what):
    text, limits, said = ENDS[what]
    outcome = sandbox.run(cell(text, **{'seconds': 20} | limits))
    assert said in outcome.reason and '\n' not in outcome.reason and len(outcome.reason) < 400
    assert len(outcome.output) <= sandbox.KEPT


def test_what_ends_well_has_no_reason_and_a_clean_environment(cell, monkeypatch):
    monkeypatch.setenv('SECRET_TOKEN', 'x')
    outcome = sandbox.run(cell('import os; print(sorted(os.environ), os.getcwd()); open("mine", "w").write("x")'))
    assert outcome.reason == '' and 'SECRET_TOKEN' not in outcome.output and 'HOME' in outcome.output
    assert outcome.output.strip().endswith('/job/work')


@needs_kernel
def test_threads_go_on_and_limits_of_its_own_are_read(cell):
    outcome = sandbox.run(cell('import threading, resource\nt = threading.Thread(target=print, args=("threaded",))\n'
                               't.start(); t.join(); resource.getrlimit(resource.RLIMIT_NOFILE)'))
    assert outcome.reason == '' and 'threaded' in outcome.output


@pytest.mark.parametrize('guarded', [pytest.param(True, marks=needs_kernel), False])
def test_a_judge_that_is_killed_leaves_nobody_behind(cell, tmp_path, guarded):
    one = cell('import os, time; open("pid", "w").write(str(os.getpid())); os.rename("pid", "number"); time.sleep(99)')
    text = (f'import pathlib; from researcher import sandbox; p = pathlib.Path({str(one.folder)!r})\n'
            f'if not {guarded}: sandbox.missing = lambda: ["a guard"]\n'
            'sandbox.run(sandbox.Cell(p / "in" / "script.py", (), p), True)')
    judge = subprocess.Popen([sys.executable, '-c', text], cwd=sandbox.HERE.parent)
    number = one.folder / 'work' / 'number'
    wait_for(number.exists)
    judge.kill()
    judge.wait()
    wait_for(lambda: not sandbox.resident(int(number.read_text())))


def wait_for(what):
    for _ in range(300):
        if what():
            return
        time.sleep(.1)
    raise AssertionError('not in 30 s')


NOTES = """
import os, sys
sys.path.insert(0, {root!r})
from researcher import attempts
attempts.note(int(sys.argv[-1]), ['/usr', sys.prefix], [os.getcwd()], 'script.py', [])
for what in ({calls}):
    try: what()
    except Exception: pass
"""


def test_attempts_are_logged_and_usual_reads_are_not(cell, monkeypatch):
    monkeypatch.setattr(sandbox, 'missing', lambda: ['a guard'])  # of the hook alone
    calls = ('lambda: open("/etc/shadow"), lambda: __import__("socket").socket(), lambda: os.system("true"), '
             'lambda: open("x", "w"), lambda: open("/usr/nothing"), lambda: open("/usr/nothing", "w"), '
             'lambda: os.listdir("/root"), lambda: __import__("ctypes").CDLL(None)')
    found = sandbox.run(cell(NOTES.format(root=str(sandbox.HERE.parent), calls=calls)), trust=True).attempts
    text = '\n'.join(found)
    for what in ('open /etc/shadow', 'socket.', 'os.system', 'open to write /usr/nothing', 'os.listdir /root',
                 'ctypes.dlopen'):
        assert what in text
    assert not any(line in found for line in ('open /usr/nothing', 'open to write x'))


def test_a_log_without_end_is_cut():
    guards, tried = sandbox.said('{"guards": ["a"]}\n' + '\n'.join(f'line {i}' for i in range(9999)), 0)
    assert guards == ['a'] and len(tried) == sandbox.LINES
    assert sandbox.said('nonsense', 0) == ([], [])


def test_modes_of_opening():
    assert attempts.writes('a') and attempts.writes('r+') and attempts.writes(None, os.O_RDWR)
    assert not attempts.writes('rb') and not attempts.writes(None, os.O_RDONLY | os.O_CLOEXEC)
    assert attempts.below('/a/b', ['/a']) and not attempts.below('/ab', ['/a'])


def test_the_jail_is_of_the_standard_library_alone():
    """Other libraries start threads, which would not be bound."""
    names = {line.split()[1] for line in (sandbox.HERE / 'jail.py').read_text().splitlines()
             if line.startswith(('import ', 'from '))}
    assert names <= set(sys.stdlib_module_names)
