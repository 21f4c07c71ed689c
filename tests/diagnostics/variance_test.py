"""Bias and variance over seeds."""
import numpy as np
import pytest

from w2s_jax.diagnostics import seeds
from w2s_jax.diagnostics.variance import bias_variance

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 40)
CHOSEN = [{'name': 'variance', 'version': '1'}]


def stored(p):
    top = np.argsort(-p, axis=-1, kind='stable')
    return {'top': top, 'top_probability': np.take_along_axis(p, top, -1)}


def test_bias_and_variance_add_up_to_the_mean_error_and_are_unbiased():
    middle, y = RNG.normal(size=(40, 3)), np.eye(3)[TRUTH]
    draws = [middle + RNG.normal(size=(4, 40, 3)) for _ in range(500)]
    found = np.array([bias_variance(d, y) for d in draws])
    assert found[0].sum() == pytest.approx(((draws[0] - y) ** 2).sum(-1).mean())
    assert found.mean(0) == pytest.approx([((middle - y) ** 2).sum(-1).mean(), 3], rel=.02)


def test_each_model_has_its_own_over_all_seeds():
    student, weak = RNG.dirichlet(np.ones(3), size=(2, 3, 40))
    ceiling = np.repeat(student[:1], 3, axis=0)
    got = seeds.diagnosed(CHOSEN, *([stored(p) for p in who] for who in (student, weak, ceiling)), TRUTH)['measures']
    assert got['variance_weak']['mean'] == pytest.approx(weak.var(0, ddof=1).sum(-1).mean())
    assert got['variance']['mean'] == pytest.approx(student.var(0, ddof=1).sum(-1).mean())
    assert got['variance_ceiling']['mean'] == pytest.approx(0)
    assert got['bias_ceiling']['mean'] == pytest.approx(((student[0] - np.eye(3)[TRUTH]) ** 2).sum(-1).mean())
    assert 'low' not in got['bias'] and got['bias']['title'] == 'squared bias over seeds: student'


@pytest.mark.parametrize(('shape', 'said'), [((1, 40, 3), 'two seeds'), ((2, 40, 6), 'five classes')])
def test_where_there_are_none_it_says_so(shape, said):
    each = [{k: v[:, :5] for k, v in stored(p).items()} for p in RNG.dirichlet(np.ones(shape[-1]), size=shape[:-1])]
    got = seeds.diagnosed(CHOSEN, each, each, each, TRUTH)
    assert said in got['notes']['variance'] and not got['measures']
