"""Gain and misfit on stored predictions, and what is said where a theorem is not of the student."""
import numpy as np
import pytest
from scipy import optimize, special

from w2s_jax.diagnostics import DIAGNOSTICS, misfit, seeds
from w2s_jax.diagnostics.registry import Note
from w2s_jax.registry import Settings

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3))
TRUTH = RNG.integers(0, 3, 200)
ROW = {'label': 'a student', 'loss': 'xent', 'mode': 'probe'}


def stored(p):
    top = np.argsort(-p, axis=-1, kind='stable')
    return {'top': top, 'top_probability': np.take_along_axis(p, top, -1)}


def probe(labels):
    """The answers of a log-linear model at the least of its cross-entropy to labels `[N, 3]`."""
    answers = lambda w: X @ w.reshape(3, 3)
    loss = lambda w: -(labels * special.log_softmax(answers(w), axis=1)).sum(1).mean()
    slope = lambda w: (X.T @ (special.softmax(answers(w), axis=1) - labels)).ravel() / len(X)
    return special.softmax(answers(optimize.minimize(loss, np.zeros(9), jac=slope, tol=1e-10).x), axis=1)


WEAK = special.softmax(RNG.normal(size=(200, 3)), axis=1)
STUDENT, CEILING = probe(WEAK), probe(np.eye(3)[TRUTH])


def found(row=ROW, student=STUDENT):
    models = [stored(p) for p in (student, WEAK, CEILING)]
    return DIAGNOSTICS['misfit'].fn(*models, TRUTH, Settings(), row=row)


def test_gain_in_squares_is_misfit_and_cross_term():
    y, got = np.eye(3)[TRUTH], found()
    gain, apart, cross = (got[f'squared_{k}'][0] for k in ('gain', 'misfit', 'cross'))
    assert gain == pytest.approx(((WEAK - y) ** 2).sum(1).mean() - ((STUDENT - y) ** 2).sum(1).mean())
    assert apart == pytest.approx(((WEAK - STUDENT) ** 2).sum(1).mean())
    assert gain == pytest.approx(apart + cross) and abs(cross) > 1e-3


def test_a_probe_of_cross_entropy_has_the_dual_identity_on_its_own_rows():
    got = found()
    wanted = special.rel_entr(WEAK, STUDENT).sum(1).mean()
    assert got['kl_misfit'][0] == pytest.approx(wanted, rel=1e-5)
    assert got['kl_gain'][0] == pytest.approx(wanted, rel=1e-4)
    assert abs(got['kl_residual'][0]) < 1e-4
    assert abs(found(student=(STUDENT + WEAK) / 2)['kl_residual'][0]) > .02


@pytest.mark.parametrize('row', [ROW | {'loss': 'confidence'}, ROW | {'loss': 'reverse_kl'}, ROW | {'mode': 'full'},
                                 {'loss': 'xent'}, {}])
def test_where_the_identity_is_not_of_the_student_there_is_a_note_and_no_number(row):
    got = found(row)
    assert isinstance(got['kl_dual'], Note) and 'not checked' in got['kl_dual'].text
    assert not {'kl_gain', 'kl_misfit', 'kl_residual'} & got.keys()


def test_the_identity_of_reverse_kl_is_a_note_for_every_student():
    assert all(isinstance(found(row)['kl_primal'], Note) for row in (ROW, ROW | {'loss': 'reverse_kl'}))


def test_without_all_probabilities_there_is_a_note_alone():
    six = stored(RNG.dirichlet(np.ones(6), size=200))
    five = {k: v[:, :5] for k, v in six.items()}
    got = DIAGNOSTICS['misfit'].fn(five, five, five, TRUTH, Settings(), row=ROW)
    assert list(got) == ['misfit'] and isinstance(got['misfit'], Note)


def test_the_row_is_given_and_notes_are_kept_apart():
    models = [[stored(p)] * 2 for p in (STUDENT, WEAK, CEILING)]
    chosen = [{'name': 'misfit', 'version': '1'}]
    got = seeds.diagnosed(chosen, *models, TRUTH, ROW)
    assert 'kl_residual' in got['measures'] and list(got['notes']) == ['kl_primal']
    got = seeds.diagnosed(chosen, *models, TRUTH, ROW | {'loss': 'window'})
    assert 'learned window' in got['notes']['kl_dual'] and 'kl_residual' not in got['measures']


def test_probabilities_of_zero_have_a_logarithm():
    assert np.isfinite(misfit.kl(np.eye(2), 1 - np.eye(2)))
