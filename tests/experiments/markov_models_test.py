"""The Markov language as models and pairs for whole experiments."""
import json

import jax
import numpy as np
import pytest

from experiments import markov as experiment
from w2s_jax import sampling
from w2s_jax.theory import markov


@pytest.mark.parametrize('name', ['weak', 'strong'])
def test_models_speak_the_reference(tmp_path, name):
    spoken = experiment.language()
    experiment.model(tmp_path, *experiment.MODELS[name], np.asarray(spoken.reference[0], np.float64))
    generate, params = sampling.opened(tmp_path)
    states = len(experiment.LETTERS)
    keys = jax.random.split(jax.random.key(0), states)
    found = generate(params, np.arange(states)[:, None], np.ones(states, int), keys, steps=2, pick=sampling.Pick())
    tokens = np.concatenate([np.arange(states)[:, None], found.tokens], axis=1)
    expected = np.asarray(spoken.reference[0])[tokens[:, :-1], tokens[:, 1:]]
    np.testing.assert_allclose(found.logprobs, expected, atol=1e-3)


def test_pairs_prefer_what_earns_more(tmp_path):
    spoken = experiment.language()
    rows = json.loads(json.dumps(experiment.pairs(spoken, 2000, 3)))
    text = {k: np.array([[row[k]] for row in rows], object) for k in ('prompt', 'chosen', 'rejected')}
    good, poor = (experiment.gold(text[k], text['prompt'], spoken) for k in ('chosen', 'rejected'))
    likely = 1 / (1 + np.exp(poor - good))
    assert good.mean() > poor.mean() + 1
    # of those who differ by some amount, the better one is preferred as often as Bradley and Terry say
    assert np.maximum(likely, 1 - likely).mean() == pytest.approx((good > poor).mean(), abs=.04)
    each = (good + poor).mean() / 2
    assert each == pytest.approx(float(markov.expected(spoken.reference, spoken.start, spoken.gold)), abs=.3)
