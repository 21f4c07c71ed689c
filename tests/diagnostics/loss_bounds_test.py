"""The bounds of loss and calibration on stored predictions."""
import numpy as np
import pytest
from scipy import special

from w2s_jax.diagnostics import DIAGNOSTICS
from w2s_jax.diagnostics.registry import Note
from w2s_jax.registry import Settings
from w2s_jax.theory import bounds as theory

N, K = 300, 3


def stored(p):
    top = np.argsort(-p, axis=-1, kind='stable')
    return {'top': top, 'top_probability': np.take_along_axis(p, top, -1)}


def found(student, weak, truth, bins=15):
    return DIAGNOSTICS['bounds'].fn(stored(student), stored(weak), None, truth, Settings(bins=bins))


def models(seed, apart, sure=1.):
    rng = np.random.default_rng(seed)
    logits = sure * rng.normal(size=(N, K))
    return (special.softmax(logits + apart * rng.normal(size=(N, K)), axis=1), special.softmax(logits, axis=1),
            rng.integers(0, K, N))


@pytest.mark.parametrize('apart', [.003, .03, .3, 3])
def test_models_are_within_the_bounds_of_the_theory(apart):
    for seed in range(50):
        student, weak, truth = models(seed, apart)
        got = found(student, weak, truth)
        d = special.rel_entr(weak, student).sum(1).mean()
        assert got['calibration_bound'][0] == pytest.approx(float(theory.calibration_bound(d)), rel=1e-3)
        assert got['calibration_gap'][0] <= got['calibration_bound'][0]
        if not isinstance(got['loss_bound'], Note):
            gamma = min(student.min(), weak.min())
            assert got['loss_bound'][0] == pytest.approx(float(theory.loss_bound(d, gamma)), rel=1e-3)
            assert got['loss_gap'][0] <= got['loss_bound'][0]


def test_gaps_are_those_of_cross_entropy_and_of_marginal_errors():
    student, weak, truth = models(0, 1.)
    got = found(student, weak, truth, bins=1)
    each = np.arange(N), truth
    assert got['loss_gap'][0] == pytest.approx(abs(np.log(student[each]).mean() - np.log(weak[each]).mean()))
    error = lambda f: np.abs((f - np.eye(K)[truth]).mean(0)).sum()
    assert got['calibration_gap'][0] == pytest.approx(abs(error(student) - error(weak)))
    more = found(student, weak, truth, bins=15)
    order, y = np.argsort(weak.max(1)), np.eye(K)[truth]
    error = lambda f: sum(np.abs((f - y)[part].sum(0)).sum() for part in np.split(order, 15)) / N
    assert more['calibration_gap'][0] == pytest.approx(abs(error(student) - error(weak)))


def test_a_bound_above_every_loss_is_said_to_be_none():
    assert not isinstance(found(*models(0, .03))['loss_bound'], Note)
    got = found(*models(0, 3., sure=5.))['loss_bound']
    assert isinstance(got, Note) and 'bounds no cross-entropy' in got.text


def test_more_than_five_classes_have_a_note():
    p = np.full((4, 7), 1 / 7)
    few = {'top': np.tile(np.arange(2, 7), (4, 1)), 'top_probability': p[:, :5]}
    assert isinstance(DIAGNOSTICS['bounds'].fn(few, few, None, np.zeros(4, int), Settings(bins=3))['bounds'], Note)
