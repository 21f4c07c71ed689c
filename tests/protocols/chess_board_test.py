"""Boards of tokens against the legal moves of the built-in puzzles, and against python-chess in random games."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.protocols import chess_board
from w2s_jax.tasks.chess import puzzles


@jax.jit
@jax.vmap
def legal_moves(tokens):
    """bool `[N, 1858]`."""
    there = chess_board.pseudo_legal(tokens)
    moves = jnp.flatnonzero(there, size=chess_board.MOST, fill_value=0)
    fine = jax.vmap(lambda move: chess_board.legal(tokens, move))(moves)
    return jnp.zeros(len(there), bool).at[moves].max(fine & there[moves])


play = jax.jit(jax.vmap(chess_board.play))


def of(legal):
    found = np.zeros((len(legal), 1858), bool)
    for row, moves in enumerate(legal):
        found[row, moves[moves != puzzles.NO_MOVE]] = True
    return found


def test_the_legal_moves_of_puzzles():
    rows = puzzles.read_puzzles(puzzles.PUZZLES).take(np.arange(0, 3273, 12))
    found = np.asarray(legal_moves(rows.inputs['tokens'][:, 0].astype(np.int32)))
    np.testing.assert_array_equal(found, of(rows.extras['allowed']))


def random_games(games, seed):
    """Boards, a move of each and the boards after it, out of games of random moves, rare moves first."""
    chess = pytest.importorskip('chess')
    from w2s_jax.tasks.chess import board as chess_tokens
    rng, rows = np.random.default_rng(seed), []
    for _ in range(games):
        board = chess.Board()
        while not board.is_game_over() and board.ply() < 120:
            moves = list(board.legal_moves)
            rare = [m for m in moves if board.is_castling(m) or board.is_en_passant(m) or m.promotion]
            move = rare[rng.integers(len(rare))] if rare and rng.random() < .7 else moves[rng.integers(len(moves))]
            row = [chess_tokens.board_tokens(board), chess_tokens.legal_classes(board),
                   chess_tokens.move_class(board, move), bool(rare and move in rare)]
            board.push(move)
            # Where a pin forbids to take in passing python-chess leaves the square unmarked, which boards here do not.
            pinned = board.has_pseudo_legal_en_passant() != board.has_legal_en_passant()
            rows.append((*row, chess_tokens.board_tokens(board), pinned))
    return rows


@pytest.mark.long
def test_random_games():
    rows = random_games(12, seed=0)
    tokens, legal, moves, rare, after, pinned = zip(*rows, strict=True)
    assert sum(rare) > 10 and len(rows) > 1000
    tokens, rows = np.stack(tokens).astype(np.int32), [np.asarray(m) for m in legal]
    np.testing.assert_array_equal(np.asarray(play(tokens, np.array(moves, np.int32)))[~np.array(pinned)],
                                  np.stack(after)[~np.array(pinned)])
    np.testing.assert_array_equal(np.asarray(legal_moves(tokens)), of(rows))


def test_the_best_of_a_policy_are_the_legal_ones_it_likes_most():
    rows = puzzles.read_puzzles(puzzles.PUZZLES).take(np.arange(40))
    policy = np.random.default_rng(0).normal(size=(40, 1858)).astype(np.float32)
    found, there = jax.vmap(chess_board.best, (0, 0, None))(rows.inputs['tokens'][:, 0].astype(np.int32), policy, 5)
    for row in range(40):
        allowed = rows.extras['allowed'][row]
        allowed = allowed[allowed != puzzles.NO_MOVE].astype(int)
        expected = allowed[np.argsort(-policy[row, allowed])][:5]
        np.testing.assert_array_equal(np.asarray(found)[row][np.asarray(there)[row]], expected)
