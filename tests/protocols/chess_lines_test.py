"""Lines of chess: whose turn it is in which, where they end, and that debaters do what they are for."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from w2s_jax.models import chess_moves as vocabulary
from w2s_jax.protocols import Question, both, chess_board, chess_lines, held, scores
from w2s_jax.protocols.protocols import pushing
from w2s_jax.tasks.chess import choices, puzzles

N, WIDTH, KEY = 24, 4, jax.random.key(5)


def capturing(values, tokens):
    """A policy that likes to take what is worth most, and else the first moves."""
    taken = values[tokens[jnp.asarray([vocabulary.move_squares(i)[1] for i in range(vocabulary.NUM_MOVES)])]]
    return taken - jnp.arange(vocabulary.NUM_MOVES) / 1e5


def nothing(_, tokens):
    return jnp.zeros(0)


VALUES = np.zeros(16, np.float32)
VALUES[[*range(7, 12), 14]] = 1, 3, 3, 5, 9, 5
RUNG = {'policy': Partial(capturing, VALUES), 'states': Partial(nothing, 0)}
# Of a judge that counts pieces in their values, whoever is to move: after an even number of moves it is the opponent.
COUNT = np.array([1, 3, 3, 5, 9, 0, 0], np.float32)
WEIGHTS = np.concatenate([[0], -COUNT, COUNT]).astype(np.float32)
JUDGE = chess_lines.judge(RUNG, WEIGHTS)
AGENT = chess_lines.advocate(RUNG, RUNG, WEIGHTS, WIDTH)


@pytest.fixture(scope='module')
def asked():
    found = choices.choices(puzzles.read_puzzles(puzzles.PUZZLES).take(np.arange(0, 5 * N, 5)), 0)
    moves = [[vocabulary.move_index(int(a), int(b)) for a, b in row] for row in found.inputs['squares']]
    return Question(found.inputs['tokens'][:, 0].astype(np.int32), np.zeros(len(moves), np.int32),
                    np.array(moves, np.int32))


@pytest.fixture(scope='module')
def debates(asked):
    return jax.device_get(both('debate', JUDGE, (AGENT, AGENT), asked, KEY, rounds=2))


def lines(found, row):
    """The moves of the two lines of one transcript, after the claims."""
    turns = [int(chess_lines.line_of(t)) for t in range(len(found.said[row]))]
    return [[int(m) for t, m in enumerate(found.messages[row]) if turns[t] == line and m >= 0] for line in (0, 1)]


def test_lines_are_legal_and_end_where_they_are_played_to(asked, debates):
    found = jax.tree.map(lambda x: x[0], debates)
    boards, plies, over = jax.jit(jax.vmap(chess_lines.ends))(found)
    legal = jax.jit(lambda board, move: chess_board.pseudo_legal(board)[move] & chess_board.legal(board, move))
    play = jax.jit(chess_board.play)
    for row in range(len(asked.claims)):
        for line, moves in enumerate(lines(found, row)):
            board = play(asked.public[row], asked.claims[row, line])
            for move in moves:
                assert legal(board, move)
                board = play(board, move)
            np.testing.assert_array_equal(board, boards[row, line])
            assert plies[row, line] == len(moves) and (len(moves) == 2 or over[row, line])


def test_debates_are_the_same_in_both_seatings(debates):
    np.testing.assert_allclose(debates.verdict[0], debates.verdict[1][:, ::-1], atol=1e-5)
    for row in range(5):
        first, second = (lines(jax.tree.map(lambda x, s=s: x[s], debates), row) for s in (0, 1))
        assert first == second[::-1]


@pytest.mark.long
def test_each_moves_as_its_side_would(asked, debates):
    """The first move of a line is the opponent's: the best of those considered against the claim, by the judge."""
    found = jax.tree.map(lambda x: x[0], debates)
    for row in range(8):
        for line, moves in enumerate(lines(found, row)):
            board = chess_board.play(asked.public[row], asked.claims[row, line])
            options, there = chess_board.best(board, RUNG['policy'](board), WIDTH)
            after = jax.vmap(chess_board.play, (None, 0))(board, options)
            worth = jax.vmap(lambda b: chess_lines.features(RUNG['states'], b, 1, False) @ WEIGHTS[1:])(after)
            worth = np.where(there, worth, np.inf)
            if moves:
                assert worth[list(np.asarray(options)).index(moves[0])] == worth.min()


@pytest.mark.long
def test_a_consultant_is_believed_whatever_it_argues_for(asked):
    sides = [held('consultancy', JUDGE, (pushing(AGENT, side),), asked, KEY, turns=4).verdict for side in (0, 1)]
    fair = held('debate', JUDGE, (AGENT, AGENT), asked, KEY, rounds=2).verdict
    # Not in all: an agent looks one move ahead, and may be worse off in the end.
    assert (sides[0][:, 0] >= fair[:, 0] - 1e-5).mean() > .8 and (sides[1][:, 1] >= fair[:, 1] - 1e-5).mean() > .8
    assert scores.accuracy(sides[0], np.zeros(len(asked.claims), int)) > .7


@pytest.mark.long
def test_protocols_of_one_voice_are_consultancies(asked):
    """What experiments/chess_oversight.py reads them off."""
    verdicts = np.stack([held('consultancy', JUDGE, (pushing(AGENT, side),), asked, KEY, turns=4).verdict
                         for side in (0, 1)])
    believed = np.array([int(AGENT.choose(jax.tree.map(lambda x, row=row: x[row], asked), KEY))
                         for row in range(len(asked.claims))])
    of = lambda side: np.take_along_axis(verdicts, side[None, :, None], 0)[0]
    run = lambda name, *agents, **more: np.asarray(held(name, JUDGE, agents, asked, KEY, **more).verdict)
    np.testing.assert_allclose(run('open_consultancy', AGENT, turns=4), of(believed), atol=1e-6)
    np.testing.assert_allclose(run('critique', AGENT, AGENT, turns=4), of(1 - believed), atol=1e-6)
    liar = pushing(AGENT, 1)
    np.testing.assert_allclose(run('debate', liar, liar, rounds=2), verdicts[1], atol=1e-6)


def test_a_mated_side_says_nothing():
    """Back-rank mate by the first claim: the line ends there."""
    board = np.zeros(64, np.int32)
    board[[4, 0]] = chess_board.KING, chess_board.ROOK
    board[[62, 53, 54, 55]] = chess_board.THEIR_KING, *[vocabulary.THEIRS] * 3
    claims = np.array([[vocabulary.move_index(0, 56), vocabulary.move_index(0, 1)]], np.int32)
    question = Question(board[None], np.zeros(1, np.int32), claims)
    found = jax.device_get(held('debate', JUDGE, (AGENT, AGENT), question, KEY, rounds=2))
    mated, other = lines(found, 0)
    assert mated == [] and len(other) == 2
    _, plies, over = jax.vmap(chess_lines.ends)(found)
    np.testing.assert_array_equal(over[0], [True, False])
    np.testing.assert_array_equal(plies[0], [0, 2])
