"""From python-chess's boards to our tokens and back. Imports python-chess (extra `chess`, GPL-3)."""
import chess
import numpy as np

from w2s_jax.models import chess_moves as vocabulary


def board_tokens(board: chess.Board) -> np.ndarray:
    """`[64]` uint8 tokens of a position from the side to move (see `chess_moves`)."""
    tokens = np.zeros(vocabulary.NUM_SQUARES, np.uint8)
    flip = 0 if board.turn == chess.WHITE else 56
    for square, piece in board.piece_map().items():
        side = vocabulary.MINE if piece.color == board.turn else vocabulary.THEIRS
        tokens[square ^ flip] = side + piece.piece_type - 1
    for square in chess.scan_forward(board.clean_castling_rights()):
        mine = board.color_at(square) == board.turn
        tokens[square ^ flip] = vocabulary.MY_CASTLING_ROOK if mine else vocabulary.THEIR_CASTLING_ROOK
    if board.ep_square is not None and board.has_legal_en_passant():
        tokens[board.ep_square ^ flip] = vocabulary.EN_PASSANT
    return tokens


def move_class(board: chess.Board, move: chess.Move) -> int:
    """The class in `[0, 1858)` of a legal move."""
    flip = 0 if board.turn == chess.WHITE else 56
    promotion = chess.piece_symbol(move.promotion) if move.promotion else ''
    return vocabulary.move_index(move.from_square ^ flip, move.to_square ^ flip, promotion)


def legal_classes(board: chess.Board) -> np.ndarray:
    """The classes of all legal moves, sorted, `[M]` uint16."""
    return np.sort(np.array([move_class(board, m) for m in board.legal_moves], np.uint16))
