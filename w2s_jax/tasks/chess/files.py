"""Chess from the user's own files: Lichess's puzzles and games. Imports python-chess (extra `chess`, GPL-3).

Puzzles: the columns that Lichess publishes, as .csv, .csv.zst or .parquet. Games: .pgn, .pgn.zst, or a table
with a column `moves_uci`. Rows are filtered and chosen before any is replayed, which is the slow part.
"""
import contextlib
import dataclasses
import hashlib
import io
import pathlib
import re
from collections.abc import Callable, Iterator

import chess
import chess.pgn
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from w2s_jax import paths
from w2s_jax.data import Examples
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks.chess import board as chess_board
from w2s_jax.tasks.chess.puzzles import MAX_LEGAL, NO_MOVE, POSITIONS, check_unrated, examples, rated
from w2s_jax.tasks.difficulty import KEY

TABLES = ('.csv', '.csv.zst', '.parquet')
SUFFIXES = (*TABLES, '.pgn', '.pgn.zst', '.npz')
CHUNK = 50_000  # rows of a table, or games, in memory at a time
GAME_OF_URL = re.compile(r'(/black|/white)?/?(#.*)?$')
PGN_TAG = re.compile(r'\[[A-Za-z0-9_]+\s+"')

Found = tuple[str, chess.Board, chess.Move]  # the game's name, a position, the answer


class _Unusable(ValueError):
    """Why a row cannot be used."""


def read(path: str, task, needed: int, log: Callable[[str], None] = print) -> tuple[Examples, dict]:
    """At least `needed` examples (0 = all; fewer where the file has no more) with distinct positions.

    task: seed, min_rating, max_rating, max_bad_rows, positions_per_game as in `chess.load`. Returns the examples,
    in which rows of one game share a group, and the counts `rows`, `skipped` (unusable), `first_skipped`,
    `duplicates` (positions seen before) and `source`. Raises DataError with one line where the file is missing,
    damaged, of an unknown kind or has more unusable rows than `task.max_bad_rows` allows.
    """
    with _one_line_errors(path):
        table, total = _choose(_frames(path, task), 2 * needed, task)
    if not len(table):
        raise DataError(f'{path}: ' + (f'none of {total} rows has a rating in [{task.min_rating}, '
                                       f'{task.max_rating or "any"}]' if total else 'no rows'))
    log(f'{path}: {total} rows, replaying ' + (f'as many as give {needed} examples' if needed else f'{len(table)}'))
    rows = _Rows(path, task)
    rows.add_all(table, needed, log)
    notes = {'rows': len(rows.tokens), 'skipped': len(rows.bad), 'first_skipped': rows.first_bad(),
             'duplicates': rows.duplicates, 'source': path}
    return rows.examples(), notes


# From a file to tables.

def _frames(path: str, task) -> Iterator[pd.DataFrame]:
    """The file as tables of at most CHUNK rows with just the columns that are needed."""
    name = path.lower()
    if not name.endswith(SUFFIXES):
        raise DataError(f'{path}: unknown kind of file, expected one of {", ".join(SUFFIXES)}')
    paths.check_file(path)
    if not pathlib.Path(path).is_file():
        raise DataError(f'{path}: no such file')
    if not pathlib.Path(path).stat().st_size:
        raise DataError(f'{path}: empty file')
    if name.endswith(TABLES):
        return _parquet(path, task) if name.endswith('.parquet') else _csv(path, task)
    check_unrated(task, f'{path} holds games, which have no rating')
    return _pgn(path)


def _csv(path: str, task) -> Iterator[pd.DataFrame]:
    with _text(path) as file:
        columns = _columns(path, pd.read_csv(file, nrows=0).columns, task)
    with _text(path) as file:
        yield from pd.read_csv(file, usecols=columns, index_col=False, dtype=str, keep_default_na=False,
                               na_values=[''], chunksize=CHUNK)


def _parquet(path: str, task) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(path) as file:
        columns = _columns(path, file.schema_arrow.names, task)
        for name in columns:
            _check_type(path, name, file.schema_arrow.field(name).type)
        for batch in file.iter_batches(CHUNK, columns=columns):
            batch.validate(full=True)  # or text that is not UTF-8 comes up later
            yield batch.to_pandas()


def _check_type(path: str, column: str, kind: pa.DataType) -> None:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    expected = 'numbers' if column == 'Rating' else 'text'
    if not (is_number if column == 'Rating' else is_text):
        raise DataError(f'{path}: column {column}: expected {expected}, found {kind}')


def _columns(path: str, found, task) -> list[str]:
    """The columns to read. Raises DataError that names the missing ones."""
    if 'moves_uci' in found:
        check_unrated(task, f'{path} holds games, which have no rating')
        return ['moves_uci']
    needed = ['PuzzleId', 'FEN', 'Moves'] + ['Rating'] * rated(task)
    missing = [c for c in needed if c not in found]
    if missing:
        raise DataError(f'{path}: no column {", ".join(missing)} (nor moves_uci), '
                        f'found {_short(", ".join(map(str, found)), 200)}')
    if task.positions_per_game != POSITIONS and not task.test_path:
        raise ConfigError(f'task.positions_per_game: {task.positions_per_game}, but {path} holds puzzles and no games, '
                          f'expected {POSITIONS}')
    return needed + ['GameUrl'] * ('GameUrl' in found)


def _pgn(path: str) -> Iterator[pd.DataFrame]:
    """One row a game, its text unparsed: parsing is slow and most games may not be needed."""
    games: list[str] = []
    game: list[str] = []
    moves = False
    with _text(path, errors='replace') as file:
        for line in file:
            tag = PGN_TAG.match(line)
            if tag and moves:
                games.append(''.join(game))
                game, moves = [], False
                if len(games) == CHUNK:
                    yield pd.DataFrame({'pgn': games})
                    games = []
            game.append(line)
            moves = moves or not (tag or line.isspace())
    if any(not line.isspace() for line in game):
        games.append(''.join(game))
    if games:
        yield pd.DataFrame({'pgn': games})


@contextlib.contextmanager
def _text(path: str, errors: str = 'strict') -> Iterator[io.TextIOBase]:
    with open(path, 'rb') as file:
        raw = io.BufferedReader(_Zstd(file)) if path.lower().endswith('.zst') else file
        yield io.TextIOWrapper(raw, 'utf-8-sig', errors)


class _Zstd(io.RawIOBase):
    """Reads .zst of one or many frames; the library's own reader takes a truncated file for a complete one."""

    def __init__(self, file: io.BufferedIOBase):
        self._chunks = self._decompressed(file)
        self._left = b''

    @staticmethod
    def _decompressed(file: io.BufferedIOBase) -> Iterator[bytes]:
        frame, data = None, b''
        while data := data or file.read(1 << 20):
            frame = frame or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            yield frame.decompress(data)
            data = frame.unused_data if frame.eof else b''
            frame = None if frame.eof else frame
        if frame is not None:
            raise EOFError('truncated zstd data')

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._left:
            try:
                self._left = next(self._chunks)
            except StopIteration:
                return 0
        n = min(len(buffer), len(self._left))
        buffer[:n], self._left = self._left[:n], self._left[n:]
        return n


@contextlib.contextmanager
def _one_line_errors(path: str) -> Iterator[None]:
    """Errors of the libraries that read files, as one line."""
    try:
        yield
    except (OSError, EOFError, ValueError, pa.ArrowException, zstandard.ZstdError) as e:
        raise DataError(f'{path}: cannot be read, damaged or not of this kind ({_short(e)})') from e


def _short(text: object, length: int = 120) -> str:
    """Cut, and on one line."""
    line = ' '.join(str(text).split())
    return line if len(line) <= length else line[:length] + '...'


# From tables to the rows that are worth replaying.

def _choose(frames: Iterator[pd.DataFrame], most: int, task) -> tuple[pd.DataFrame, int]:
    """A seeded choice of `most` rows (0 = all) whose rating is in range, in random order, and the count of all rows.

    Adds the columns `row` (in the file, from 1) and `order`. The rows with the smallest of one random number a
    row are kept, so that memory stays bounded however long the file is.
    """
    rng = np.random.default_rng(task.seed)
    kept, total = [], 0
    for frame in frames:
        frame = frame.assign(row=np.arange(total + 1, total + len(frame) + 1))
        total += len(frame)
        frame = _in_range(frame, task)
        kept.append(frame.assign(order=rng.random(len(frame))))
        if most:
            kept = [pd.concat(kept).nsmallest(most, 'order')]
    table = pd.concat(kept) if kept else pd.DataFrame({'order': []})
    return table.sort_values('order'), total


def _in_range(frame: pd.DataFrame, task) -> pd.DataFrame:
    """Rows without a rating stay: they are unusable, and counted as such."""
    if 'Rating' not in frame:
        return frame
    rating = pd.to_numeric(frame['Rating'], errors='coerce')
    kept = rating.isna() | ((rating >= task.min_rating) & (rating <= (task.max_rating or np.inf)))
    return frame.assign(Rating=rating)[kept]


# From rows to examples.

class _Rows:
    """Collects examples and counts what cannot be used."""

    def __init__(self, path: str, task):
        self.path, self.task = path, task
        self.tokens: list[np.ndarray] = []
        self.move: list[int] = []
        self.group: list[int] = []
        self.allowed: list[np.ndarray] = []
        self.rating: list[float] = []
        self.seen: set[bytes] = set()
        self.bad: list[tuple[int, str]] = []
        self.tried = self.duplicates = 0

    def add_all(self, table: pd.DataFrame, needed: int, log: Callable[[str], None]) -> None:
        """Replays rows in batches until there are `needed` examples (0 = all). Raises DataError for too many bad."""
        per_row = 1 if 'FEN' in table else self.task.positions_per_game
        start = 0
        while start < len(table) and (not needed or len(self.tokens) < needed):
            size = -(-(needed - len(self.tokens)) // per_row) if needed else len(table)
            for row in table.iloc[start:start + size].sort_values('row').itertuples(index=False):
                self._add(row._asdict())
            start += size
            self._refuse_many_bad()
        if self.bad:
            log(f'{self.path}: {self.first_bad()}; {len(self.bad)} of {self.tried} rows skipped')

    def _add(self, row: dict) -> None:
        self.tried += 1
        try:
            for name, board, move in _found(row, self.task):
                self._add_position(name, board, move, row.get('Rating', np.nan))
        except _Unusable as e:
            self.bad.append((row['row'], str(e)))

    def _add_position(self, name: str, board: chess.Board, move: chess.Move, rating: float) -> None:
        tokens = chess_board.board_tokens(board)
        if tokens.tobytes() in self.seen:
            self.duplicates += 1
            return
        legal = chess_board.legal_classes(board)
        if len(legal) > MAX_LEGAL:
            raise _Unusable(f'illegal FEN {board.fen()!r}: {len(legal)} legal moves')
        self.seen.add(tokens.tobytes())
        self.tokens.append(tokens)
        self.move.append(chess_board.move_class(board, move))
        self.group.append(_group(name))
        self.rating.append(rating)
        self.allowed.append(np.pad(legal, (0, MAX_LEGAL - len(legal)), constant_values=np.uint16(NO_MOVE)))

    def first_bad(self) -> str:
        """`row 17: why`, '' where every row was usable."""
        return 'row {}: {}'.format(*min(self.bad)) if self.bad else ''

    def _refuse_many_bad(self) -> None:
        if len(self.bad) > self.task.max_bad_rows * self.tried:
            raise DataError(f'{self.path}: {self.first_bad()} ({len(self.bad)} of {self.tried} rows unusable, '
                            f'task.max_bad_rows allows {100 * self.task.max_bad_rows:g} %)')

    def examples(self) -> Examples:
        found = examples(np.array(self.tokens), np.array(self.move), np.array(self.group), np.array(self.allowed))
        metadata = {KEY: np.array(self.rating, np.float64)} if self.task.get(KEY) == 'rating' else {}
        return dataclasses.replace(found, metadata=metadata)


def _group(name: str) -> int:
    """The same number for the same game in every file, 64 bits."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), 'little', signed=True)


def _found(row: dict, task) -> list[Found]:
    if 'FEN' in row:
        return [_puzzle(row)]
    board, moves = _parsed(_value(row, 'pgn')) if 'pgn' in row else (chess.Board(), _value(row, 'moves_uci').split())
    if not moves:
        raise _Unusable('no moves')
    rng = np.random.default_rng((task.seed, row['row']))
    plies = rng.choice(len(moves), min(task.positions_per_game, len(moves)), replace=False)
    return _positions(board, moves, sorted(plies))


def _puzzle(row: dict) -> Found:
    """Lichess gives the position before the opponent's move: the first move leads to it, the second is the answer."""
    board, moves = _board(_value(row, 'FEN')), _value(row, 'Moves').split()
    if len(moves) < 2:
        raise _Unusable(f'expected two moves or more, found {_quoted(row["Moves"])}')
    if 'Rating' in row and np.isnan(row['Rating']):
        raise _Unusable('missing Rating')
    url = row.get('GameUrl')
    name = GAME_OF_URL.sub('', url) if isinstance(url, str) else ''
    board.push(_legal(board, moves[0]))
    return name or _value(row, 'PuzzleId'), board, _legal(board, moves[1])


def _positions(board: chess.Board, moves: list[str], plies: list[int]) -> list[Found]:
    """The positions before `plies` of a game; the answer is the move that was played."""
    name, found = board.fen() + ' '.join(moves), []
    for ply in range(plies[-1] + 1):
        move = _legal(board, moves[ply])
        if ply in plies:
            found.append((name, board.copy(stack=False), move))
        board.push(move)
    return found


def _parsed(text: str) -> tuple[chess.Board, list[str]]:
    """The first position and the moves of a game in PGN."""
    try:
        game = chess.pgn.read_game(io.StringIO(text), Visitor=_Strict)
        board = game.board() if game else chess.Board()
    except ValueError as e:
        raise _Unusable(_short(e)) from e
    if not game:
        return board, []
    if board.uci_variant != 'chess' or board.chess960:
        raise _Unusable(f'variant {_quoted(game.headers.get("Variant", ""))}, expected standard chess')
    return _valid(board), [move.uci() for move in game.mainline_moves()]


class _Strict(chess.pgn.GameBuilder):
    """Raises where python-chess would log and go on."""

    def handle_error(self, error: Exception) -> None:
        raise _Unusable(_short(error))


def _value(row: dict, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise _Unusable(f'missing {column}')
    return value


def _board(fen: str) -> chess.Board:
    try:
        board = chess.Board(fen)
    except ValueError as e:
        raise _Unusable(f'illegal FEN {_quoted(fen)}') from e
    return _valid(board)


def _valid(board: chess.Board) -> chess.Board:
    if not board.is_valid():
        why = (board.status().name or 'impossible').lower().replace('_', ' ')
        raise _Unusable(f'illegal FEN {_quoted(board.fen())}: {why}')
    return board


def _legal(board: chess.Board, uci: str) -> chess.Move:
    try:
        move = board.parse_uci(uci)
    except ValueError as e:
        raise _Unusable(f'illegal move {_quoted(uci)}') from e
    if not move:  # '0000', a pass
        raise _Unusable(f'illegal move {_quoted(uci)}')
    return move


def _quoted(text: str) -> str:
    return repr(_short(text, 90))
