"""Whatever a user does wrong ends in one line that says what and where, exit status 2 and no traceback."""
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from commands import error

from w2s_jax.models import zoo
from w2s_jax.tasks.chess import puzzles
from w2s_jax.train.runs import History

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f'--config={ROOT}/configs/salient_concept.py'
CHESS = f'--config={ROOT}/configs/chess.py'
SMALL = (CONFIG, '--config.seeds=(0, 3)', '--config.task.train_size=200', '--config.task.test_size=60',
         '--config.train.epochs=2', '--config.train.batch_size=20', '--config.report.html=False')
CONFIDENT = '--config.student.loss.name=confidence'
needs_puzzles = pytest.mark.skipif(not puzzles.PUZZLES.exists(), reason=f'{puzzles.PUZZLES} is not there')


# As a user starts it


def start(*args):
    done = subprocess.run([sys.executable, '-m', 'experiments.run', *args], cwd=ROOT, capture_output=True, text=True,
                          timeout=600)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_help_is_no_error():
    code, out, err = start('--help')
    assert code == 0 and err == ''
    assert 'One experiment, all phases' in out and '--config' in out and '--workdir' in out


@pytest.mark.long
def test_what_was_compiled_is_kept_for_the_next_command_and_changes_no_number(tmp_path, monkeypatch):
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')  # what is kept must not depend on the load
    small = ['--config=configs/salient_concept.py', '--config.seeds=(0,)', '--config.task.train_size=640',
             '--config.task.test_size=100', '--config.report.html=False']
    found, kept = [], []
    for name in ('first', 'second'):
        assert start(*small, f'--workdir={tmp_path / name}')[0] == 0
        kept.append(set(tmp_path.glob('w2s_jax/compiled/*/*-cache')))
        found.append(json.loads((tmp_path / name / 'results.json').read_text()) | {'timing': None})
    assert len(kept[0]) > 0 and kept[0] == kept[1] and found[0] == found[1]


@pytest.mark.long
def test_an_error_in_a_process_of_its_own(tmp_path):
    result = start('--config=configs/salient_concept.py', f'--workdir={tmp_path / "w"}', '--config.stduent.model=x')
    assert error(result) == 'stduent: no such field; did you mean student?'
    assert result[1] == '' and result[2].count('\n') == 1
    assert not (tmp_path / 'w').exists()


# Flags


@pytest.mark.parametrize(('args', 'expected'), [
    (['--config.student.modle=x'], r'^student.modle: no such field; did you mean .*student.model'),
    (['--config.student.loss.nam=.5'], r'^student.loss.nam: no such field; did you mean student.loss.name'),
    (['--config.student.loss.alpha=.5'], r'^student.loss.alpha: no such field here, expected student.loss.name to be '),
    (['--config.student.loss.name=confidence', '--config.student.loss.alfa=.5'],
     r'^student.loss.alfa: no such field; did you mean student.loss.alpha'),
    (['--noconfig.report.htm'], r'^report.htm: no such field; did you mean report.html\?'),
    (['--config.train.epochs=two'], r"--config.train.epochs=two: .*'two'"),
    (['--config.train.epochs=2.5'], r"--config.train.epochs=2.5: .*'2.5'"),
    (['--config.report.html=maybe'], r"--config.report.html=maybe: .*boolean"),
    (['--config.student=mlp-128'], r'--config.student=mlp-128: '),
    (['--config.seeds=(1, 2'], r'--config.seeds=\(1, 2: '),
    (['--confg=x'], r"'confg'\. Did you mean: config"),
    (['--workdri=x'], r"'workdri'\. Did you mean: workdir"),
    (['runs/here'], r'^runs/here: unexpected argument'),
])
def test_a_bad_flag(cli, tmp_path, args, expected):
    assert re.search(expected, error(cli(CONFIG, f'--workdir={tmp_path / "w"}', *args)))
    assert not (tmp_path / 'w').exists()


def test_a_missing_flag(cli, tmp_path):
    assert error(cli(f'--workdir={tmp_path}')).startswith('--config: missing')
    assert error(cli(CONFIG)).startswith('--workdir: missing')
    assert error(cli(CONFIG, '--workdir')) == 'Missing value for flag --workdir'
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('text', 'expected'), [
    ('def get_config(:\n', ': line 1: SyntaxError: '),
    ('x = 1\n', "has no attribute 'get_config'"),
    ('def get_config():\n    return nothing_here\n', ": line 2: NameError: name 'nothing_here' is not defined"),
    ('def get_config():\n    return {}["key"]\n', ": line 2: KeyError: 'key'"),
    ('def get_config():\n    pass\n', 'get_config() returned something else'),
    ('def get_config():\n    return {"train": 3}\n', 'get_config() returned something else'),
    ('import nonesuch\n', ": line 1: ModuleNotFoundError: No module named 'nonesuch'"),
    ('from w2s_jax.config import default_config as c\ndef get_config():\n    d = c()\n    d.train.epochs = 2.5\n'
     '    return d\n', ': line 4: TypeError: '),
    ('from w2s_jax.config import default_config as c\ndef get_config():\n    return c("x")\n', ': line 3: TypeError: '),
    ('1 / 0', ': line 1: ZeroDivisionError: '),
])
def test_a_config_file_with_an_error_in_it(cli, tmp_path, text, expected):
    path = tmp_path / 'mine.py'
    path.write_text(text)
    line = error(cli(f'--config={path}', f'--workdir={tmp_path / "w"}'))
    assert line.startswith(f'--config={path}: ') and expected in line


def test_a_misspelt_field_in_a_config_file(cli, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('from w2s_jax.config import default_config\ndef get_config():\n    c = default_config()\n'
                    '    c.train.epoch = 3\n    return c\n')
    line = error(cli(f'--config={path}', f'--workdir={tmp_path / "w"}'))
    assert line == 'train.epoch: no such field; did you mean train.epochs?'


def test_a_config_file_that_is_not_there(cli, tmp_path):
    for path in (tmp_path / 'nowhere.py', tmp_path, ''):
        line = error(cli(f'--config={path}', f'--workdir={tmp_path / "w"}'))
        assert line.startswith(f'--config={path}: no such file')


# Values


@pytest.mark.parametrize(('args', 'expected'), [
    ([CONFIDENT, '--config.student.loss.alpha=2'],
     'student.loss.alpha: 2.0, expected a number in [0, 1]'),
    ([CONFIDENT, '--config.student.loss.alpha=nan'],
     'student.loss.alpha: nan, expected a number in [0, 1]'),
    (['--config.student.loss.name=confidense'], "student.loss.name: unknown 'confidense'"),
    (['--config.student.model=mlp-129'], "student.model: unknown 'mlp-129'"),
    (['--config.task.name=salient'], "task.name: unknown 'salient'"),
    (['--config.student.model=chess-xs'], "student.model: 'chess-xs' does not fit task 'salient_concept'"),
    (['--config.labels.source=teacher', '--config.teacher.model=chess-xs'],
     "teacher.model: 'chess-xs' does not fit task 'salient_concept'"),
    (['--config.train.batch_size=101'], 'train.batch_size: 101, expected at most 100, the rows that the student'),
    (['--config.task.train_size=3'], 'task.train_size: 3'),
    (['--config.task.seed=-1'], 'task.seed: -1'),
    (['--config.mesh.data=3'], 'mesh: data=3'),
    (["--config.plugins=('no_such_plugin',)"], "plugins: cannot import 'no_such_plugin' (ModuleNotFoundError"),
    (['--config.plugins=no_such_plugin'], "plugins: cannot import 'no_such_plugin' (ModuleNotFoundError"),
])
def test_a_bad_value(cli, tmp_path, args, expected):
    assert error(cli(*SMALL, f'--workdir={tmp_path}', *args)).startswith(expected)
    assert not list(tmp_path.glob('store/*/DONE')) and not (tmp_path / 'results.json').exists()


def test_a_plugin_with_an_error_in_it(cli, tmp_path, monkeypatch):
    (tmp_path / 'broken_plugin.py').write_text('from w2s_jax.losses import LOSSES\nLOSSES["mine"] = undefined\n')
    monkeypatch.syspath_prepend(tmp_path)
    line = error(cli(*SMALL, f'--workdir={tmp_path / "w"}', '--config.plugins=broken_plugin'))
    assert line == "plugins: cannot import 'broken_plugin' (NameError: name 'undefined' is not defined)"


@needs_puzzles
def test_given_labels_that_the_task_does_not_bring(cli, tmp_path):
    line = error(cli(f'{CHESS}:chess-xs,chess-xs', f'--workdir={tmp_path}', '--config.labels.source=column'))
    assert line == "labels.source: 'column', but task 'chess' brings no weak labels"


def test_a_data_file_that_is_not_there(cli, tmp_path):
    path = tmp_path / 'nowhere.npz'
    assert error(cli(CHESS, f'--workdir={tmp_path}', f'--config.task.path={path}')) == f'{path}: no such file'


def test_a_data_file_that_needs_an_extra(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'chess', None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, 'w2s_jax.tasks.chess.files', raising=False)
    monkeypatch.delitem(sys.modules, 'w2s_jax.tasks.chess.board', raising=False)
    monkeypatch.delattr('w2s_jax.tasks.chess.files', raising=False)
    monkeypatch.delattr('w2s_jax.tasks.chess.board', raising=False)
    line = error(cli(CHESS, f'--workdir={tmp_path}', f'--config.task.path={tmp_path / "games.pgn"}'))
    assert line.startswith('task.path: ') and "needs the extra 'chess'" in line


@needs_puzzles
@pytest.mark.parametrize('content', [None, b'', b'\x80\x04 not weights', b'\xff' * 500])
def test_a_weight_file_that_cannot_be_used(cli, tmp_path, monkeypatch, content):
    (tmp_path / 'chess').mkdir()
    path = tmp_path / 'chess' / 'chess-xs.safetensors'
    if content is not None:
        path.write_bytes(content)
    zoo.pretrained_chess.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(zoo, 'ASSETS', tmp_path)
        line = error(cli(f'{CHESS}:chess-xs,chess-xs', f'--workdir={tmp_path / "w"}'))
    zoo.pretrained_chess.cache_clear()
    assert line.startswith(f'{path}: ')


# Work directories


def test_a_work_directory_that_cannot_be_written(cli, tmp_path):
    (tmp_path / 'file').write_text('')
    line = error(cli(*SMALL, f'--workdir={tmp_path / "file" / "w"}'))
    assert line == f'--workdir: {tmp_path}/file/w: lies below a file, expected a folder'


def test_a_loss_that_is_not_a_number_names_model_seed_and_step_and_the_others_are_kept(cli, tmp_path):
    args = (*SMALL, f'--workdir={tmp_path}', '--config.optimizer.name=sgd', '--config.optimizer.learning_rate=1000',
            '--config.task.seed=2')
    line = error(cli(*args))
    assert re.search(r'^mlp-128 .*: seed [03]: loss is (nan|inf) at step \d+, expected a finite number', line)
    done = set(tmp_path.glob('store/*/DONE'))
    assert done and list(tmp_path.glob('store/*/FAILED')) and not list(tmp_path.glob('store/pending/*'))
    assert error(cli(*args)) == line and set(tmp_path.glob('store/*/DONE')) == done


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used_without_it(cli, tmp_path, monkeypatch):
    args = (*SMALL, f'--workdir={tmp_path}', '--config.train.checkpoint_every=1')
    with monkeypatch.context() as patch:
        record, calls = History.record, []

        def interrupted(*given):
            record(*given)
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
        patch.setattr(History, 'record', interrupted)
        assert cli(*args)[0] == 130
    kept = [p for p in tmp_path.glob('store/pending/*/*/checkpoint/*') if p.name.isdigit()]
    newest = max(kept, key=lambda p: int(p.name))
    for file in newest.glob('trees/ocdbt.process_0/d/*'):
        file.write_bytes(bytes(255 - b for b in file.read_bytes()))
    named = pathlib.Path(error(cli(*args)).partition(': unreadable checkpoint')[0])  # of a later holder of the lease
    assert named.is_dir() and named.name == newest.name and named.parents[2] == newest.parents[2]
    shutil.rmtree(named)
    assert cli(*args)[0] == 0


def test_a_config_that_was_corrected_may_use_the_same_work_directory(cli, tmp_path):
    args = (*SMALL, f'--workdir={tmp_path}')
    assert error(cli(*args, '--config.train.batch_size=101')).startswith('train.batch_size')
    assert cli(*args)[0] == 0


def files(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


def result(folder: pathlib.Path) -> dict:
    return {k: v for k, v in json.loads((folder / 'results.json').read_text()).items() if k != 'timing'}


def test_a_finished_work_directory(cli, tmp_path):
    args = (*SMALL, f'--workdir={tmp_path}')
    code, out, err = cli(*args)
    assert code == 0 and 'results.json' in out and 'Traceback' not in err
    stored, first = files(tmp_path / 'store'), result(tmp_path)
    assert len(list(tmp_path.glob('store/*/DONE'))) == 5  # two seeds of ceiling and student, one evaluation

    code, _, err = cli(*args)  # again: nothing is trained
    assert code == 0 and files(tmp_path / 'store') == stored and result(tmp_path) == first
    assert 'step' not in err

    line = error(cli(*args, '--config.train.epochs=3'))  # another config: nothing is touched
    assert line.startswith(f'{tmp_path}: belongs to another config (train.epochs is 2 there, 3 here)')
    assert files(tmp_path / 'store') == stored

    (tmp_path / 'config.json').write_text('{"half')  # a damaged work directory
    assert error(cli(*args)).startswith(f'{tmp_path}/config.json: unreadable')
    assert files(tmp_path / 'store') == stored


def test_a_damaged_artifact_is_named(cli, tmp_path):
    args = (*SMALL, f'--workdir={tmp_path}')
    assert cli(*args)[0] == 0
    [evaluation] = tmp_path.glob('store/evaluate-*')
    (evaluation / 'metrics.json').write_text('{')
    line = error(cli(*args))
    assert line.startswith(f'{evaluation}/metrics.json: has changed since it was written')
    assert f'delete {evaluation}' in line
