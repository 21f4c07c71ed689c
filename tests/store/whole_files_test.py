"""Files that several processes write and read at once."""
import multiprocessing
import os
import pathlib

import pytest

from w2s_jax.store import files

PROCESSES = multiprocessing.get_context('forkserver')
PROCESSES.set_forkserver_preload(['pytest', 'w2s_jax.store.files'])
NAMES = {'report.html': str.encode, 'results.csv': str, 'results.tex': str, 'learning curves [1].png': str.encode}


def write_often(folder: pathlib.Path, letter: str) -> None:
    for _ in range(100):
        for name, kind in NAMES.items():
            files.write(folder / name, kind(letter * 50_000))


def test_two_processes_write_the_same_files_while_another_reads(tmp_path):
    for name in NAMES:
        files.write(tmp_path / name, 'c' * 50_000)
    writers = [PROCESSES.Process(target=write_often, args=(tmp_path, letter)) for letter in 'ab']
    for writer in writers:
        writer.start()
    seen = set()
    while any(w.is_alive() for w in writers):
        seen |= {(len(text), *set(text)) for name in NAMES for text in [(tmp_path / name).read_text()]}
    assert [w.exitcode for w in writers] == [0, 0]
    assert seen <= {(50_000, letter) for letter in 'abc'}
    assert {p.name for p in tmp_path.iterdir()} == {*NAMES}


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name in ('a [1].png', 'a 1.png'):
        (tmp_path / f'.part-{name}-{files.lease.process().rpartition(".")[0]}.no such start.7').write_text('half')
    files.write(tmp_path / 'a [1].png', b'whole')
    assert (tmp_path / 'a [1].png').read_bytes() == b'whole'
    assert [p.name for p in tmp_path.iterdir() if 'a 1.png' in p.name]  # of another file
    assert len([*tmp_path.iterdir()]) == 2


def test_a_file_that_cannot_take_its_place_leaves_nothing_aside(tmp_path):
    (tmp_path / 'folder').mkdir()
    with pytest.raises(OSError):
        files.write(tmp_path / 'folder', 'text')
    assert os.listdir(tmp_path) == ['folder']
