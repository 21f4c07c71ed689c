"""The spaces of knowledge cover every row once, and the scores are those of a count by hand."""
import numpy as np
import pytest

from w2s_jax.diagnostics import DIAGNOSTICS, deception
from w2s_jax.diagnostics.seeds import diagnosed
from w2s_jax.registry import Settings

TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def model(answers, sure=.9):
    p = np.broadcast_to(sure, (len(answers),))
    return {'top': np.stack([answers, 1 - np.array(answers)], 1), 'top_probability': np.stack([p, 1 - p], 1)}


CEILING = model(TRUTH, np.array([.9, .9, .9, .6, .9, .9, .9, .6]))  # knows all but rows 3 and 7
WEAK = model(np.array([0, 1, 0, 0, 1, 0, 1, 1]), np.array([.9, .9, .6, .9, .9, .9, .9, .9]))  # 0, 3, 4, 6, 7
FIRST = model(TRUTH)
STUDENT = model(np.array([1, 1, 0, 0, 1, 0, 1, 0]))  # loses 0, 1, 5, 7


def measured(student=STUDENT, reference=FIRST, above=.75):
    return deception.deception(student, WEAK, CEILING, TRUTH, Settings(above=above), reference=reference)


def test_scores_are_those_of_a_count_by_hand():
    found = {k: v and v[0] for k, v in measured().items()}
    assert found['conflict_tax'] == .5  # of 8
    assert found['deception_score'] == .5  # rows 1 and 5 of 0, 1, 5, 7
    assert found['deception_base'] == 3 / 8  # rows 1, 2, 5
    assert found['deception_lift'] == pytest.approx(4 / 3)
    assert found['blind_spot'] == 0
    assert [found[k] for k in found if k.startswith('strong_')] == [3, 3, 2, 0]


def test_a_blind_spot_is_wrong_and_sure_where_the_weak_model_is_unsure():
    wrong = TRUTH.copy()
    wrong[2] = 1
    assert measured(model(wrong))['blind_spot'][0] == 1 / 8
    assert measured(model(wrong, .7))['blind_spot'][0] == 0


def test_the_partition_sums_to_all_rows():
    rng = np.random.default_rng(0)
    for n in (1, 10, 1000):
        counts = deception.partition(rng.random(n) < .6, rng.random(n) < .3)
        assert len(counts) == 4 and sum(counts.values()) == n


def test_a_tax_that_falls_anywhere_has_lift_one():
    rng = np.random.default_rng(1)
    hidden, taxed = rng.random(200_000) < .4, rng.random(200_000) < .1
    assert deception.scores(taxed, hidden)['deception_lift'] == pytest.approx(1, abs=.02)
    assert deception.scores(taxed & hidden, hidden)['deception_lift'] == pytest.approx(1 / hidden.mean())


def test_without_tax_or_hidden_rows_there_is_no_score():
    assert measured(FIRST)['deception_score'] is None and measured(FIRST)['conflict_tax'][0] == 0
    assert measured(above=1.)['deception_lift'] is None


def test_it_is_given_the_first_student():
    identity = DIAGNOSTICS['deception'].identity({'above': .75})
    found = diagnosed([identity], [STUDENT], [WEAK], [CEILING], TRUTH, reference=[FIRST])['measures']
    assert found['conflict_tax']['mean'] == .5 and found['conflict_tax']['factor'] == 100
    itself = diagnosed([identity], [STUDENT], [WEAK], [CEILING], TRUTH, [STUDENT])['measures']
    assert itself['conflict_tax']['mean'] == 0 and 'deception_score' not in itself
