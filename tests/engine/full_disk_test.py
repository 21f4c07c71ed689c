"""A disk that fills up at any moment: one line, nothing is lost, and the same command resumes."""
import json
import pathlib
import shutil
import subprocess

import pytest
import tiny
from grid_kill_test import GRID, finish, grid_outcome, start
from words import sentences

pytestmark = pytest.mark.slow

FULL = ('-m', 'experiments.run', '--config=configs/own_data.py:full', '--config.task.path={folder}/../rows',
        '--config.task.text=text', '--config.task.label=label', '--config.teacher.model={folder}/../tiny',
        '--config.student.model={folder}/../tiny', '--config.seeds=(0,)', '--config.train.epochs=1',
        '--config.train.batch_size=32', '--config.train.checkpoint_every=2', '--config.report.resamples=100',
        '--workdir={folder}')
LEFT = [4, 12, 40, 100, 200, 400, 700, 1000, 1400, 1900]  # kilobytes: ten moments of one run


@pytest.fixture
def small_disk(tmp_path):
    """A file system of some megabytes."""
    path = tmp_path / 'disk'
    path.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'may not mount a file system here ({done.stderr.strip()})')
    yield path
    subprocess.run(['umount', '--lazy', path], check=True)


def run(command, folder: pathlib.Path) -> tuple[int, str]:
    """Exit status and standard error of a command that is left alone."""
    process = start(command, folder)
    err = process.communicate(timeout=600)[1]
    return process.returncode, err


def with_left(kilobytes: int, disk: pathlib.Path, command, folder: pathlib.Path) -> tuple[int, str]:
    """`run`, with no more than that left of a disk."""
    filler = disk / 'filler'
    filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - 1024 * kilobytes)))
    try:
        return run(command, folder)
    finally:
        filler.unlink()


def check_line(code: int, err: str) -> None:
    """It ended in one line that says why, and where."""
    assert code == 2 and 'Traceback' not in err and 'Exception' not in err, err
    last = err.splitlines()[-1]
    assert last.startswith('error: /') and 'no space left on device' in last.lower(), err


def check_full(command, tmp_path, disk, left: list[int], outcome) -> int:
    """With ever more kilobytes left it ends in one line, and with enough as if nothing had been. Returns how often it
    failed."""
    folder, failed = disk / 'w', 0
    finish(command, tmp_path / 'whole')
    for size in left:
        code, err = with_left(size, disk, command, folder)
        if code == 0:
            break
        failed += 1
        check_line(code, err)
    assert run(command, folder)[0] == 0
    assert outcome(folder) == outcome(tmp_path / 'whole')
    assert not list(folder.rglob('.part-*')) and not list(folder.rglob('pending/*'))
    return failed


def test_a_grid_goes_on(tmp_path, small_disk):
    assert check_full(GRID, tmp_path, small_disk, [8, 20, 60, 200, 500, 1000, 2000], grid_outcome) > 0


def run_outcome(folder: pathlib.Path) -> dict:
    found = json.loads((folder / 'results.json').read_text())
    return {k: found[k] for k in ('weak', 'students', 'ceiling')}


def make_rows(*parents: pathlib.Path) -> None:
    for parent in parents:
        tiny.folder(parent / 'tiny')
        (parent / 'rows').mkdir()
        (parent / 'rows' / 'train.jsonl').write_text('\n'.join(map(json.dumps, sentences(400))))


def test_a_run_its_report_and_its_export_go_on(tmp_path, small_disk):
    make_rows(tmp_path, small_disk)
    assert check_full(FULL, tmp_path, small_disk, LEFT, run_outcome) >= 4
    folder = small_disk / 'w'
    before = (folder / 'report.html').read_bytes(), (folder / 'results.json').read_bytes()
    report = ('-m', 'experiments.report', '--workdir={folder}')
    for size in (0, 4):
        check_line(*with_left(size, small_disk, report, folder))
        assert ((folder / 'report.html').read_bytes(), (folder / 'results.json').read_bytes()) == before
    assert run(report, folder)[0] == 0
    export = ('-m', 'experiments.export', '--workdir={folder}', '--out={folder}/../out', '--loss=xent')
    for size in (0, 4, 20):
        check_line(*with_left(size, small_disk, export, folder))
        assert not (small_disk / 'out').exists() and not list(small_disk.glob('*out*'))
    assert run(export, folder)[0] == 0 and list((small_disk / 'out').glob('*.safetensors'))
