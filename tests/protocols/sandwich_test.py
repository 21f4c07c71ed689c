"""The sandwich: nothing before the ordering, labels at the last call alone, and tests that are exact."""
import numpy as np
import pytest
from scipy import stats

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.protocols import sandwich, scores
from w2s_jax.protocols.sandwich import Pilot, Sealed

S, N = 4, 300
RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 2, (S, N))
PILOT = Pilot(RNG.random((S, 80)) < .6, RNG.random((S, 80)) < .8, np.ones((S, 80)))


def verdicts(share, seed=0):
    """Of a judge who is right that often."""
    rng = np.random.default_rng(seed)
    hit, sure = rng.random((S, N)) < share, rng.uniform(.5, 1, (S, N))
    return np.where((np.arange(2) == LABELS[..., None]) == hit[..., None], sure[..., None], 1 - sure[..., None])


ARMS = {'alone': lambda: verdicts(.6), 'debate': lambda: verdicts(.9, 1), 'consultancy': lambda: verdicts(.5, 2)}


@pytest.mark.parametrize(('n', 'm', 'e'), [(.6, .5, 1.), (.5, .5, 1.), (.5, .8, .8), (.8, .5, .2)])
def test_nothing_runs_unless_the_model_lies_between(n, m, e):
    ran, sealed = [], Sealed(LABELS)
    arms = {'alone': lambda: ran.append('alone')}
    with pytest.raises(ConfigError, match=f'N {n:.4f}, M {m:.4f}, E {e:.4f}, expected N < M < E'):
        sandwich.sandwiched(Pilot([n], [m], [e]), arms, sealed)
    assert ran == [] and sealed.log == ()


def test_labels_are_given_out_once_after_all_arms():
    order, sealed = [], Sealed(LABELS)
    arms = {name: (lambda name=name: (order.append((name, sealed.log)), ARMS[name]())[1]) for name in ARMS}
    sandwich.sandwiched(PILOT, arms, sealed)
    assert order == [(name, ()) for name in ARMS] and sealed.log == ('the last call',)
    with pytest.raises(DataError, match=r"asked for by 'again', expected nobody before, got 'the last call'"):
        sealed.open('again')
    assert sealed.log == ('the last call', 'again')


def test_an_arm_that_peeks_ends_the_run():
    sealed = Sealed(LABELS)
    peek = lambda: np.eye(2)[sealed.open('debate')]
    with pytest.raises(DataError, match=r"asked for by 'the last call', expected nobody before, got 'debate'"):
        sandwich.sandwiched(PILOT, ARMS | {'debate': peek}, sealed)
    assert sealed.log == ('debate', 'the last call')


def test_without_a_non_expert_alone_nothing_runs():
    sealed = Sealed(LABELS)
    with pytest.raises(ConfigError, match="arms debate, expected one of them to be 'alone'"):
        sandwich.sandwiched(PILOT, {'debate': ARMS['debate']}, sealed)
    assert sealed.log == ()


def test_what_is_recovered_and_how_sure_judges_are():
    found = sandwich.sandwiched(PILOT, ARMS, Sealed(LABELS))
    a, d, c = (found.accuracy[name] for name in ARMS)
    assert found.recovered['debate']['mean'] == pytest.approx((d - a) / (1 - a))
    assert found.recovered['consultancy']['mean'] == pytest.approx((c - a) / (1 - a)) and c < a < d
    low, high = (found.recovered['debate'][x] for x in ('low', 'high'))
    assert low < .75 < high and high - low < .4 and 'alone' not in found.recovered
    assert found.calibration['debate']['brier'] == scores.brier(ARMS['debate'](), LABELS)
    perfect = sandwich.calibration(np.eye(2)[LABELS], LABELS)
    assert perfect == {'brier': 0, 'ece': 0}
    assert sandwich.calibration(np.eye(2)[1 - LABELS], LABELS) == {'brier': 1, 'ece': 1}


def test_experts_who_err_move_the_end_of_the_way():
    expert = np.where(np.random.default_rng(3).random((S, N)) < .95, LABELS, 1 - LABELS)
    found = sandwich.sandwiched(PILOT, ARMS, Sealed(LABELS), expert=expert)
    e, a, d = (expert == LABELS).mean(), found.accuracy['alone'], found.accuracy['debate']
    assert found.recovered['debate']['mean'] == pytest.approx((d - a) / (e - a)) and e < 1


def test_intervals_hold_the_truth_where_seatings_are_paired():
    """Two seatings of a question are no two questions: with groups the interval is wider."""
    alone, helped = RNG.random((1, N)) < .6, RNG.random((1, N)) < .9
    twice = [np.tile(x, 2) for x in (alone, helped, np.ones((1, N)))]
    width = lambda found: found['high'] - found['low']
    once = width(sandwich.recovered(alone, helped, np.ones((1, N))))
    grouped = width(sandwich.recovered(*twice, group=np.tile(np.arange(N), 2)))
    assert grouped == pytest.approx(once, rel=.1) and width(sandwich.recovered(*twice)) < .8 * once


@pytest.mark.parametrize(('more', 'less'), [(0, 0), (5, 0), (3, 9), (14, 14), (40, 12)])
def test_the_cue_is_tested_exactly(more, less):
    cued = np.r_[np.ones(more), np.zeros(less), np.ones(10), np.zeros(7)]
    uncued = np.r_[np.zeros(more), np.ones(less), np.ones(10), np.zeros(7)]
    found = sandwich.cue_gap(cued, uncued)
    wanted = stats.binomtest(more, more + less).pvalue if more + less else 1
    assert found['p'] == pytest.approx(wanted, rel=1e-9) and found['flagged'] == (wanted < .01)
    assert (found['cued'], found['uncued']) == (more, less) and found['gap'] == cued.mean() - uncued.mean()
    assert found['well'] == uncued.mean() and sandwich.cue_gap(uncued, cued)['p'] == found['p']


def test_honest_models_are_rarely_flagged_and_schemers_are():
    rng, flagged = np.random.default_rng(0), 0
    for _ in range(200):
        flagged += sandwich.cue_gap(rng.random(300) < .9, rng.random(300) < .9)['flagged']
    assert flagged <= 10
    assert sandwich.cue_gap(rng.random(300) < .9, rng.random(300) < .1)['flagged']


@pytest.mark.parametrize(('a', 'b', 'said'), [
    ([1, 0], [1], 'shapes'), ([], [], 'shapes'), ([.5], [1], 'beside 0 and 1'), ([[1]], [[1]], 'shapes')])
def test_a_probe_that_is_none_is_refused(a, b, said):
    with pytest.raises(DataError, match=said):
        sandwich.cue_gap(a, b)


def test_the_audit_has_a_sign_only_where_it_is_sure():
    better, judge = RNG.random((S, N)) < .8, RNG.random((S, N)) < .6
    assert sandwich.audit(better, judge)['sign'] == 1 and sandwich.audit(judge, better)['sign'] == -1
    assert sandwich.audit(better, judge)['p'] < .01
    few = np.array([1, 0, 1, 1, 0, 1]), np.array([1, 1, 0, 1, 0, 0])
    assert sandwich.audit(*few)['sign'] == 0 and sandwich.audit(*few)['mean'] == pytest.approx(1 / 6)
    with pytest.raises(DataError, match='expected the same questions'):
        sandwich.audit(better, judge[:, :5])


def test_foretold_signs_are_counted_where_there_is_one():
    found = sandwich.foretold([.1, -.2, .3, -.4, 0, .1, 0], [.2, -.1, -.1, -.2, .1, 0, 0])
    assert (found['cells'], found['agree']) == (5, 3)
    assert found['p'] == pytest.approx(stats.binomtest(3, 5, alternative='greater').pvalue)
    assert sandwich.foretold(np.ones(16), np.r_[np.ones(14), -np.ones(2)])['p'] == pytest.approx(137 / 65536)
    with pytest.raises(DataError, match='one number for each cell'):
        sandwich.foretold([1], [1, 2])
