"""Chess puzzles: a position in, the one best move out of 1858. Needs no chess library for the built-in puzzles.

Positions and moves are seen from the side to move (see `chess_moves`). Puzzles come from the package
(self-play of an engine), from a file that `save_puzzles` wrote, or, with the extra `chess`, from Lichess's
puzzle files and from games (see `chess_files`).
"""
import dataclasses
import html
import math
import pathlib
import zipfile
import zlib

import numpy as np

from w2s_jax import paths
from w2s_jax.data import Dataset, Examples, Inputs
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.models import chess_moves as vocabulary
from w2s_jax.tasks import cuts, difficulty

PUZZLES = pathlib.Path(__file__).parents[2] / 'assets' / 'chess' / 'puzzles.npz'
POSITIONS, BAD_ROWS = 4, .01  # defaults of task.positions_per_game and task.max_bad_rows
MAX_LEGAL = 218  # the most legal moves that a position can have
NO_MOVE = 65535  # fills `allowed` up
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7')  # Okabe and Ito: told apart by everyone, on white and on black


def load(task, log=print) -> Dataset:
    """The pool and the test set that `task` describes, with whole games on one side.

    task: path and test_path ('' = the built-in puzzles; the test set cut from the same rows), seed (of the cut
    and of every choice of rows), train_size (rows of the pool, 0 = all), test_size (0 = a fifth of the rows
    read), min_rating and max_rating (inclusive, 0 = no limit), max_bad_rows (the tolerated share of unusable
    rows), positions_per_game (taken from each game), and for easy to hard difficulty ('rating', or 'legal_moves', how
    many there are), cut, train and bands (`difficulty.py`). A choice of rows is made before they are replayed.
    Raises ConfigError for fields that contradict each other, DataError for files that cannot be used.
    """
    _check(task)
    if task.test_path:
        test, notes = _read('test_path', task, task.test_size, log)
        pool, more = _read('path', task, math.ceil(task.train_size * difficulty.room(task)), log)
        pool, shared = _apart(pool, test, task.path)
        notes = _merge(more, notes) | {'shared_with_test': shared}
    else:
        rows, notes = _read('path', task, _rows_for_both(task), log)
        pool, test = cuts.cut(rows, task)
    levels = pool.metadata.get(difficulty.KEY, np.zeros(len(pool)))
    level = difficulty.cut(levels, task)
    learned = pool.take(difficulty.learned(level, levels))
    pool = cuts.sample(learned, task.train_size, 'train_size', task.seed, 'games')
    tests = difficulty.tests(level, cuts.sample(test, task.test_size, 'test_size', task.seed, 'games'))
    notes |= difficulty.notes(level, levels, tests)
    return Dataset('chess', vocabulary.NUM_MOVES, pool, tests, notes=notes, render=render)


def _check(task) -> None:
    for name in ('seed', 'train_size', 'test_size', 'min_rating', 'max_rating'):
        if task[name] < 0:
            raise ConfigError(f'task.{name}: {task[name]}, expected 0 or more')
    if task.max_rating and task.min_rating > task.max_rating:
        raise ConfigError(f'task.min_rating: {task.min_rating}, expected at most task.max_rating = {task.max_rating}')
    if not 0 <= task.max_bad_rows < 1:
        raise ConfigError(f'task.max_bad_rows: {task.max_bad_rows}, expected a share in [0, 1)')
    if task.positions_per_game < 1:
        raise ConfigError(f'task.positions_per_game: {task.positions_per_game}, expected 1 or more')


def _read(field: str, task, needed: int, log) -> tuple[Examples, dict]:
    """About `needed` usable rows (0 = all) with room for games that the cut cannot divide, and their counts."""
    path = str(task[field])
    if path and not path.lower().endswith('.npz'):
        rows, notes = _read_with_python_chess(field, path, task, math.ceil(1.5 * needed) + 100 if needed else 0, log)
    else:
        check_unrated(task, f'{path or "the built-in puzzles"} have no ratings')
        _no_games(task, field)
        if task.max_bad_rows != BAD_ROWS and not (task.path and task.test_path):
            raise ConfigError(f'task.max_bad_rows: {task.max_bad_rows:g}, but {path or "the built-in puzzles"} have no '
                              f'rows that are left out, expected {BAD_ROWS:g}')
        rows = read_puzzles(path or PUZZLES)
        notes = {'rows': len(rows), 'skipped': 0, 'first_skipped': '', 'source': path or 'built-in'}
    if len(rows) < 2 and field == 'path':
        raise DataError(f'{path or PUZZLES}: {len(rows)} usable example(s), expected at least two')
    if task.get(difficulty.KEY) == 'legal_moves':
        moves = (rows.extras['allowed'] != NO_MOVE).sum(1).astype(np.float64)
        rows = dataclasses.replace(rows, metadata=rows.metadata | {difficulty.KEY: moves})
    return rows, notes


def rated(task) -> bool:
    """Whether ratings of puzzles are asked for."""
    return bool(task.min_rating or task.max_rating or task.get(difficulty.KEY) == 'rating')


def check_unrated(task, what: str) -> None:
    """Raises ConfigError, saying `what`, if ratings are asked for where there are none."""
    if task.min_rating or task.max_rating:
        raise ConfigError(f'task.min_rating, task.max_rating: {what}, expected 0')
    if rated(task):
        raise ConfigError(f"task.difficulty: 'rating', but {what}, expected 'legal_moves' or ''")


def _no_games(task, field: str) -> None:
    """Raises ConfigError for a number of positions of each game where no file can hold games."""
    other = str(task.path if field == 'test_path' else task.test_path)
    games = other and not other.lower().endswith('.npz')
    if task.positions_per_game != POSITIONS and not games:
        raise ConfigError(f'task.positions_per_game: {task.positions_per_game}, but '
                          f'{task[field] or "the built-in puzzles"} hold no games, expected {POSITIONS}')


def _read_with_python_chess(field: str, path: str, task, needed: int, log) -> tuple[Examples, dict]:
    try:
        from w2s_jax.tasks.chess import files
    except ModuleNotFoundError as e:
        if e.name not in ('chess', 'zstandard'):
            raise
        raise ConfigError(f"task.{field}: reading chess files needs the extra 'chess' "
                          "(pip install 'w2s_jax[chess]')") from e
    return files.read(path, task, needed, log)


def _rows_for_both(task) -> int:
    if not task.train_size:
        return 0
    test = task.test_size or math.ceil(task.train_size * cuts.TEST_SHARE / (1 - cuts.TEST_SHARE))
    return math.ceil(task.train_size * difficulty.room(task)) + test


def _apart(pool: Examples, test: Examples, path: str) -> tuple[Examples, int]:
    """The pool without the games and positions of the test set, and how many rows that took."""
    positions = {t.tobytes() for t in test.inputs['tokens']}
    known = np.array([t.tobytes() in positions for t in pool.inputs['tokens']]) | np.isin(pool.group, test.group)
    if known.all():
        raise DataError(f'{path or PUZZLES}: no row left, every game or position is also in task.test_path')
    return pool.take(np.flatnonzero(~known)), int(known.sum())


def _merge(pool: dict, test: dict) -> dict:
    numbers = {k: pool.get(k, 0) + test.get(k, 0) for k in pool | test if k not in ('source', 'first_skipped')}
    return numbers | {'first_skipped': pool['first_skipped'] or test['first_skipped'],
                      'source': f'{pool["source"]}, test: {test["source"]}'}


def examples(tokens: np.ndarray, move: np.ndarray, group: np.ndarray, allowed: np.ndarray) -> Examples:
    """Rows in the shape that models and reports expect.

    tokens: `[N, 64]`.  move: `[N]` the right class.  group: `[N]` the game.  allowed: `[N, 218]`, the classes
    of all legal moves, filled up with 65535.
    """
    return Examples({'tokens': tokens.astype(np.uint8)[:, None, :]}, move.astype(np.int32), group.astype(np.int64),
                    extras={'allowed': allowed.astype(np.uint16)})


def save_puzzles(path, tokens: np.ndarray, move: np.ndarray, game: np.ndarray, legal: np.ndarray) -> None:
    """Writes puzzles for `read_puzzles`, small: legal `[N, 218]` (filled up with 65535) goes in as a flat list."""
    there = legal != NO_MOVE
    np.savez_compressed(path, tokens=tokens.astype(np.uint8), move=move.astype(np.uint16), game=game.astype(np.int32),
                        legal_flat=legal[there].astype(np.uint16), legal_count=there.sum(1).astype(np.uint8))


def read_puzzles(path) -> Examples:
    """The puzzles of a file that `save_puzzles` wrote: tokens uint8 `[N, 64]`, move uint16 `[N]`, game int32 `[N]`,
    legal_flat uint16 `[sum M]`, legal_count uint8 `[N]`. Raises DataError where it is missing or damaged."""
    paths.check_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in ('tokens', 'move', 'game', 'legal_flat', 'legal_count')}
    except FileNotFoundError as e:
        raise DataError(f'{path}: no such file') from e
    except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f'{path}: not a file of puzzles, or damaged ({_one_line(e)})') from e
    problem = _problem(**arrays)
    if problem:
        raise DataError(f'{path}: damaged, {problem}')
    return examples(arrays['tokens'], arrays['move'], arrays['game'], _padded(**arrays))


def _problem(tokens, move, game, legal_flat, legal_count) -> str:
    """What is wrong with the arrays of a file of puzzles, '' where nothing is."""
    n = len(move) if move.ndim == 1 else 0
    if any(a.dtype.kind not in 'iu' for a in (tokens, move, game, legal_flat, legal_count)):
        return 'an array holds no integers'
    if n == 0:
        return 'move holds no rows'
    if tokens.shape != (n, vocabulary.NUM_SQUARES) or game.shape != (n,) or legal_count.shape != (n,):
        return f'expected tokens [{n}, 64], game [{n}] and legal_count [{n}]'
    if legal_flat.ndim != 1 or len(legal_flat) != legal_count.sum(dtype=np.int64) or legal_count.max() > MAX_LEGAL \
            or legal_count.min() < 0:
        return 'legal_flat and legal_count contradict each other'
    moves = vocabulary.NUM_MOVES
    for name, array, end in (('tokens', tokens, vocabulary.VOCAB_SIZE), ('legal_flat', legal_flat, moves),
                             ('move', move, moves)):
        if array.min(initial=0) < 0 or array.max(initial=0) >= end:
            found = f'{array.min(initial=0)} to {array.max(initial=0)}'
            return f'{name} holds numbers from {found}, expected {name} below {end} and none below 0'
    solved = (_padded(tokens, move, game, legal_flat, legal_count) == move[:, None]).any(1)
    return '' if solved.all() else f'the move of row {np.argmin(solved) + 1} is not legal'


def _padded(tokens, move, game, legal_flat, legal_count) -> np.ndarray:
    allowed = np.full((len(move), MAX_LEGAL), NO_MOVE, np.uint16)
    allowed[np.arange(MAX_LEGAL) < legal_count[:, None]] = legal_flat
    return allowed


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:120]


def render(inputs: Inputs, answers: dict[str, int]) -> str:
    """An HTML snippet of one row: the board from the side to move and each answer (who -> class) on it.

    inputs: 'tokens' `[1, 64]`. A move's two squares are framed in its answer's colour, and named in the list. Ranks and
    files are those of the side to move, as in its moves.
    """
    tokens = np.ravel(inputs['tokens'])
    marks: dict[int, list[tuple[str, str]]] = {}  # square -> (who, colour)
    lines = []
    for i, (who, answer) in enumerate(answers.items()):
        colour = COLOURS[i % len(COLOURS)]
        for square in vocabulary.move_squares(int(answer))[:2]:
            marks.setdefault(square, []).append((html.escape(who), colour))
        lines.append(f'<li><span class="key" style="color:{colour}" aria-hidden="true">■</span> '
                     f'{html.escape(who)}: {vocabulary.move_name(int(answer))}</li>')
    rows = [f'<th scope="row">{r + 1}</th>' + ''.join(_square(s, int(tokens[s]), marks.get(s, []))
                                                      for s in range(8 * r, 8 * r + 8)) for r in reversed(range(8))]
    files = ''.join(f'<th scope="col">{name}</th>' for name in 'abcdefgh')
    board = ''.join(f'<tr>{row}</tr>' for row in [*rows, f'<th></th>{files}'])
    return (f'<div class="chess"><table class="board" aria-label="The side to move plays up the board"><tbody>{board}'
            f'</tbody></table><ul class="answers">{"".join(lines)}</ul></div>')


def _square(square: int, token: int, marks: list[tuple[str, str]]) -> str:
    shade = 'light' if (square // 8 + square % 8) % 2 else 'dark'
    glyph = vocabulary.GLYPHS[token].strip()
    text = glyph + '\ufe0e' if glyph else ''  # the selector keeps phones from drawing an emoji
    if not marks:
        return f'<td class="sq {shade}">{text}</td>'
    frames = ', '.join(f'inset 0 0 0 {3 * (i + 1)}px {colour}' for i, (_, colour) in enumerate(marks))
    return (f'<td class="sq {shade} mark" data-square="{vocabulary.square_name(square)}" '
            f'title="{", ".join(who for who, _ in marks)}" style="box-shadow: {frames}">{text}</td>')
