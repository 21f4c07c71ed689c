"""Moves on boards of tokens (models/chess_moves.py), inside compiled programs and without a chess library.

A board is `[64]` ints from the side to move; a move one of 1858 classes, from the same side. All of it is of one board:
`jax.vmap` for many. Tests hold it to python-chess.
"""
import jax
import jax.numpy as jnp
import numpy as np

import w2s_jax.models.chess_moves as vocabulary

PAWN, KNIGHT, BISHOP, ROOK, QUEEN, KING = range(1, 7)  # kinds, as tokens of the side to move
THEIR_KING = vocabulary.THEIRS + KING - 1
MOST = 96  # pseudo-legal moves that are looked at: no game has been seen to have more
_MOVES = [vocabulary.move_squares(i) for i in range(vocabulary.NUM_MOVES)]
_FROM, _TO = (np.array([m[i] for m in _MOVES], np.int32) for i in (0, 1))
_PROMOTED = np.array([{'': QUEEN, 'n': KNIGHT, 'b': BISHOP, 'r': ROOK}[m[2]] for m in _MOVES], np.int32)
_SIDES = np.array([0, *range(7, 13), *range(1, 7), 14, 13, 15], np.int32)  # a token as the other side sees it
_KINDS = np.array([0, *range(1, 7), *[0] * 6, ROOK, 0, 0], np.int32)  # of the pieces of the side to move
_CASTLES = ((4, 6, 7, 5, (5, 6)), (4, 2, 0, 3, (1, 2, 3)))  # king from, to, rook from, to, what has to be empty


def _between() -> np.ndarray:
    """0 or 1 `[1858, 64]`: the squares that a move of a ray jumps over."""
    found = np.zeros((vocabulary.NUM_MOVES, 64), np.float32)
    for i, (a, b, _) in enumerate(_MOVES):
        files, ranks = b % 8 - a % 8, b // 8 - a // 8
        steps = max(abs(files), abs(ranks))
        if steps > 1 and 0 in (files, ranks, abs(files) - abs(ranks)):
            step = np.sign(ranks) * 8 + np.sign(files)
            found[i, a + step * np.arange(1, steps)] = 1
    return found


def _reach() -> np.ndarray:
    """bool `[1858, 7]`: whether a piece of that kind moves like this on an empty board; pawns and castling apart."""
    files, ranks = np.abs(_TO % 8 - _FROM % 8), np.abs(_TO // 8 - _FROM // 8)
    straight, diagonal = (files == 0) | (ranks == 0), files == ranks
    none = np.zeros(len(files), bool)
    found = np.stack([none, none, files * ranks == 2, diagonal, straight, straight | diagonal,
                      np.maximum(files, ranks) == 1], 1)
    return found & (np.arange(vocabulary.NUM_MOVES) < vocabulary.NUM_PAIRS)[:, None]


def _into() -> np.ndarray:
    """`[64, 35]`: the moves, none to a lesser piece, that end on a square; filled up with ones that end elsewhere."""
    plain = np.arange(vocabulary.NUM_PAIRS)
    found = [plain[_TO[plain] == square] for square in range(64)]
    most = max(map(len, found))
    return np.stack([np.append(moves, np.repeat(plain[_FROM[plain] == square][:1], most - len(moves)))
                     for square, moves in enumerate(found)]).astype(np.int32)


_BETWEEN, _REACH, _INTO = _between(), _reach(), _into()
_PUSH = ((_TO - _FROM) == 8) | (((_TO - _FROM) == 16) & (_FROM // 8 == 1))
_TAKE = (np.abs(_TO % 8 - _FROM % 8) == 1) & (_TO // 8 - _FROM // 8 == 1)
_CASTLING = [int(vocabulary.move_index(c[0], c[1])) for c in _CASTLES]


def turned(tokens: jax.Array) -> jax.Array:
    """The board `[64]` as the other side sees it, with the same side's pieces."""
    return jnp.asarray(_SIDES)[tokens].reshape(8, 8)[::-1].reshape(64)


def play(tokens: jax.Array, move: jax.Array) -> jax.Array:
    """The board after a move that is legal, from the side that is then to move.

    The square of en passant is marked if a pawn stands beside, whether or not it may take by the rules of pins.
    """
    start, end = jnp.asarray(_FROM)[move], jnp.asarray(_TO)[move]
    kind, board = jnp.asarray(_KINDS)[tokens[start]], jnp.where(tokens == vocabulary.EN_PASSANT, 0, tokens)
    passing = (kind == PAWN) & (tokens[end] == vocabulary.EN_PASSANT)
    board = board.at[end - 8].set(jnp.where(passing, 0, board[end - 8]))
    promoted = jnp.where((kind == PAWN) & (end >= 56), jnp.asarray(_PROMOTED)[move], kind)
    board = board.at[start].set(0).at[end].set(promoted)
    for at, (king, _, rook, rook_to, _) in zip(_CASTLING, _CASTLES, strict=True):
        castled = (kind == KING) & (move == at) & (tokens[rook] == vocabulary.MY_CASTLING_ROOK) & (start == king)
        board = jnp.where(castled, board.at[rook].set(0).at[rook_to].set(ROOK), board)
    board = jnp.where((kind == KING) & (board == vocabulary.MY_CASTLING_ROOK), ROOK, board)
    return turned(_marked(board, (kind == PAWN) & (end - start == 16), end))


def _marked(board: jax.Array, double: jax.Array, end: jax.Array) -> jax.Array:
    """The board with the square of en passant, after a pawn went two squares to `end`."""
    beside = lambda step: (board[(end + step) % 64] == vocabulary.THEIRS) & ((end + step) // 8 == end // 8)
    square = end - 8
    return board.at[square].set(jnp.where(double & (beside(-1) | beside(1)), vocabulary.EN_PASSANT, board[square]))


def pseudo_legal(tokens: jax.Array) -> jax.Array:
    """bool `[1858]`: the moves by which pieces move as they do, the own king's safety apart."""
    mine, taken, clear, kind = _seen(tokens)
    pawn = (jnp.asarray(_PUSH) & ~taken[_TO]) | (jnp.asarray(_TAKE) & (_theirs(tokens)[_TO]
                                                                      | (tokens[_TO] == vocabulary.EN_PASSANT)))
    piece = jnp.take_along_axis(jnp.asarray(_REACH), kind[:, None], 1)[:, 0]
    castling = jnp.zeros(vocabulary.NUM_MOVES, bool)
    for at, (king, _, rook, _, empty) in zip(_CASTLING, _CASTLES, strict=True):
        may = (tokens[king] == KING) & (tokens[rook] == vocabulary.MY_CASTLING_ROOK) & ~taken[np.array(empty)].any()
        castling = castling.at[at].set(may)
    return (mine[_FROM] & ~mine[_TO] & clear & jnp.where(kind == PAWN, pawn, piece)) | castling


def _seen(tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Own pieces and all pieces `[64]`, of each move whether its way is clear and the kind of piece `[1858]`."""
    mine = jnp.asarray(_KINDS)[tokens] > 0
    taken = (tokens != vocabulary.EMPTY) & (tokens != vocabulary.EN_PASSANT)
    clear = jnp.asarray(_BETWEEN) @ taken.astype(jnp.float32) == 0
    return mine, taken, clear, jnp.asarray(_KINDS)[tokens[_FROM]]


def _theirs(tokens: jax.Array) -> jax.Array:
    return jnp.asarray(_KINDS)[jnp.asarray(_SIDES)[tokens]] > 0


def attacked(tokens: jax.Array, square: jax.Array) -> jax.Array:
    """Whether a piece of the other side could move to that square to take."""
    board, moves = turned(tokens), jnp.asarray(_INTO)[square ^ 56]
    starts, kind = jnp.asarray(_FROM)[moves], jnp.asarray(_KINDS)[board[jnp.asarray(_FROM)[moves]]]
    taken = ((board != vocabulary.EMPTY) & (board != vocabulary.EN_PASSANT)).astype(jnp.float32)
    piece = jnp.where(kind == PAWN, jnp.asarray(_TAKE)[moves], jnp.asarray(_REACH)[moves, kind])
    return ((jnp.asarray(_BETWEEN)[moves] @ taken == 0) & piece & (starts != square ^ 56)).any()


def legal(tokens: jax.Array, move: jax.Array) -> jax.Array:
    """Whether a pseudo-legal move leaves the own king safe, and does not castle out of or through check."""
    after = turned(play(tokens, move))
    safe = ~attacked(after, jnp.argmax(after == KING))
    for at, (king, to, *_) in zip(_CASTLING, _CASTLES, strict=True):
        path = jnp.array([attacked(tokens, jnp.int32(square)) for square in range(min(king, to), max(king, to) + 1)])
        safe &= ~((move == at) & (tokens[king] == KING) & path.any())
    return safe


def best(tokens: jax.Array, policy: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """The legal moves that a policy (`[1858]` logits) likes most: classes `[width]`, and which of them there are."""
    worth, moves = jax.lax.top_k(jnp.where(pseudo_legal(tokens), policy, -jnp.inf), MOST)
    there = (worth > -jnp.inf) & jax.vmap(lambda move: legal(tokens, move))(moves)
    order = jnp.argsort(~there, stable=True)[:width]
    return moves[order], there[order]
