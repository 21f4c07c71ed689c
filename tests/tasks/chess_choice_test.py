"""The second chess task: which of two moves is the best."""
import io

import jax
import numpy as np
import pytest
import sections

from w2s_jax.config import default_config
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.models import chess_moves as vocabulary
from w2s_jax.models import modes, zoo
from w2s_jax.tasks import TASKS
from w2s_jax.tasks.chess import choices


def load(name, **fields):
    return TASKS[name].fn(sections.task(name, train_size=400, test_size=200, **fields), log=lambda line: None)


@pytest.fixture(scope='module')
def dataset():
    return load('chess_choice')


def moves_of(rows):
    return np.array([[vocabulary.move_index(int(a), int(b)) for a, b in pair] for pair in rows.inputs['squares']])


def test_either_move_is_legal_one_is_best_and_neither_tells_by_capturing(dataset):
    whole, seen = load('chess'), 0
    for mine, theirs in ((dataset.pool, whole.pool), (dataset.test, whole.test)):
        at = {t.tobytes(): i for i, t in enumerate(theirs.inputs['tokens'])}
        rows = np.array([at[t.tobytes()] for t in mine.inputs['tokens']])
        moves, best, board = moves_of(mine), theirs.truth[rows], mine.inputs['tokens'][:, 0]
        np.testing.assert_array_equal(np.take_along_axis(moves, mine.truth[:, None], 1)[:, 0], best)
        assert (moves[:, 0] != moves[:, 1]).all()
        assert all(set(m) <= set(a) for m, a in zip(moves, theirs.extras['allowed'][rows], strict=True))
        captured = choices.captures(board, moves)
        np.testing.assert_array_equal(captured[:, 0], captured[:, 1])
        assert 0 < captured.mean() < 1 and abs(mine.truth.sum() * 2 - len(mine)) <= 1
        seen += len(mine)
    assert dataset.notes['without_alternative'] == 600 - seen > 0


def test_captures_are_of_their_pieces_their_castling_rook_and_en_passant():
    board = np.zeros((1, 64), np.uint8)
    board[0, 8:14] = [vocabulary.MINE, vocabulary.THEIRS, vocabulary.THEIRS + 5, vocabulary.MY_CASTLING_ROOK,
                      vocabulary.THEIR_CASTLING_ROOK, vocabulary.EN_PASSANT]
    moves = np.array([[vocabulary.move_index(0, to) for to in (8, 1, 9)]])
    np.testing.assert_array_equal(choices.captures(board, moves), [[False, False, True]])
    board[0, 8], board[0, 9] = board[0, 10], board[0, 11]
    np.testing.assert_array_equal(choices.captures(board, moves), [[True, False, False]])
    board[0, 8], board[0, 9] = board[0, 12], board[0, 13]
    np.testing.assert_array_equal(choices.captures(board, moves), [[True, False, True]])


def test_scores_are_those_of_the_whole_policy(dataset):
    rows = dataset.test.take(np.arange(16))
    policy, asked = (modes.bind(p, 'full', ()) for p in (zoo.pretrained_chess('chess-s'),
                                                         zoo.choosing_chess('chess-s')))
    assert policy.identity != asked.identity
    scores = asked.apply(asked.init(jax.random.key(0), asked.load(None)), rows.inputs)
    whole = policy.apply(policy.init(jax.random.key(0), policy.load(None)), {'tokens': rows.inputs['tokens']})
    np.testing.assert_allclose(scores, np.take_along_axis(np.asarray(whole), moves_of(rows), 1), atol=1e-5)


def test_examples_show_the_chosen_moves(dataset):
    row = {k: v[0] for k, v in dataset.test.inputs.items()}
    html = dataset.render(row, {'truth': int(dataset.test.truth[0])})
    assert vocabulary.move_name(int(moves_of(dataset.test)[0, dataset.test.truth[0]])) in html


def test_what_is_no_chess_model_is_refused():
    c = default_config()
    c.task.name, c.student.model = 'chess_choice', 'mlp-32'
    with pytest.raises(ConfigError, match=r"student\.model: 'mlp-32' does not fit task 'chess_choice'"):
        plans.prepare(plans.ready(c), lambda *a: None)


@pytest.mark.long
@pytest.mark.parametrize('mode', ['full', 'lora', 'probe'])
def test_an_experiment_in_every_mode(mode, tmp_path):
    c = default_config()
    c.task.name, c.task.train_size, c.task.test_size, c.seeds = 'chess_choice', 400, 200, (0, 1)
    c.teacher.model, c.student.model, c.student.mode, c.train.epochs = 'chess-xs', 'chess-s', mode, 1
    found = experiment.run(c, tmp_path, io.StringIO())
    assert found['task']['classes'] == 2 and found['majority']['accuracy']['mean'] == pytest.approx(.5, abs=.01)
    assert found['weak']['accuracy']['mean'] > .55
    if mode != 'probe':  # whose head is drawn anew: two hundred rows say little about its products
        assert found['zero_shot']['accuracy']['mean'] > .7 and found['ceiling']['accuracy']['mean'] > .7
