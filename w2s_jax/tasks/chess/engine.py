"""Self-play with Stockfish: positions to pretrain on, puzzles to fine-tune on. Only to rebuild the ladder.

Games start with random moves and go on with a share of random moves, so that positions are diverse and
mistakes get punished; the label is always the engine's own choice. Puzzles come from other games.
"""
import concurrent.futures
import dataclasses
import pathlib
import random
import shutil
from collections.abc import Callable, Iterator

import chess
import chess.engine
import numpy as np

from w2s_jax.tasks.chess import board as chess_board


@dataclasses.dataclass(frozen=True)
class Play:
    """How games are played and puzzles chosen. Scores are centipawns for the side to move."""
    seed: int = 0
    nodes: int = 400  # a move, and a position's label
    random_opening: tuple[int, int] = (2, 12)  # plies, inclusive
    random_share: float = 0.25  # of the moves after it
    max_plies: int = 110
    screen_nodes: int = 2_000  # the first look at a puzzle, two lines
    verify_nodes: int = 30_000
    gap: int = 200  # how much better the best move must be than the second
    worst_best: int = -100  # the solver must not be lost after the best move
    best_second: int = 300  # and must not win anyhow with the second


def engine_path() -> str:
    """The Stockfish binary. Raises FileNotFoundError where there is none."""
    found = shutil.which('stockfish') or shutil.which('/usr/games/stockfish')
    if not found:
        raise FileNotFoundError('stockfish: not found on PATH (Debian: apt-get install stockfish)')
    return found


def _games(play: Play, seed: int, engine: chess.engine.SimpleEngine) -> Iterator[Iterator[tuple]]:
    """Endless games; each an iterator of (board, engine's move, last move)."""
    rng = random.Random(f'{play.seed}-{seed}')
    while True:
        yield _one_game(play, rng, engine)


def _one_game(play: Play, rng: random.Random, engine) -> Iterator[tuple]:
    board = chess.Board()
    for _ in range(rng.randint(*play.random_opening)):
        if not board.is_game_over():
            board.push(rng.choice(list(board.legal_moves)))
    token = object()  # a new game to the engine: no state leaks from the last one
    while not board.is_game_over(claim_draw=True) and board.ply() < play.max_plies:
        best = engine.play(board, chess.engine.Limit(nodes=play.nodes), game=token).move
        yield board, best
        board.push(rng.choice(list(board.legal_moves)) if rng.random() < play.random_share else best)


def positions(play: Play, chunk: int, games: int) -> dict[str, np.ndarray]:
    """`games` games: tokens `[N, 64]` uint8, move `[N]` uint16, game `[N]` int32 (unique across chunks)."""
    rows: dict[str, list] = {'tokens': [], 'move': [], 'game': []}
    with _engine() as engine:
        for g, game in zip(range(games), _games(play, chunk, engine), strict=False):
            for board, best in game:
                rows['tokens'].append(chess_board.board_tokens(board))
                rows['move'].append(chess_board.move_class(board, best))
                rows['game'].append(chunk * games + g)
    return _arrays(rows)


def puzzles(play: Play, chunk: int, games: int) -> dict[str, np.ndarray]:
    """At most one puzzle a side and game; as `positions`, with legal `[N, 218]` uint16 (-1 filled), fen and gap."""
    rows: dict[str, list] = {'tokens': [], 'move': [], 'game': [], 'legal': [], 'fen': [], 'gap': []}
    with _engine() as engine:
        for g, game in zip(range(games), _games(play, chunk, engine), strict=False):
            taken: set[bool] = set()
            for board, _ in game:
                found = None if board.turn in taken else _puzzle(play, board, engine)
                if found is None:
                    continue
                taken.add(board.turn)
                rows['tokens'].append(chess_board.board_tokens(board))
                rows['move'].append(chess_board.move_class(board, found[0]))
                rows['game'].append(chunk * games + g)
                rows['legal'].append(np.pad(legal := chess_board.legal_classes(board), (0, 218 - len(legal)),
                                            constant_values=np.uint16(65535)))
                rows['fen'].append(board.fen())
                rows['gap'].append(found[1])
    return _arrays(rows)


def _puzzle(play: Play, board: chess.Board, engine) -> tuple[chess.Move, int] | None:
    """(move, gap) where one move is clearly best and is no recapture, confirmed by a deeper search."""
    if board.legal_moves.count() < 5 or board.ply() < 8:
        return None
    if not _clear(play, board, engine, play.screen_nodes):
        return None
    return _clear(play, board, engine, play.verify_nodes)


def _clear(play: Play, board: chess.Board, engine, nodes: int) -> tuple[chess.Move, int] | None:
    lines = engine.analyse(board, chess.engine.Limit(nodes=nodes), multipv=2, game=object())
    if len(lines) < 2 or 'pv' not in lines[0]:
        return None
    best, second = (line['score'].pov(board.turn).score(mate_score=10_000) for line in lines[:2])
    move = lines[0]['pv'][0]
    last = board.move_stack[-1] if board.move_stack else None
    if last is not None and move.to_square == last.to_square:
        return None  # taking what just moved there
    if best - second < play.gap or best < play.worst_best or second > play.best_second:
        return None
    return move, best - second


def _engine() -> chess.engine.SimpleEngine:
    engine = chess.engine.SimpleEngine.popen_uci(engine_path())
    engine.configure({'Threads': 1, 'Hash': 16})
    return engine


def _arrays(rows: dict[str, list]) -> dict[str, np.ndarray]:
    dtypes = {'tokens': np.uint8, 'move': np.uint16, 'game': np.int32, 'legal': np.uint16, 'gap': np.int32}
    return {k: np.array(v, dtypes.get(k)) for k, v in rows.items()}


def _write_chunk(make: Callable, play: Play, chunk: int, games: int, path: pathlib.Path) -> pathlib.Path:
    if not path.exists():
        part = path.with_suffix('.part.npz')
        np.savez_compressed(part, **make(play, chunk, games))
        part.rename(path)
    return path


def generate(make: Callable, play: Play, chunks: int, games: int, folder: pathlib.Path, workers: int,
             log: Callable[[str], None] = print) -> list[pathlib.Path]:
    """Runs `make` (`positions` or `puzzles`) over chunks of games in processes; finished chunks are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_write_chunk, make, play, c, games, folder / f'{c:05d}.npz') for c in range(chunks)]
        for i, job in enumerate(concurrent.futures.as_completed(jobs)):
            job.result()
            log(f'{make.__name__}: chunk {i + 1} of {chunks}')
    return [folder / f'{c:05d}.npz' for c in range(chunks)]
