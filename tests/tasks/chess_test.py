"""The chess task: saved puzzles to examples, sizes and seeds, and what is refused."""
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import sections

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.models import chess_moves as vocabulary
from w2s_jax.tasks.chess import puzzles as chess_task

ROOT = pathlib.Path(__file__).parents[2]


def load(path='', **fields):
    return chess_task.load(sections.task('chess', path=str(path), **fields), log=lambda line: None)


def refused(path='', error=DataError, **fields) -> str:
    """The message of the error, which must be one line."""
    with pytest.raises(error) as caught:
        load(path, **fields)
    message = str(caught.value)
    assert '\n' not in message
    assert len(message) < 500
    return message


def all_rows(dataset) -> list[tuple]:
    return sorted((e.inputs['tokens'][i].tobytes(), int(e.truth[i]), int(e.group[i]), e.extras['allowed'][i].tobytes())
                  for e in (dataset.pool, dataset.test) for i in range(len(e)))


def same(a, b) -> bool:
    return all_rows(a) == all_rows(b) and all(np.array_equal(x.truth, y.truth) and np.array_equal(
        x.inputs['tokens'], y.inputs['tokens']) for x, y in ((a.pool, b.pool), (a.test, b.test)))


def built_in(path, n=40, per_game=2):
    """A file of made-up puzzles: any tokens and moves will do."""
    rng = np.random.default_rng(0)
    legal = np.full((n, 218), 65535, np.uint16)
    for row, count in zip(legal, rng.integers(1, 40, n), strict=True):
        row[:count] = np.sort(rng.choice(vocabulary.NUM_MOVES, count, replace=False))
    arrays = {'tokens': rng.integers(0, 16, (n, 64)), 'move': legal[:, 0], 'game': np.arange(n) // per_game,
              'legal': legal}
    chess_task.save_puzzles(path, **arrays)
    return arrays


def test_what_was_saved_is_read(tmp_path):
    arrays = built_in(tmp_path / 'p.npz')
    rows = chess_task.read_puzzles(tmp_path / 'p.npz')
    np.testing.assert_array_equal(rows.inputs['tokens'][:, 0], arrays['tokens'])
    np.testing.assert_array_equal(rows.extras['allowed'], arrays['legal'])
    np.testing.assert_array_equal(rows.truth, arrays['move'])
    np.testing.assert_array_equal(rows.group, arrays['game'])
    assert rows.inputs['tokens'].dtype == np.uint8
    assert (rows.truth.dtype, rows.group.dtype, rows.extras['allowed'].dtype) == (np.int32, np.int64, np.uint16)


@pytest.mark.long
def test_loads_without_python_chess(tmp_path):
    built_in(tmp_path / 'p.npz')
    script = f'''
import sys
sys.modules['chess'] = None
sys.path[:0] = [{str(ROOT / 'tests' / 'tasks')!r}, {str(ROOT / 'tests' / 'helpers')!r}]
from chess_test import load, refused
from w2s_jax.errors import ConfigError
from w2s_jax.tasks.chess import puzzles
puzzles.PUZZLES = {str(tmp_path / 'p.npz')!r}
dataset = load()
assert len(dataset.pool) + len(dataset.test) == 40 and dataset.num_classes == 1858
print(refused('any.csv', ConfigError))
'''
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("task.path: reading chess files needs the extra 'chess' "
                           "(pip install 'w2s_jax[chess]')\n")


@pytest.mark.parametrize('per_game', [1, 2, 7])
@pytest.mark.parametrize('train_size, test_size', [(0, 0), (10, 0), (0, 10), (20, 10), (3, 30)])
def test_sizes_are_met_and_games_never_straddle(tmp_path, per_game, train_size, test_size):
    built_in(tmp_path / 'p.npz', 100, per_game)
    dataset = load(tmp_path / 'p.npz', train_size=train_size, test_size=test_size)
    assert not np.intersect1d(dataset.pool.group, dataset.test.group).size
    assert len(dataset.test) == test_size or (test_size == 0 and abs(len(dataset.test) - 20) <= per_game)
    if train_size:
        assert len(dataset.pool) == train_size
    elif per_game == 1:
        assert len(dataset.pool) + len(dataset.test) == 100


def test_the_test_set_and_the_sample_follow_the_seed(tmp_path):
    built_in(tmp_path / 'p.npz', 200)
    first, again, other = (load(tmp_path / 'p.npz', seed=s, train_size=50) for s in (1, 1, 2))
    assert same(first, again)
    assert not np.array_equal(first.test.truth, other.test.truth)
    larger = load(tmp_path / 'p.npz', seed=1, train_size=100)  # the test set does not depend on the pool's size
    np.testing.assert_array_equal(first.test.truth, larger.test.truth)


@pytest.mark.parametrize('fields, expected', [
    ({'train_size': -1}, 'task.train_size: -1'), ({'test_size': -3}, 'task.test_size: -3'), ({'seed': -1}, 'task.seed'),
    ({'min_rating': -1}, 'task.min_rating: -1'), ({'min_rating': 1500, 'max_rating': 1000}, 'task.max_rating = 1000'),
    ({'max_bad_rows': 1.5}, 'task.max_bad_rows: 1.5'), ({'positions_per_game': 0}, 'task.positions_per_game: 0'),
    ({'min_rating': 1000}, 'no ratings')])
def test_contradictory_fields_are_refused(tmp_path, fields, expected):
    built_in(tmp_path / 'p.npz')
    assert expected in refused(tmp_path / 'p.npz', ConfigError, **fields)


@pytest.mark.parametrize('fields, expected', [
    ({'train_size': 41}, '40 usable'), ({'train_size': 30, 'test_size': 20}, '30 + 20, expected at most the 40'),
    ({'test_size': 40}, 'fewer than the 40'), ({'train_size': 39}, 'at most 32')])
def test_sizes_that_are_not_there_are_refused(tmp_path, fields, expected):
    built_in(tmp_path / 'p.npz')
    assert expected in refused(tmp_path / 'p.npz', **fields)


def test_one_puzzle_is_too_few(tmp_path):
    built_in(tmp_path / 'p.npz', 1)
    assert '1 usable example' in refused(tmp_path / 'p.npz')


@pytest.mark.parametrize('change, expected', [
    ({'tokens': np.full((40, 64), 16)}, 'tokens below 16'), ({'tokens': np.zeros((40, 63))}, 'tokens [40, 64]'),
    ({'tokens': np.zeros((40, 64)) + 0.5}, 'no integers'), ({'game': np.arange(39)}, 'game [40]'),
    ({'legal_count': np.ones(40, int)}, 'contradict'), ({'move': np.full(40, 1857)}, 'not legal'),
    ({'move': np.zeros(0, int)}, 'no rows'), ({'legal_flat': None}, 'not a file of puzzles'),
    ({'tokens': np.array([{}], object)}, 'not a file of puzzles')])
def test_a_damaged_file_of_puzzles_is_refused(tmp_path, change, expected):
    built_in(path := tmp_path / 'p.npz')
    with np.load(path) as file:
        arrays = dict(file) | {k: v.astype(int) if v is not None and k == 'tokens' and v.shape == (40, 63) else v
                               for k, v in change.items()}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    message = refused(path)
    assert expected in message
    assert str(path) in message


@pytest.mark.parametrize('damage', [lambda b: b[:len(b) // 2], lambda b: b'', lambda b: b'garbage' * 99,
                                    lambda b: b[:300] + bytes(64) + b[364:]])
def test_damaged_bytes_are_refused(tmp_path, damage):
    built_in(path := tmp_path / 'p.npz')
    path.write_bytes(damage(path.read_bytes()))
    assert str(path) in refused(path)


def test_a_missing_file_of_puzzles_is_refused(tmp_path):
    assert 'no such file' in refused(tmp_path / 'p.npz')


def test_the_board_marks_squares_and_escapes_names():
    tokens = np.zeros((1, 64), np.uint8)
    tokens[0, 12], tokens[0, 60] = vocabulary.MINE, vocabulary.THEIRS + 5
    answers = {'weak': vocabulary.move_index(12, 28), '<b>"student"': np.int32(vocabulary.move_index(12, 20))}
    snippet = chess_task.render({'tokens': tokens}, answers)
    assert snippet.count('<td') == 64
    assert snippet.count('class="sq light') == snippet.count('class="sq dark') == 32
    assert 'weak: e2e4' in snippet
    assert '&lt;b&gt;&quot;student&quot;: e2e3' in snippet
    assert '<b>' not in snippet
    marked = [cell for cell in snippet.split('<td')[1:] if 'data-square' in cell]
    names = {cell.split('data-square="')[1][:2]: cell.split('title="')[1].split('"')[0] for cell in marked}
    assert names == {'e4': 'weak', 'e3': '&lt;b&gt;&quot;student&quot;', 'e2': 'weak, &lt;b&gt;&quot;student&quot;'}
    ranks = snippet.split('<tr>')[1:]
    assert [rank.partition('</th>')[0][-1] for rank in ranks[:8]] == [*'87654321']
    assert [part[0] for part in ranks[8].split('<th scope="col">')[1:]] == [*'abcdefgh']
    assert ranks[0].startswith('<th') and snippet.count('<th') == 17
    assert '♚' in ranks[0]  # their king, at the top
    assert '♙' in ranks[6]  # our pawn on the second rank
    assert snippet.count('♙') == snippet.count('♚') == 1
