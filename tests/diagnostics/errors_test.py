"""Error structure and calibration against loops by hand, at their limits, and through a run."""
import io
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from configs import salient_concept
from configs.paper import inverse_scaling
from w2s_jax import config as configs
from w2s_jax.diagnostics import DIAGNOSTICS, calibration, errors, seeds
from w2s_jax.diagnostics.registry import Series
from w2s_jax.engine import experiment
from w2s_jax.errors import ConfigError
from w2s_jax.registry import Settings
from w2s_jax.report import tables


def stored(p: np.ndarray) -> dict:
    """Probabilities as artifacts have them: the best five, best first."""
    top = np.argsort(-p, axis=-1, kind='stable')[:, :5]
    return {'top': top.astype(np.int32), 'top_probability': np.take_along_axis(p, top, -1).astype(np.float32)}


def drawn(seed, n=300, k=2, hard=False) -> np.ndarray:
    p = np.random.default_rng(seed).dirichlet(np.ones(k), n)
    return np.eye(k)[p.argmax(1)] if hard else p


def structure(student, weak, ceiling, truth, *of):
    found = errors.error_structure(stored(student), stored(weak), stored(ceiling), truth,
                                   Settings(of=of or errors.ALL))
    return {name: v[0] for name, v in found.items()}


def by_hand(model, weak, truth) -> dict:
    """Row by row."""
    m, w = model.argmax(1), weak.argmax(1)
    wrong = [i for i in range(len(truth)) if w[i] != truth[i]]
    middle = np.median([weak[i].max() for i in wrong])
    halves = [[i for i in wrong if weak[i].max() <= middle], [i for i in wrong if weak[i].max() > middle]]

    def mean(rows, event):
        return sum(bool(event(i)) for i in rows) / len(rows)
    right = [i for i in range(len(truth)) if w[i] == truth[i]]
    a, b, k = np.mean([model[i, t] for i, t in enumerate(truth)]), np.mean([weak[i, t] for i, t in enumerate(truth)]), \
        model.shape[1]
    observed = np.mean([sum(model[i, c] * weak[i, c] for c in range(k)) for i in range(len(truth))])
    expected = a * b + (1 - a) * (1 - b) / (k - 1)
    return {'inheritance': mean(wrong, lambda i: m[i] == w[i]), 'correction': mean(wrong, lambda i: m[i] == truth[i]),
            'correction_unsure': mean(halves[0], lambda i: m[i] == truth[i]),
            'correction_sure': mean(halves[1], lambda i: m[i] == truth[i]),
            'new_errors': mean(right, lambda i: m[i] != truth[i]),
            'phi': sk.matthews_corrcoef(w == truth, m == truth), 'kappa': sk.cohen_kappa_score(w == truth, m == truth),
            'capa': (observed - expected) / (1 - expected)}


@pytest.mark.parametrize('k', [2, 3, 5])
def test_every_number_is_that_of_a_loop(k):
    student, weak, ceiling = (drawn(seed, k=k) for seed in range(3))
    truth = np.random.default_rng(9).integers(0, k, 300)
    found = structure(student, weak, ceiling, truth)
    mine, control = by_hand(student, weak, truth), by_hand(ceiling, weak, truth)
    assert found.keys() == {n + end for n in errors.ALL for end in ('', '_ceiling', '_imitation')}
    for name in errors.ALL:
        assert found[name] == pytest.approx(mine[name], abs=1e-6), name
        assert found[f'{name}_ceiling'] == pytest.approx(control[name], abs=1e-6), name
        assert found[f'{name}_imitation'] == pytest.approx(mine[name] - control[name], abs=1e-6), name


def test_a_student_that_is_its_teacher():
    weak, truth = drawn(0, hard=True), np.random.default_rng(1).integers(0, 2, 300)
    found = structure(weak, weak, np.eye(2)[truth], truth)
    assert (found['inheritance'], found['correction'], found['new_errors']) == (1, 0, 0)
    assert [found[n] for n in ('phi', 'kappa', 'capa')] == pytest.approx([1, 1, 1])
    assert found['inheritance_ceiling'] == 0 and found['inheritance_imitation'] == 1
    # The ceiling is always right: nothing can be correlated with that, and hard labels are equally sure of all.
    assert found['phi_ceiling'] is None and found['phi_imitation'] is None and found['correction_sure'] is None
    assert found['kappa_ceiling'] == pytest.approx(0)


def test_a_student_that_errs_on_its_own_agrees_no_more_than_by_chance():
    rng, n = np.random.default_rng(0), 40000
    truth = rng.integers(0, 3, n)

    def model(accuracy):
        answer = np.where(rng.random(n) < accuracy, truth, (truth + rng.integers(1, 3, n)) % 3)
        return .1 + .7 * np.eye(3)[answer]
    found = structure(model(.8), model(.7), model(.8), truth)
    assert all(abs(found[name]) < .02 for name in ('phi', 'kappa', 'capa', *(f'{n}_imitation' for n in errors.ALL
                                                                             if found[f'{n}_imitation'] is not None)))
    assert found['correction'] == pytest.approx(.8, abs=.01) and found['new_errors'] == pytest.approx(.2, abs=.01)


def test_capa_of_hard_answers_of_two_classes_is_error_consistency():
    student, weak, truth = drawn(0, hard=True), drawn(1, hard=True), np.random.default_rng(2).integers(0, 2, 300)
    found = structure(student, weak, student, truth)
    assert found['capa'] == pytest.approx(found['kappa'])


def test_what_is_not_defined_is_left_out_of_the_results():
    truth = np.arange(40) % 2
    right, weak = np.eye(2)[truth], np.eye(2)[np.zeros(40, int)]
    chosen = [{'name': 'error_structure', 'version': '1', 'of': ['inheritance', 'phi', 'kappa']}]
    found = seeds.diagnosed(chosen, *([stored(p)] * 2 for p in (right, weak, right)), truth)['measures']
    assert 'phi' not in found and found['inheritance']['mean'] == 0 and len(found['inheritance']['seeds']) == 2
    always = seeds.diagnosed(chosen, *([stored(right)] for _ in range(3)), truth)['measures']
    assert not always  # a supervisor that is always right has no errors to repeat


def test_of_many_classes_only_what_best_answers_tell():
    found = structure(*(drawn(s, k=9) for s in range(3)), np.random.default_rng(3).integers(0, 9, 300))
    assert found['capa'] is None and found['kappa'] is not None


def calibrated(p, truth, bins=15, of=('student',)):
    s = stored(p)
    found = calibration.calibration(s, s, s, truth, Settings(bins=bins, of=of))
    return {k: v[0] for k, v in found.items() if not isinstance(v, Series)}


@pytest.mark.parametrize('bins', [1, 4, 10])
def test_calibration_against_sorted_chunks(bins):
    p, truth = drawn(0, n=400, k=3), np.random.default_rng(1).integers(0, 3, 400)
    confidence, right = p.astype(np.float32).max(1).astype(float), p.argmax(1) == truth
    each = [abs(right[rows].mean() - confidence[rows].mean()) for rows in np.split(np.argsort(confidence), bins)]
    found = calibrated(p, truth, bins)
    assert found['ece_equal_mass'] == pytest.approx(np.mean(each)) and found['mce'] == pytest.approx(max(each))
    assert found['brier'] == pytest.approx(np.mean([sum((p[i, c] - (c == truth[i])) ** 2 for c in range(3))
                                                   for i in range(400)]), abs=1e-6)


def test_calibration_at_its_limits():
    truth = np.random.default_rng(0).integers(0, 2, 1000)
    assert calibrated(np.eye(2)[truth], truth) == {'ece_equal_mass': 0, 'mce': 0, 'brier': 0}
    assert calibrated(np.eye(2)[1 - truth], truth) == {'ece_equal_mass': 1, 'mce': 1, 'brier': 2}
    even = calibrated(np.full((1000, 2), .5), np.arange(1000) % 2)
    assert even == {'ece_equal_mass': 0, 'mce': 0, 'brier': .5}


def test_equal_confidences_share_a_bin_whatever_their_order():
    """A supervisor that is as sure of every answer: its calibration error is that of the mean, in any order of rows."""
    truth = np.zeros(200, int)
    answers = (np.arange(200) < 40).astype(int)  # all errors in a row
    found = calibrated(np.where(np.arange(2) == answers[:, None], .9, .1), truth)
    assert found['ece_equal_mass'] == pytest.approx(.1, abs=1e-6) and found['mce'] == pytest.approx(.1, abs=1e-6)


def test_the_diagram_has_the_points_of_sorted_chunks_and_the_error_of_the_numbers():
    p, truth = drawn(0, n=400, k=3), np.random.default_rng(1).integers(0, 3, 400)
    s, settings = stored(p), Settings(bins=8, of=())
    found = calibration.calibration(s, stored(drawn(5, n=400, k=3)), s, truth, settings)
    assert found.keys() == {f'reliability_{who}' for who in calibration.WHO}
    order = np.argsort(s['top_probability'][:, 0].astype(float), kind='stable')
    chunks = np.split(order, 8)
    line = found['reliability_student']
    assert line.x == pytest.approx([100 * s['top_probability'][rows, 0].mean() for rows in chunks], abs=1e-4)
    assert line.y == pytest.approx([100 * (p.argmax(1) == truth)[rows].mean() for rows in chunks])
    assert np.abs(line.y - line.x).mean() / 100 == pytest.approx(calibrated(p, truth, 8)['ece_equal_mass'])
    assert not np.allclose(found['reliability_weak'].y, line.y) and line.diagonal


def test_the_diagram_of_equal_confidences_is_one_point():
    truth = (np.arange(200) < 40).astype(int)
    s = stored(np.tile([.9, .1], (200, 1)))
    line = calibration.calibration(s, s, s, truth, Settings(bins=15, of=()))['reliability_student']
    there = np.isfinite(line.x)
    assert len(line.x) == len(line.y) == 15 and there.sum() == np.isfinite(line.y).sum() == 1
    assert (line.x[there][0], line.y[there][0]) == pytest.approx((90, 80), abs=1e-5)


def test_gaps_of_either_sign_do_not_cancel():
    truth, answers = np.zeros(200, int), np.zeros(200, int)
    answers[:80] = 1  # of 100 rows at .6 confidence 20 are right, of 100 at .8 all
    sure = np.where(np.arange(200) < 100, .6, .8)[:, None]
    found = calibrated(np.where(np.arange(2) == answers[:, None], sure, 1 - sure), truth, 2)
    assert found['ece_equal_mass'] == pytest.approx(.3, abs=1e-6) and found['mce'] == pytest.approx(.4, abs=1e-6)


def test_a_model_that_draws_its_truth_from_what_it_says_is_calibrated_and_a_surer_one_is_not():
    rng = np.random.default_rng(0)
    p = rng.uniform(.5, 1, 20000)
    p = np.stack([p, 1 - p], 1)
    truth = (rng.random(20000) > p[:, 0]).astype(int)
    sharp = p ** 4 / (p ** 4).sum(1, keepdims=True)
    good, bad = calibrated(p, truth), calibrated(sharp, truth)
    assert good['ece_equal_mass'] < .02 and good['mce'] < .05
    assert bad['ece_equal_mass'] > .1 and bad['mce'] > bad['ece_equal_mass'] and bad['brier'] > good['brier']


def test_both_stand_in_results_and_csv_for_student_weak_and_ceiling(tmp_path):
    c = salient_concept.get_config()
    c.seeds, c.task.train_size, c.task.test_size, c.train.epochs, c.report.html = (0, 1), 400, 200, 1, False
    c.report.diagnostics = ('error_structure', 'calibration')
    c = configs.compose(c)
    c.report.error_structure.of = ('inheritance', 'kappa')
    found = experiment.run(c, tmp_path, io.StringIO())
    student = found['students'][0]
    measures = student['measures']
    assert measures['inheritance']['mean'] == pytest.approx(student['agreement']['weak_wrong']['mean'])
    assert {'inheritance_ceiling', 'inheritance_imitation', 'kappa_imitation', 'mce', 'mce_weak'} <= measures.keys()
    assert 'phi' not in measures and len(measures['mce']['seeds']) == 2
    assert all(math.isfinite(m['mean']) for m in measures.values())
    assert student['series'].keys() == {f'reliability_{who}' for who in calibration.WHO}
    assert len(student['series']['reliability_weak']['y']) == 15
    table = tables.students(tables.load(tmp_path))
    assert table['inheritance_imitation'].notna().all() and table['brier_weak'].notna().all()


def test_the_config_of_inverse_scaling_sweeps_sizes_beside_the_control():
    cells = inverse_scaling.get_sweep()
    assert len({cell['student.model'] for cell in cells}) == 4 and len(cells) == 8
    for cell in cells:
        c = inverse_scaling.get_config()
        c.update_from_flattened_dict(cell)
        assert 'inheritance' in configs.validate(c).report.error_structure.of


@pytest.mark.parametrize(('field', 'value', 'said'), [
    ('report.error_structure.of', ('kapa',), r"report.error_structure.of: unknown 'kapa'.*did you mean 'kappa'"),
    ('report.calibration.bins', 0, r'report.calibration.bins: 0, expected a number in \[1, 10000\]'),
    ('report.calibration.of', ('teacher',), r"report.calibration.of: unknown 'teacher'")])
def test_bad_settings_end_in_one_line(field, value, said):
    c = salient_concept.get_config()
    c.report.diagnostics = tuple(DIAGNOSTICS)
    c = configs.compose(c)
    c.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=said):
        configs.validate(c)
