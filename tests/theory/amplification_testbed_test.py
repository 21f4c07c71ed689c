"""Which questions a learner is asked, and that the wiring of the testbed learns from H alone."""
import jax
import numpy as np
import pytest

from w2s_jax.registry import Settings
from w2s_jax.theory import amplification as testbed
from w2s_jax.theory.algorithms import powering, wildcard
from w2s_jax.theory.registry import keys

KEY = jax.random.key(4)


def test_half_of_the_questions_are_of_the_hardest_level_and_none_above():
    for task in (powering(8, (1, 2, 4, 8)), wildcard(3)):
        course = testbed.course(task, task.human, .001)
        levels = np.asarray(course.level(course.questions(KEY, 2)))
        share = np.bincount(levels.ravel(), minlength=4) / levels.size
        assert share == pytest.approx([.25, .25, .5, 0], abs=.08)
        even = testbed.course(task, task.human, .001, frozen=True)
        share = np.bincount(np.asarray(even.level(even.questions(KEY, 3))).ravel(), minlength=4) / levels.size
        assert share == pytest.approx([.25] * 4, abs=.08)


def test_guesses_are_the_identity_baseline():
    task = powering(8, (1, 2, 4, 8, 16))
    assert testbed.guessed(task, KEY) == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8, 4 / 8], abs=.04)


@pytest.mark.slow
def test_patterns_are_learned_from_lookups_and_not_with_wrong_ones():
    rows = {row.cell: row for row in testbed.of_patterns(keys(1, 'amplification'), Settings(
        steps=2000, rate=1e-3, controls=1000))}
    assert all(row.holds for row in rows.values() if row.limit is not None)
    assert rows["wildcard, H' says all that H does"].measured > .95
