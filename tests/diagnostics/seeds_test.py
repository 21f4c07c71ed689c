"""What becomes of the numbers and lines of every seed."""
import numpy as np
import pytest
from scipy import stats

from w2s_jax.diagnostics import DIAGNOSTICS, seeds
from w2s_jax.diagnostics.registry import Series
from w2s_jax.registry import Setting


def line(x, y, **more):
    return Series(np.array(x, float), np.array(y, float), 'a line', 'A figure', ('x', 'y'), **more)


def test_a_measure_has_the_interval_of_students_t():
    values = [.2, .5, .9, .4]
    found = seeds.measure('m', [(v, 'a title', 100, 1) for v in values])
    low, high = stats.t.interval(.95, 3, np.mean(values), stats.sem(values))
    assert (found['low'], found['high'], found['sem']) == pytest.approx((low, high, stats.sem(values)))
    assert (found['title'], found['factor'], found['digits'], found['seeds']) == ('a title', 100, 1, values)


def test_a_measure_of_one_seed_has_no_interval_and_one_that_is_missing_is_left_out():
    assert seeds.measure('m', [.5]).keys() == {'title', 'factor', 'digits', 'mean', 'sem', 'seeds'}
    assert seeds.measure('m', [.5, None]) is None and seeds.measure('m', [(None, 't', 1, 1)]) is None


def test_a_series_is_the_mean_over_the_seeds_that_have_a_point():
    found = seeds.series([line([0, 1, 2], [1, np.nan, np.nan]), line([0, 3, 2], [3, 5, np.nan], diagonal=True)])
    assert found['x'] == [0, 2, 2] and found['y'] == [2, 5, None] and found['sem'] == [1, None, None]
    assert (found['line'], found['figure'], found['axes']) == ('a line', 'A figure', ['x', 'y'])
    assert not found['diagonal']


def test_series_of_different_lengths_have_no_mean():
    assert seeds.series([line([0, 1], [1, 1]), line([0], [1])]) is None


@pytest.fixture
def plugin():
    """A diagnostic of a number and a line, which are missing where the student's answers are all 0."""
    def both(student, weak, ceiling, truth, settings):
        if not student['top'].any():
            return {'number': None, 'line': None}
        return {'number': settings.add + student['top'].mean(), 'line': line([0], [student['top'].mean()])}
    DIAGNOSTICS.register('both', add=Setting(1., doc='to the number'))(both)
    yield [{'name': 'both', 'version': '1', 'add': 1}]
    DIAGNOSTICS.entries.pop('both')


def test_numbers_and_lines_go_apart(plugin):
    one, none = {'top': np.ones((4, 1))}, {'top': np.zeros((4, 1))}
    found = seeds.diagnosed(plugin, [one, one], [one, one], [one, one], np.zeros(4))
    assert found['measures']['number']['seeds'] == [2, 2] and found['series']['line']['y'] == [1]
    empty = {'measures': {}, 'series': {}}
    assert seeds.diagnosed(plugin, [one, none], [one, one], [one, one], np.zeros(4)) == empty
    assert seeds.diagnosed(plugin, [none, one], [one, one], [one, one], np.zeros(4)) == empty
    assert seeds.diagnosed(plugin, [one], None, [one], np.zeros(4)) == empty
