"""The chess vocabulary: what a position and a move are to a model. Needs no chess library.

A position is 64 tokens, a1 to h8, seen from the side to move: where black is to move the board is
mirrored and the colours are swapped, so the model always plays up the board. Castling rights and the
en passant square are kinds of squares, so that the tokens say everything that decides the legal moves.

A move is one of 1858: the 1792 (from, to) pairs that a queen or a knight can make, where a pawn that
reaches the last rank becomes a queen, then 66 promotions to a lesser piece.
"""
import numpy as np

EMPTY, EN_PASSANT = 0, 15
MINE, THEIRS = 1, 7  # pawn, knight, bishop, rook, queen, king follow each
MY_CASTLING_ROOK, THEIR_CASTLING_ROOK = 13, 14
VOCAB_SIZE = 16
NUM_SQUARES = 64
PROMOTIONS = 'nbr'  # the queen is the default
GLYPHS = ' ♙♘♗♖♕♔♟♞♝♜♛♚♖♜ '  # by token, the side to move drawn as white


def _reachable() -> list[tuple[int, int]]:
    pairs = []
    for a in range(NUM_SQUARES):
        for b in range(NUM_SQUARES):
            df, dr = abs(a % 8 - b % 8), abs(a // 8 - b // 8)
            if a != b and (df == 0 or dr == 0 or df == dr or {df, dr} == {1, 2}):
                pairs.append((a, b))
    return pairs


def _last_rank_steps() -> list[tuple[int, int]]:
    steps = [(48 + f, 56 + f + d) for f in range(8) for d in (-1, 0, 1)]
    return [(a, b) for a, b in steps if 56 <= b < 64]


PAIRS = _reachable()
LAST_RANK_STEPS = _last_rank_steps()
UNDERPROMOTIONS = [(a, b, p) for a, b in LAST_RANK_STEPS for p in PROMOTIONS]
NUM_PAIRS = len(PAIRS)
NUM_MOVES = NUM_PAIRS + len(UNDERPROMOTIONS)
PAIR_INDEX = np.array([a * NUM_SQUARES + b for a, b in PAIRS], np.int32)  # into a 64 x 64 table
STEP_INDEX = np.array([a * NUM_SQUARES + b for a, b in LAST_RANK_STEPS], np.int32)
_INDEX = {(a, b, ''): i for i, (a, b) in enumerate(PAIRS)}
_INDEX |= {m: NUM_PAIRS + i for i, m in enumerate(UNDERPROMOTIONS)}


def move_index(from_square: int, to_square: int, promotion: str = '') -> int:
    """The class of a move given from the mover's side (squares 0 to 63); `promotion` in '', 'n', 'b', 'r', 'q'.

    Raises KeyError where no piece can make such a move.
    """
    return _INDEX[from_square, to_square, '' if promotion == 'q' else promotion]


def move_squares(index: int) -> tuple[int, int, str]:
    """The inverse of `move_index`: (from, to, promotion), '' for a queen or no promotion."""
    if index < NUM_PAIRS:
        return (*PAIRS[index], '')
    return UNDERPROMOTIONS[index - NUM_PAIRS]


def square_name(square: int) -> str:
    """`a1` to `h8`, as the side to move sees it."""
    return 'abcdefgh'[square % 8] + str(square // 8 + 1)


def move_name(index: int) -> str:
    """A move in the notation of UCI, from the side to move: `e2e4`, `a7a8n`."""
    a, b, promotion = move_squares(index)
    return square_name(a) + square_name(b) + promotion
