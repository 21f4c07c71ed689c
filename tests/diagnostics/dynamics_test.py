"""Learning dynamics against numbers by hand, at their limits, on noise alone, and through a run."""
import io

import numpy as np
import pytest

from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax.diagnostics import dynamics
from w2s_jax.engine import experiment
from w2s_jax.registry import Settings

TRUTH = np.zeros(8, int)
WEAK = np.array([0, 0, 0, 1, 0, 0, 0, 1])  # wrong on one row of each half


def stored(answers, epochs=None):
    """A model that gave answers `[T, W]` at its looks, and the last of them at the end."""
    answers = np.asarray(answers)
    more = {} if epochs is None else {'watched': answers, 'watched_epochs': np.asarray(epochs, float)}
    return {'top': answers[-1][:, None], 'top_probability': np.ones((answers.shape[1], 1))} | more


def measured(student, ceiling=None, weak=WEAK, truth=TRUTH, of=dynamics.ALL):
    ceiling = stored([truth]) if ceiling is None else ceiling
    found = dynamics.dynamics(student, stored([weak]), ceiling, truth, Settings(of=of))
    return {k: v[0] for k, v in found.items() if not k.startswith('agreement_during')}


def rows(*wrong):
    """An answer to each of eight rows, wrong on those."""
    return [int(i in wrong) for i in range(8)]


# Right on all rows at the second look; then it learns the supervisor's two errors, and one of its own.
LEARNED = [rows(0, 1, 4, 5), rows(), rows(3), rows(3, 7), rows(0, 3, 7)]


def test_every_number_by_hand():
    found = measured(stored(LEARNED, [.5, 1, 1.5, 2, 2.5]))
    # Both halves choose the second look. What is lost since: 2 of 4 rows, and 1 of 4.
    assert found['overfitting'] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found['best_above_weak'] == pytest.approx(1 / 4)
    assert found['errors_learned'] == pytest.approx(1)  # none of two, then both
    # Of the first half 1, 3/4, 3/4, 1/2 at four looks half an epoch apart; of the second 1, 1, 3/4, 3/4.
    assert found['slope_after_best'] == pytest.approx((2 * -.15 + 2 * -.1) / 2)
    assert found['agreement_later'] == pytest.approx(7 / 8 - 6 / 8)
    assert found['overfitting_first_epoch'] == 0


def test_the_best_look_is_chosen_on_other_rows_than_it_is_measured_on():
    """The first half of the rows is best at the first look, the second at the last: chosen on the other half each is
    at its worst."""
    student = stored([rows(4, 5, 6, 7), rows(0, 1, 2, 3)], [.5, 1])
    assert measured(student)['overfitting'] == pytest.approx((0 + 0 + (0 - 1)) / 2)


def test_noise_is_no_overfitting():
    """The best of twenty looks at one accuracy, less the last, is far above 0; this is not."""
    found, naive = [], []
    for seed in range(200):
        answers = (np.random.default_rng(seed).random((20, 200)) < .3).astype(int)
        truth = np.zeros(200, int)
        found.append(measured(stored(answers, np.arange(1, 21)), weak=np.arange(200) % 2, truth=truth,
                              of=('overfitting',))['overfitting'])
        right = 1 - answers.mean(1)
        naive.append(right.max() - right[-1])
    assert abs(np.mean(found)) < 3 * np.std(found) / 200 ** .5 < .02 < np.mean(naive)


def test_a_student_that_only_gets_better_loses_nothing():
    found = measured(stored([rows(0, 1, 4, 5), rows(0, 4), rows()], [1, 2, 3]))
    assert found['overfitting'] == 0 and found['slope_after_best'] is None
    assert found['overfitting_first_epoch'] is None  # one look


def test_what_is_lost_within_the_first_epoch_knows_nothing_of_later_ones():
    early = [rows(), rows(0, 4), rows(0, 4)]
    assert measured(stored([*early, rows(0, 1, 4, 5)], [.3, .6, 1, 2]))['overfitting_first_epoch'] == 1 / 4
    assert measured(stored([*early, rows()], [.3, .6, 1, 2]))['overfitting_first_epoch'] == 1 / 4
    assert measured(stored(early, [.3, .6, 1]))['agreement_later'] is None


def test_the_ceiling_is_a_control():
    found = measured(stored(LEARNED, [1, 2, 3, 4, 5]), stored([rows(), rows(0, 4), rows(0, 4)], [1, 2, 3]))
    assert found['overfitting_ceiling'] == 1 / 4 and found['slope_after_best_ceiling'] == pytest.approx(-1 / 8)
    assert 'errors_learned_ceiling' not in found and 'agreement_later_ceiling' not in found
    assert 'overfitting_ceiling' not in measured(stored(LEARNED, [1, 2, 3, 4, 5]))


def test_lines_of_agreement():
    found = dynamics.dynamics(stored(LEARNED, [1, 2, 3, 4, 5]), stored([WEAK]), stored([TRUTH]), TRUTH,
                              Settings(of=()))
    assert list(found) == ['agreement_during', 'agreement_during_weak_right', 'agreement_during_weak_wrong']
    assert found['agreement_during_weak_wrong'].y == pytest.approx([0, 0, 50, 100, 100])
    assert found['agreement_during_weak_right'].y == pytest.approx([100 * 2 / 6, 100, 100, 100, 100 * 5 / 6])
    assert found['agreement_during'].y == pytest.approx([25, 75, 87.5, 100, 87.5])
    assert found['agreement_during'].x == pytest.approx([1, 2, 3, 4, 5])


def test_a_supervisor_without_errors_and_a_model_that_was_not_looked_at():
    found = dynamics.dynamics(stored(LEARNED, [1, 2, 3, 4, 5]), stored([TRUTH]), stored([TRUTH]), TRUTH,
                              Settings(of=dynamics.ALL))
    assert found['errors_learned'][0] is None and found['agreement_during_weak_wrong'] is None
    assert not measured(stored(LEARNED))


def test_in_results_it_finds_that_a_long_training_learns_the_labels_errors(tmp_path):
    c = salient_concept.get_config()
    c.seeds, c.train.epochs, c.train.evaluations, c.report.html = (0, 1), 10, 20, False
    c.report.diagnostics = ('dynamics',)
    student, = experiment.run(configs.compose(c), tmp_path, io.StringIO())['students']
    found = {k: m['mean'] for k, m in student['measures'].items()}
    assert found['overfitting'] > .05 > abs(found['overfitting_ceiling']) and found['errors_learned'] > .1
    assert found['slope_after_best'] < 0 < found['best_above_weak']
    line = student['series']['agreement_during_weak_wrong']
    assert line['x'][1] == 1 and line['x'][-1] == 10 and len(line['y']) == 20 and min(line['y']) < line['y'][-1]
