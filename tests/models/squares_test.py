"""A chess encoder that says what stands on hidden squares."""
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.models import chess_moves, modes, squares, zoo
from w2s_jax.objectives import OBJECTIVES
from w2s_jax.registry import Settings
from w2s_jax.tasks.chess import puzzles


@pytest.fixture(scope='module')
def model():
    return modes.bind(zoo.pretrained_chess('chess-xs'), 'full', ()).generative()


@pytest.fixture(scope='module')
def tokens():
    return puzzles.read_puzzles(zoo.ASSETS / 'chess' / 'puzzles.npz').inputs['tokens'][:6]


def params_of(model):
    params, rng = model.init(jax.random.key(0), model.load(None)), np.random.default_rng(1)
    return params | {'head': jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params['head'])}


def test_everything_is_as_likely_at_first(model, tokens):
    found = np.asarray(model.apply(model.init(jax.random.key(0), model.load(None)), {'tokens': tokens}))
    np.testing.assert_allclose(found[:, 0] / found[:, 1], np.log(chess_moves.VOCAB_SIZE), rtol=1e-5)


def test_the_loss_by_hand(model, tokens):
    params, hidden = params_of(model), np.random.default_rng(0).random((6, 64)) < .3
    found = np.asarray(model.apply(params, {'tokens': tokens, 'hidden': hidden}))
    boards = np.where(hidden, chess_moves.EMPTY, tokens[:, 0]).astype(np.int32)
    states = np.asarray(zoo.untrained_chess('chess-xs').backbone.apply({'params': params['backbone']}, boards))
    head = params['head']['squares']
    logits = states @ np.asarray(head['kernel']) + np.asarray(head['bias'])
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for i in range(6):
        want = -sum(logs[i, s, tokens[i, 0, s]] for s in range(64) if hidden[i, s])
        np.testing.assert_allclose(found[i], [want, hidden[i].sum()], rtol=1e-4)


def test_what_is_hidden_is_not_seen(model, tokens):
    """Two boards that differ on hidden squares alone have the same states, so that nothing is copied."""
    other = tokens.copy()
    other[:, 0, squares.FIXED] = (other[:, 0, squares.FIXED] + 3) % chess_moves.VOCAB_SIZE
    parts = squares.hiding(zoo.pretrained_chess('chess-xs'))
    variables = {'params': params_of(model)['backbone']}
    one, two = (parts.read(variables, {'tokens': jnp.asarray(t)}) for t in (tokens, other))
    np.testing.assert_array_equal(one['states'], two['states'])
    assert (one['tokens'] != two['tokens']).any() and squares.FIXED.sum() == 9


def test_other_squares_are_hidden_for_each_row_and_step(model, tokens):
    objective, settings = OBJECTIVES['hidden_squares'].fn(), Settings(share=.25)
    seen = []

    def forward(params, inputs):
        seen.append(np.asarray(inputs['hidden']))
        return model.apply(params, inputs)
    batch = {'inputs': {'tokens': jnp.asarray(np.repeat(tokens[:1], 300, 0))}, 'row': jnp.arange(300),
             'weight': jnp.ones(300)}
    for key in (0, 1):
        loss, _ = objective.losses(forward, params_of(model), batch, (), settings, 0., jax.random.key(key))
        assert loss.shape == (300,) and np.isfinite(loss).all()
    assert abs(seen[0].mean() - .25) < .02 and len(np.unique(seen[0], axis=0)) > 290
    assert (seen[0] != seen[1]).any(1).mean() > .99


@pytest.mark.long
@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_positions_first_and_then_moves(mode, tmp_path):
    """The encoder learns what boards look like, and its moves start as they were pretrained."""
    c = configs.default_config()
    c.teacher.model, c.student.model, c.student.mode = 'chess-xs', 'chess-s', mode
    c.task.train_size, c.task.test_size, c.seeds, c.report.html = 200, 200, (0, 1), False
    c.method.name, c.train.epochs, c.student.learning_rate = 'generative', 1, 1e-4
    c = configs.compose(c)
    c.method.epochs, c.method.rate = 4, 5e-3
    found = experiment.run(c, tmp_path, io.StringIO())
    plain, tuned = (next(s for s in found['students'] if s['label'] == label) for label in ('xent', 'generative xent'))
    assert tuned['measures']['perplexity']['mean'] < .5 * plain['measures']['perplexity']['mean'] < 9
    assert tuned['accuracy']['mean'] > .1  # a new head for 1858 moves would know nothing after so little
