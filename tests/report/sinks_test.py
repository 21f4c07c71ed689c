"""Where numbers go beside metrics.jsonl: event files are read back, the optional packages are stood in for."""
import io
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from w2s_jax import config as configs
from w2s_jax.errors import ConfigError
from w2s_jax.report import sinks
from w2s_jax.report.log import Log


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def events(path) -> list[Event]:
    """The records of an event file: length, its checksum, data, its checksum."""
    raw, found = path.read_bytes(), []
    while raw:
        header = raw[:8]
        size, = struct.unpack('<Q', header)
        data = raw[12:12 + size]
        assert struct.unpack('<I', raw[8:12]) == (masked(header),)
        assert struct.unpack('<I', raw[12 + size:16 + size]) == (masked(data),)
        found.append(Event.FromString(data))
        raw = raw[16 + size:]
    return found


def scalars(path) -> list[tuple[int, dict]]:
    first, *rest = events(path)
    assert first.file_version == 'brain.Event:2'
    return [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in rest]


def test_the_checksum_is_castagnolis():
    assert crc32c(b'123456789') == 0xE3069283


def test_event_files_hold_every_number(tmp_path):
    log = Log(tmp_path / 'metrics.jsonl', io.StringIO(), sinks=sinks.openers(('tensorboard',), tmp_path))
    log.progress('student: seeds 0, 1', 16, 32, {'loss': np.array([.5, .25]), 'alpha': np.array([.75, .75])})
    log.progress('student: seeds 0, 1', 32, 32, {'loss': np.array([np.nan, .25]), 'alpha': np.array([.75, .75])})
    path, = (tmp_path / 'tensorboard' / 'student: seeds 0, 1').glob('events.out.tfevents.*')
    alpha = {'alpha': .75, 'alpha/0': .75, 'alpha/1': .75}
    assert scalars(path) == [(16, {'loss': .375, 'loss/0': .5, 'loss/1': .25, **alpha}),
                             (32, {'loss': .25, 'loss/1': .25, **alpha})]


def test_a_process_that_resumes_writes_beside_the_one_before(tmp_path):
    for step in (1, 2, 3):  # within a second
        place = sinks.tensorboard(tmp_path)('a')
        place.scalars(step, {'loss': 1.0})
        place.close()
    found = [scalars(p) for p in (tmp_path / 'tensorboard' / 'a').iterdir()]
    assert sorted(found) == [[(step, {'loss': 1.0})] for step in (1, 2, 3)]


def test_what_was_measured_is_on_disk_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, 'FLUSH', 0.0)
    place = sinks.tensorboard(tmp_path)('a')
    place.scalars(1, {'loss': 1.0})
    path, = (tmp_path / 'tensorboard' / 'a').iterdir()
    assert scalars(path) == [(1, {'loss': 1.0})]
    place.close()


def test_groups_of_one_process_have_files_of_their_own(tmp_path):
    [open_files] = sinks.openers(('tensorboard',), tmp_path)
    places = {label: open_files(label) for label in 'ab'}
    for step in (1, 2):
        for label, place in places.items():
            place.scalars(step, {label: float(step)})
    for label, place in places.items():
        place.close()
        path, = (tmp_path / 'tensorboard' / label).iterdir()
        assert scalars(path) == [(step, {label: float(step)}) for step in (1, 2)]


FULL = """
import io, pathlib, resource, sys
import numpy as np
from w2s_jax.errors import StoreError
from w2s_jax.report import sinks
from w2s_jax.report.log import Log
log = Log(None, io.StringIO(), sinks=sinks.openers(('tensorboard',), pathlib.Path(sys.argv[1])))
log.progress('a', 1, 5000, {'loss': np.ones(3)})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for end in (lambda: [log.progress('a', step, 5000, {'loss': np.ones(3)}) for step in range(2, 5000)], log.close):
    try:
        end()
    except StoreError as e:
        print(e)
"""


def test_a_full_disk_is_an_error_in_one_line_and_nobody_waits(tmp_path):
    done = subprocess.run([sys.executable, '-c', FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, '')
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(line.endswith('cannot be written (File too large)') for line in lines)


@pytest.mark.parametrize('label', ['a/b', '../../etc', '.', '', 'x' * 500, 'ü/ß', 'a\nb', 'rung 1: owner/name: seed 0'])
def test_a_label_is_one_folder(tmp_path, label):
    name = sinks.folder_name(label)
    (tmp_path / name).mkdir()
    assert (tmp_path / name).parent == tmp_path and '/' not in name and len(name) <= 100
    assert (tmp_path / name).resolve().parent == tmp_path.resolve() and name.isprintable()
    assert sinks.folder_name(label + '/') != name


class FakeRun:
    def __init__(self, options):
        self.options, self.entries, self.finished = options, [], False

    def log(self, values, step=None):
        self.entries.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def package(request, monkeypatch):
    """A module of that name whose `init` takes what the real one takes and nothing else."""
    runs = []

    def init(*, project, group, name, resume, id=None, dir=None, mode=None, reinit=None, settings=None,
             embed=None, auto_log_gpu=None, auto_log_cpu=None):
        runs.append(FakeRun(locals() | {'runs': None}))
        return runs[-1]
    module = types.ModuleType(request.param)
    module.init = init
    monkeypatch.setitem(sys.modules, request.param, module)
    return request.param, runs


@pytest.mark.parametrize('package', ['wandb', 'trackio'], indirect=True)
def test_a_run_for_each_group(package, tmp_path):
    name, runs = package
    log = Log(None, io.StringIO(), sinks=sinks.openers((name,), tmp_path))
    assert not runs  # nothing is opened before there are numbers
    for label in ('a', 'b'):
        log.progress(label, 1, 2, {'loss': np.array([.5, .25])})
    log.progress('a', 2, 2, {'loss': np.array([.25, .25])})
    first, second = runs
    assert first.entries == [(1, {'loss': .375, 'loss/0': .5, 'loss/1': .25}),
                             (2, {'loss': .25, 'loss/0': .25, 'loss/1': .25})]
    assert first.finished and not second.finished
    assert first.options['group'] == tmp_path.name and first.options['resume'] == 'allow'
    assert first.options['name'].startswith('a') and second.options['name'].startswith('b')


@pytest.mark.parametrize('package', ['wandb'], indirect=True)
@pytest.mark.parametrize('mode', ['offline', 'disabled', None])
def test_wandb_does_as_its_variable_says(package, tmp_path, monkeypatch, mode):
    name, runs = package
    monkeypatch.delenv('WANDB_MODE', raising=False)
    if mode:
        monkeypatch.setenv('WANDB_MODE', mode)
    [open_run] = sinks.openers((name,), tmp_path)
    for _ in range(2):
        open_run('a')
    [other] = sinks.openers((name,), tmp_path / 'other')
    other('a')
    assert {r.options['mode'] for r in runs} == {mode} and runs[0].options['dir'] == str(tmp_path)
    assert runs[0].options['id'] == runs[1].options['id'] != runs[2].options['id']  # a killed run is resumed


@pytest.mark.parametrize('name', ['wandb', 'trackio', 'tensorboardX'])
def test_a_package_that_is_not_there_is_an_error_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as e:
        sinks.openers(('tensorboard' if name == 'tensorboardX' else name,), tmp_path)
    assert str(e.value) == f'report.sinks: {name} is not installed; pip install {name}'


def test_a_package_that_is_broken_says_why(tmp_path, monkeypatch):
    (tmp_path / 'wandb.py').write_text('import no_such_module_of_mine')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'wandb', raising=False)
    with pytest.raises(ConfigError, match=r"^report\.sinks: wandb cannot be imported \(.*no_such_module_of_mine.*\)"):
        sinks.openers(('wandb',), tmp_path)


def test_the_config_names_sinks():
    config = configs.default_config()
    assert config.report.sinks == ('tensorboard',)
    config.report.sinks = ('tensorbord',)
    with pytest.raises(ConfigError, match=r"^report\.sinks: unknown 'tensorbord'.*did you mean 'tensorboard'"):
        configs.validate(config)
    assert not configs.decides(configs.default_config(), 'report.sinks')
    assert sinks.openers((), 'unused') == []
