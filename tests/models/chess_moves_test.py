"""The chess vocabulary, and that python-chess's rules and our tokens agree."""
import hashlib
import random

import numpy as np
import pytest

from w2s_jax.models import chess_moves as vocabulary


def test_every_class_has_squares_that_lead_back_to_it():
    back = [vocabulary.move_index(*vocabulary.move_squares(i)) for i in range(vocabulary.NUM_MOVES)]
    assert back == list(range(1858))
    assert len({vocabulary.move_name(i) for i in back}) == 1858


def test_classes_keep_their_numbers():
    """Weights and files of puzzles that were made before depend on them."""
    names = ' '.join(vocabulary.move_name(i) for i in range(vocabulary.NUM_MOVES))
    assert hashlib.sha256(names.encode()).hexdigest().startswith('780d162ba0a60b29')


def test_a_queen_is_the_default_promotion():
    a7, a8 = 48, 56
    classes = {p: vocabulary.move_index(a7, a8, p) for p in ('', 'q', 'r', 'b', 'n')}
    assert classes[''] == classes['q']
    assert len(set(classes.values())) == 4
    assert vocabulary.move_name(classes['n']) == 'a7a8n'


@pytest.mark.parametrize('move', [(0, 0, ''), (0, 11, ''), (8, 16, 'n'), (48, 58, 'r'), (0, 64, '')])
def test_moves_that_no_piece_can_make_have_no_class(move):
    with pytest.raises(KeyError):
        vocabulary.move_index(*move)


def test_square_names():
    assert [vocabulary.square_name(s) for s in (0, 7, 28, 63)] == ['a1', 'h1', 'e4', 'h8']


def test_the_indices_into_a_64_by_64_table_agree_with_the_moves():
    moves = [divmod(int(i), 64) for i in vocabulary.PAIR_INDEX]
    assert [vocabulary.move_squares(i)[:2] for i in range(vocabulary.NUM_PAIRS)] == moves
    steps = [divmod(int(i), 64) for i in vocabulary.STEP_INDEX]
    assert [vocabulary.move_squares(vocabulary.NUM_PAIRS + 3 * i)[:2] for i in range(len(steps))] == steps


def test_every_token_has_a_glyph():
    assert len(vocabulary.GLYPHS) == vocabulary.VOCAB_SIZE


# With python-chess.

@pytest.fixture(scope='module')
def chess():
    return pytest.importorskip('chess')


@pytest.fixture(scope='module')
def chess_board(chess):
    from w2s_jax.tasks.chess import board as chess_board
    return chess_board


@pytest.fixture(scope='module')
def boards(chess):
    """Every fourth position of random games, which castle, promote and take en passant, and some hand-made ones."""
    found = [chess.Board(fen) for fen in (
        'n1n5/PPPk4/8/8/8/8/4Kppp/5N1N w - - 0 1', 'n1n5/PPPk4/8/8/8/8/4Kppp/5N1N b - - 0 1',
        'r3k2r/8/8/8/8/8/8/R3K2R w KQkq - 0 1', 'r3k2r/8/8/8/8/8/8/R3K2R b Kq - 0 1',
        '4k3/8/8/3pP3/8/8/8/4K3 w - d6 0 2', 'R6R/3Q4/1Q4Q1/4Q3/2Q4Q/Q4Q2/pp1Q4/kBNN1KB1 w - - 0 1')]
    for seed in range(6):
        board, rng = chess.Board(), random.Random(seed)
        while not board.is_game_over() and board.ply() < 160:
            if board.ply() % 4 == 0:
                found.append(board.copy(stack=False))
            board.push(rng.choice(list(board.legal_moves)))
    return found


def test_legal_moves_have_distinct_classes_that_lead_back_to_them(chess, chess_board, boards):
    promotions = 0
    for board in boards:
        flip = 0 if board.turn == chess.WHITE else 56
        for move in board.legal_moves:
            a, b, piece = vocabulary.move_squares(chess_board.move_class(board, move))
            promotions += bool(move.promotion)
            piece = piece or ('q' if move.promotion else '')
            assert vocabulary.square_name(a ^ flip) + vocabulary.square_name(b ^ flip) + piece == move.uci()
        classes = chess_board.legal_classes(board)
        assert len(np.unique(classes)) == board.legal_moves.count() == len(classes)
        assert (np.diff(classes.astype(int)) > 0).all()
    assert promotions > 20


def test_the_position_with_the_most_moves_fits(chess_board, boards):
    assert len(chess_board.legal_classes(boards[5])) == 218


def test_a_position_and_its_mirror_are_the_same_to_a_model(chess, chess_board, boards):
    for board in boards:
        mirror = board.mirror()
        np.testing.assert_array_equal(chess_board.board_tokens(board), chess_board.board_tokens(mirror))
        for move in board.legal_moves:
            other = chess.Move(move.from_square ^ 56, move.to_square ^ 56, move.promotion)
            assert chess_board.move_class(board, move) == chess_board.move_class(mirror, other)


def test_tokens_tell_the_pieces_of_both_sides(chess, chess_board, boards):
    for board in boards:
        seen = board if board.turn == chess.WHITE else board.mirror()
        glyphs = [vocabulary.GLYPHS[t] for t in chess_board.board_tokens(board)]
        expected = [seen.piece_at(s).unicode_symbol() if seen.piece_at(s) else ' ' for s in chess.SQUARES]
        assert glyphs == expected


def test_castling_rights_change_exactly_their_rooks(chess, chess_board):
    place = 'r3k2r/8/8/8/8/8/8/R3K2R {} {} - 0 1'
    none = {turn: chess_board.board_tokens(chess.Board(place.format(turn, '-'))) for turn in 'wb'}
    for turn in 'wb':
        for rights, white, black in [('K', 'h1', 'h8'), ('Q', 'a1', 'a8'), ('k', 'h8', 'h1'), ('q', 'a8', 'a1')]:
            tokens = chess_board.board_tokens(chess.Board(place.format(turn, rights)))
            square = chess.parse_square(white if turn == 'w' else black)  # as the side to move sees it
            assert np.flatnonzero(tokens != none[turn]).tolist() == [square]
            mine = rights.isupper() == (turn == 'w')
            assert tokens[square] == (vocabulary.MY_CASTLING_ROOK if mine else vocabulary.THEIR_CASTLING_ROOK)


def test_rights_that_a_position_denies_are_no_rights(chess, chess_board):
    claimed, real = (chess.Board(f'4k3/8/8/8/8/8/8/4K2R w {r} - 0 1') for r in ('KQkq', 'K'))
    np.testing.assert_array_equal(chess_board.board_tokens(claimed), chess_board.board_tokens(real))


@pytest.mark.parametrize('fen, square', [
    ('4k3/8/8/3pP3/8/8/8/4K3 w - {} 0 2', 'd6'),
    ('4k3/8/8/8/3pP3/8/8/4K3 b - {} 0 2', 'e3')])
def test_en_passant_changes_exactly_its_square(chess, chess_board, fen, square):
    with_it, without = (chess_board.board_tokens(chess.Board(fen.format(s))) for s in (square, '-'))
    seen = chess.parse_square(square) ^ (0 if ' w ' in fen else 56)
    assert np.flatnonzero(with_it != without).tolist() == [seen]
    assert (with_it[seen], without[seen]) == (vocabulary.EN_PASSANT, vocabulary.EMPTY)


def test_en_passant_that_nobody_can_play_is_not_told(chess, chess_board):
    board = chess.Board()
    board.push_uci('e2e4')  # sets the square in the FEN of many programs, yet no black pawn is near
    assert vocabulary.EN_PASSANT not in chess_board.board_tokens(board)
