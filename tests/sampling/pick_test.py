"""How tokens are chosen, against NumPy and numbers worked out beside the package."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.errors import ConfigError
from w2s_jax.sampling import GREEDY, Pick
from w2s_jax.sampling.pick import contrasted, min_p, top_k, top_p

LOGITS = np.random.default_rng(0).normal(0, 2, (20, 9)).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kept(scores):
    return set(np.flatnonzero(np.isfinite(scores)).tolist())


def fewest(probabilities, p):
    """The tokens of the shortest list, most probable first, that has probability p."""
    order = np.argsort(-probabilities)
    return set(order[:1 + np.searchsorted(np.cumsum(probabilities[order]), p)].tolist())


@pytest.mark.parametrize('p', [.05, .5, .9, .999])
def test_top_p_keeps_the_fewest_that_are_likely_enough(p):
    for row in LOGITS:
        assert kept(top_p(row, p)) == fewest(softmax(row.astype(np.float64)), p)
    np.testing.assert_array_equal(np.where(np.isfinite(top_p(row, p)), row, -np.inf), top_p(row, p))


@pytest.mark.parametrize('p', [.01, .3, 1.])
def test_min_p_is_relative_to_the_most_probable(p):
    for row in LOGITS:
        probabilities = softmax(row.astype(np.float64))
        assert kept(min_p(row, p)) == set(np.flatnonzero(probabilities >= p * probabilities.max()).tolist())


def test_top_k_keeps_so_many_and_those_as_likely_as_the_last():
    for row in LOGITS:
        assert kept(top_k(row, 3)) == set(np.argsort(-row)[:3].tolist())
        assert kept(top_k(row, 100)) == set(range(9))
    assert kept(top_k(np.float32([1, 3, 2, 2, 0]), 2)) == {1, 2, 3}


def test_filters_come_after_the_temperature_and_one_after_the_other():
    """A temperature of 2 makes a nucleus larger; what top-k took away is not counted by top-p."""
    logits = np.log(np.float32([.5, .3, .1, .06, .04]))
    assert kept(Pick(top_p=.75).scores(logits)) == {0, 1}
    assert kept(Pick(temperature=2., top_p=.75).scores(logits)) == {0, 1, 2}
    assert kept(Pick(top_p=.9).scores(logits)) == {0, 1, 2}
    assert kept(Pick(top_k=3, top_p=.88).scores(logits)) == {0, 1}  # .5 and .3 of .9
    assert kept(Pick(top_p=.9, min_p=.5).scores(logits)) == {0, 1}


def test_contrast_is_that_of_the_reference():
    """pi_1 against pi_0 with alpha .4 and a head of .1, in float64 by hand."""
    after, before = np.log([.5, .3, .15, .04, .01]), np.log([.2, .5, .2, .05, .05])
    scores = contrasted(jnp.float32([before, after]), .4, .1)
    np.testing.assert_allclose(softmax(np.asarray(scores)), [.6074419, .21032553, .18223257, 0, 0], atol=1e-6)
    plain = softmax(np.asarray(contrasted(jnp.float32([before, after]), 1., .1)))
    np.testing.assert_allclose(plain, np.float64([.5, .3, .15, 0, 0]) / .95, atol=1e-6)
    assert kept(contrasted(jnp.float32([before, after]), .4, 0.)) == set(range(5))


@pytest.mark.parametrize('pick', [Pick(), Pick(temperature=.5), Pick(top_k=4, top_p=.8, min_p=.05)], ids=str)
def test_draws_have_the_probabilities_of_the_scores(pick):
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(pick, in_axes=(None, 0)))(LOGITS[0], keys))
    want = softmax(np.asarray(pick.scores(LOGITS[0]), np.float64))
    share = np.bincount(drawn, minlength=9) / len(drawn)
    np.testing.assert_allclose(share, want, atol=4 * .5 / len(drawn) ** .5)
    assert not share[want == 0].any()


def test_no_temperature_is_greedy_whatever_the_filters():
    for row in LOGITS:
        for pick in (GREEDY, Pick(temperature=0, top_p=.3), Pick(temperature=0., top_k=2, min_p=.9)):
            assert int(pick(row, jax.random.key(0))) == row.argmax()
    before, after = np.log(np.float32([[.05, .9, .05], [.3, .5, .2]]))
    assert int(Pick(temperature=0, alpha=1.)(np.stack([before, after]), jax.random.key(0))) == 1
    assert int(Pick(temperature=0, alpha=.1)(np.stack([before, after]), jax.random.key(0))) == 0


@pytest.mark.parametrize(('field', 'value'), [
    ('temperature', -1), ('temperature', float('nan')), ('temperature', float('inf')), ('top_k', -2), ('top_p', 0),
    ('top_p', 1.5), ('min_p', -.1), ('alpha', 2), ('head', 1.1)])
def test_numbers_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=f'pick.{field}: .*expected a number'):
        Pick(**{field: value})
