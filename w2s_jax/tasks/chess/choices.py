"""Two moves of a puzzle, of which one is the best: the puzzles as a task of two classes."""
import dataclasses

import numpy as np

from w2s_jax.data import Dataset, Examples, Inputs
from w2s_jax.models import chess_moves as vocabulary
from w2s_jax.tasks.chess import puzzles

_FROM, _TO = np.array([vocabulary.move_squares(i)[:2] for i in range(vocabulary.NUM_MOVES)]).T
_PLAIN = np.arange(vocabulary.NUM_MOVES) < vocabulary.NUM_PAIRS  # no promotion, or to a queen


def load(task, log=print) -> Dataset:
    """The puzzles that `task` describes (`puzzles.load`), each with the best move and one other legal move.

    The other move is drawn from those that capture if the best one does, and else from those that do not, so that
    whether a move captures says nothing; the best stands first as often as second. Puzzles without such a move, or
    whose best move promotes to a lesser piece, are left out and counted.
    """
    found = puzzles.load(task, log)
    pool, test = (choices(rows, task.seed) for rows in (found.pool, found.test))
    notes = found.notes | {'without_alternative': len(found.pool) + len(found.test) - len(pool) - len(test)}
    return dataclasses.replace(found, name='chess_choice', num_classes=2, pool=pool, tests={'test': test}, notes=notes,
                               render=render)


def choices(rows: Examples, seed: int) -> Examples:
    """Puzzles as questions with two answers: inputs `tokens` `[N, 1, 64]` and `squares` `[N, 2, 2]`, the squares that
    either move goes from and to; truth, which of them is the best."""
    rng = np.random.default_rng((seed, 3))
    best = np.asarray(rows.truth)
    other = alternatives(rows, best, rng)
    left = np.flatnonzero(_PLAIN[best] & (other >= 0))
    kept, truth = rows.take(left), rng.permutation(np.arange(len(left)) % 2).astype(np.int32)
    moves = np.where(truth[:, None] == [0, 1], best[left, None], other[left, None])
    squares = np.stack([_FROM[moves], _TO[moves]], -1).astype(np.uint8)
    return dataclasses.replace(kept, inputs=kept.inputs | {'squares': squares}, extras={}, truth=truth)


def alternatives(rows: Examples, best: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`[N]`: a legal move other than the best one `[N]`, capturing like it; -1 where there is none."""
    legal, board = rows.extras['allowed'].astype(np.int64), rows.inputs['tokens'][:, 0]
    there = legal != puzzles.NO_MOVE
    move = np.where(there, legal, 0)
    like = captures(board, move) == captures(board, best[:, None])
    possible = there & _PLAIN[move] & (move != best[:, None]) & like
    at = np.where(possible, rng.random(possible.shape), -1).argmax(1)
    return np.where(possible.any(1), np.take_along_axis(move, at[:, None], 1)[:, 0], -1)


def captures(board: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Whether moves `[N, M]` go to a square of boards `[N, 64]` where a piece of the other side stands, or to that of
    en passant, by whichever piece."""
    at = np.take_along_axis(board, _TO[moves], 1)
    theirs = (at >= vocabulary.THEIRS) & (at < vocabulary.THEIRS + 6)
    return theirs | (at == vocabulary.THEIR_CASTLING_ROOK) | (at == vocabulary.EN_PASSANT)


def render(inputs: Inputs, answers: dict[str, int]) -> str:
    """An HTML snippet of one row: the board, and the move that each answer (who -> 0 or 1) chooses."""
    moves = [vocabulary.move_index(int(a), int(b)) for a, b in inputs['squares']]
    return puzzles.render(inputs, {who: moves[int(answer)] for who, answer in answers.items()})
