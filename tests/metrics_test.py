"""Metrics on cases worked by hand, and the intervals' coverage in simulated experiments."""

import json

import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import roc_auc_score

from w2s_jax import metrics


def models(seed=0, seeds=3, examples=400, rates=(.6, .7, .8)):
    rng = np.random.default_rng(seed)
    return [rng.uniform(size=(seeds, examples)) < rate for rate in rates]


def crossed_experiment(rng, seeds, examples, seed_spread, rates=(.7, .78, .85)):
    """Correctness [3, S, N] with seeds and examples as crossed random effects, and the rates as expected accuracies.

    A model is right where a sum of normal effects is positive: those of its seed (half of the variance shared by the
    three models), of the example (shared), of the model on that example, and of chance.
    """
    of_example, of_model_and_example, chance = 1., .5, .6
    total = np.sqrt(seed_spread**2 + of_example**2 + of_model_and_example**2 + chance**2)
    of_seed = seed_spread * np.sqrt(.5) * (rng.normal(size=(1, seeds, 1)) + rng.normal(size=(3, seeds, 1)))
    shared, own = rng.normal(size=(1, 1, examples)), rng.normal(size=(3, 1, examples))
    of_examples = of_example * shared + of_model_and_example * own
    noise = chance * rng.normal(size=(3, seeds, examples))
    return total * stats.norm.ppf(rates)[:, None, None] + of_seed + of_examples + noise > 0


def coverage(experiments, seeds, examples, seed_spread, resamples=1000):
    """Shares (difference, PGR where defined, defined) of experiments whose interval contains the expected value."""
    rng, rates = np.random.default_rng(0), (.7, .78, .85)
    difference, ratio, defined = [], [], []
    for seed in range(experiments):
        weak, student, ceiling = crossed_experiment(rng, seeds, examples, seed_spread, rates)
        found = metrics.paired_difference(student, weak, resamples=resamples, seed=seed)
        difference.append(found['low'] <= rates[1] - rates[0] <= found['high'])
        found = metrics.pgr_interval(weak, student, ceiling, resamples=resamples, seed=seed)
        defined.append(found['defined'])
        if found['defined']:
            ratio.append(found['low'] <= metrics.pgr(*rates) <= found['high'])
    return np.mean(difference), np.mean(ratio), np.mean(defined)


def test_accuracy():
    assert metrics.accuracy([0, 1, 2, 1], [0, 1, 1, 1]) == .75


def test_top_k_accuracy():
    classes = np.array([[3, 1], [0, 2], [4, 0], [2, 1]])
    truth = np.array([3, 2, 1, 1])
    assert metrics.top_k_accuracy(classes, truth) == .75
    assert metrics.top_k_accuracy(classes[:, :1], truth) == metrics.accuracy(classes[:, 0], truth) == .25


def test_question_accuracy():
    score, truth = [.2, .9, .5, .8, .6, .6, .6, .1, 1., 1.], [0, 1, 0, 0, 1, 0, 0, 1, 1, 0]
    question = [7, 7, 7, 3, 3, 5, 5, 5, 9, 9]  # right, wrong, wrong, and one of two that look alike
    assert metrics.question_accuracy(score, truth, question) == pytest.approx(1.5 / 4)
    assert metrics.question_accuracy([.1, .3], [0, 1], [0, 0]) == 1.


def test_auroc():
    # Of the four pairs (1, 0), one is in the wrong order.
    assert metrics.auroc([.1, .4, .35, .8], [0, 0, 1, 1]) == .75
    assert metrics.auroc([.5, .5], [0, 1]) == .5
    assert metrics.auroc([.1, .9], [1, 1]) is None
    rng = np.random.default_rng(0)
    score, truth = rng.normal(size=500).round(1), rng.integers(0, 2, size=500)
    greater, equal = score[truth == 1][:, None] > score[truth == 0], score[truth == 1][:, None] == score[truth == 0]
    assert metrics.auroc(score, truth) == pytest.approx((greater + equal / 2).mean())
    assert metrics.auroc(score, truth) == roc_auc_score(truth, score)


def test_calibration_error_by_hand():
    error = metrics.expected_calibration_error
    confidence, correct = [.95, .85, .85, .65, .65], [True, True, False, False, False]
    # Bins of a tenth: (.9, 1] is off by .05 (1 example), (.8, .9] by .35 (2), (.6, .7] by .65 (2).
    assert error(confidence, correct, bins=10) == pytest.approx((.05 + 2 * .35 + 2 * .65) / 5)
    # One bin: mean confidence .79, mean correct .4.
    assert error(confidence, correct, bins=1) == pytest.approx(.39)


def test_calibration_error_at_the_edges():
    assert metrics.expected_calibration_error([1., 0.], [True, False]) == 0
    # .25 belongs to (0, .25] and .4 to (.25, .5]: apart they are off by .75 and .4, in one bin they would be by .175.
    assert metrics.expected_calibration_error([.25, .4], [True, False], bins=4) == pytest.approx((.75 + .4) / 2)


def test_calibrated_confidence_has_little_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(.5, 1, size=100_000)
    correct = rng.uniform(size=100_000) < confidence
    assert metrics.expected_calibration_error(confidence, correct) < .01
    assert metrics.expected_calibration_error(confidence, np.ones(100_000)) == pytest.approx(.25, abs=.01)


def test_agreement():
    weak, truth = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 1, 2, 1])
    student = np.array([0, 1, 1, 2, 2])
    assert metrics.agreement(student, weak, truth) == {'all': 3 / 5, 'weak_right': 2 / 3, 'weak_wrong': 1 / 2}
    assert metrics.agreement(weak, weak, truth) == {'all': 1, 'weak_right': 1, 'weak_wrong': 1}
    assert metrics.agreement(student, truth, truth)['weak_wrong'] is None
    assert metrics.agreement([0], [1], [0]) == {'all': 0, 'weak_right': None, 'weak_wrong': 0}


def test_share_allowed():
    allowed = np.array([[3, 7, 65535], [1, 65535, 65535], [0, 1, 2]], np.uint16)
    assert metrics.share_allowed(np.array([7, 3, 0], np.int32), allowed) == pytest.approx(2 / 3)
    assert metrics.share_allowed(np.array([65535, 65535, 65535], np.int32), allowed) == 0


def test_summarise():
    found = metrics.summarise([.5, .7, .9])
    assert found == {'mean': pytest.approx(.7), 'sem': pytest.approx(stats.sem([.5, .7, .9])), 'seeds': [.5, .7, .9]}
    assert metrics.summarise([.5]) == {'mean': .5, 'sem': None, 'seeds': [.5]}


def test_pgr():
    assert metrics.pgr(.6, .7, .8) == pytest.approx(.5)
    assert metrics.pgr(.6, .5, .8) == pytest.approx(-.5)
    assert metrics.pgr(.6, .9, .8) == pytest.approx(1.5)
    assert metrics.pgr(.6, .7, .6) is None


def test_pgr_does_not_change_with_the_scale_of_performance():
    for scale, shift in ((2., 0.), (-1., 1.), (.3, .1)):
        moved = [scale * value + shift for value in (.61, .74, .83)]
        assert metrics.pgr(*moved) == pytest.approx(metrics.pgr(.61, .74, .83))


def test_every_result_can_be_written_as_json():
    weak, student, ceiling = models()
    found = [metrics.pgr_interval(weak, student, ceiling), metrics.paired_difference(student, weak),
             metrics.summarise(np.float32([.5, .6])), metrics.agreement(weak[0], student[0], ceiling[0]),
             metrics.pgr_interval(ceiling, student, weak), metrics.accuracy(np.int32([1]), np.int32([1]))]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_interval_is_about_the_ratio_of_means():
    weak, student, ceiling = models()
    found = metrics.pgr_interval(weak, student, ceiling)
    assert found['mean'] == pytest.approx(metrics.pgr(weak.mean(), student.mean(), ceiling.mean()))
    assert found['defined'] and found['low'] < found['mean'] < found['high']
    narrow = metrics.pgr_interval(weak, student, ceiling, level=.5)
    assert found['low'] < narrow['low'] < narrow['mean'] < narrow['high'] < found['high']
    assert found == metrics.pgr_interval(weak, student, ceiling)
    assert found != metrics.pgr_interval(weak, student, ceiling, seed=1)


def test_interval_ignores_the_order_of_seeds_and_examples():
    weak, student, ceiling = models(examples=1000)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(3), rng.permutation(1000)
    shuffled = metrics.pgr_interval(*(model[rows][:, columns] for model in (weak, student, ceiling)))
    # Seeds up to the noise of the draws.
    assert shuffled['low'] == pytest.approx(metrics.pgr_interval(weak, student, ceiling)['low'], abs=.02)
    columns_only = metrics.pgr_interval(*(model[:, columns] for model in (weak, student, ceiling)))
    assert columns_only == pytest.approx(metrics.pgr_interval(weak, student, ceiling))


def test_a_student_that_is_its_teacher_or_the_ceiling_is_certain():
    weak, _, ceiling = models()
    assert metrics.pgr_interval(weak, weak, ceiling) == {'mean': 0, 'low': 0, 'high': 0, 'defined': True}
    assert metrics.pgr_interval(weak, ceiling, ceiling) == {'mean': 1, 'low': 1, 'high': 1, 'defined': True}
    assert metrics.paired_difference(weak, weak) == {'mean': 0, 'low': 0, 'high': 0, 'detectable': 0}


def test_pgr_is_undefined_where_the_gap_is_noise():
    undefined = {'mean': None, 'low': None, 'high': None, 'defined': False}
    weak, student, ceiling = models(rates=(.700, .71, .705))
    assert metrics.pgr_interval(weak, student, ceiling) == undefined
    weak, student, ceiling = models()
    assert metrics.pgr_interval(ceiling, student, weak) == undefined
    assert metrics.pgr_interval(weak, student, weak) == undefined


def test_pgr_is_undefined_where_the_interval_of_the_gap_ends_at_zero():
    """The ceiling is right on one more example: in a third of the resamples that example is missing."""
    weak = np.arange(1000)[None] < 600
    ceiling = np.arange(1000)[None] < 601
    assert metrics.paired_difference(ceiling, weak)['low'] == pytest.approx(0, abs=1e-5)
    assert not metrics.pgr_interval(weak, weak, ceiling)['defined']


def test_pgr_is_undefined_where_seeds_disagree_about_the_gap():
    """Certain over examples, but not over seeds: a bootstrap of examples alone would call the gap significant."""
    weak, student, _ = models(examples=4000, rates=(.6, .7, .8))
    rng = np.random.default_rng(1)
    ceiling = rng.uniform(size=(3, 4000)) < np.array([[.5], [.7], [.95]])
    assert not metrics.pgr_interval(weak, student, ceiling)['defined']
    assert metrics.pgr_interval(weak[:1], student[:1], ceiling[2:])['defined']


def test_pairing_narrows_the_difference():
    rng = np.random.default_rng(0)
    hard = rng.uniform(size=(3, 1000)) < np.where(rng.uniform(size=1000) < .5, .98, .02)
    better = hard | (rng.uniform(size=(3, 1000)) < .1)
    paired, apart = (metrics.paired_difference(better, other) for other in (hard, hard[:, ::-1]))
    assert paired['mean'] == pytest.approx(apart['mean'])
    assert paired['high'] - paired['low'] < .5 * (apart['high'] - apart['low'])


def test_one_seed_gives_the_interval_of_a_mean_over_examples():
    a, b = models(seeds=1, examples=2000)[:2]
    found = metrics.paired_difference(b, a, resamples=20_000)
    half = 1.96 * np.std(b[0] * 1. - a[0]) / np.sqrt(2000)
    assert found['high'] - found['low'] == pytest.approx(2 * half, rel=.05)


@pytest.mark.parametrize('seeds', [2, 3, 5])
def test_seeds_alone_give_students_interval(seeds):
    """No example differs within a seed's accuracy by chance: the classical interval of a mean of S values."""
    rates = np.linspace(.5, .6, seeds)
    a = np.arange(200_000) < 200_000 * rates[:, None]
    b = np.zeros_like(a)
    found = metrics.paired_difference(a, b, resamples=20_000)
    low, high = stats.t.interval(.95, seeds - 1, rates.mean(), stats.sem(rates))
    assert found['high'] - found['low'] == pytest.approx(high - low, rel=.05)


def test_chance_alone_is_counted_once():
    """Every cell is independent, so seeds and examples both show the same variance; so many seeds that t is normal."""
    a, b = models(seeds=400, examples=400)[:2]
    found = metrics.paired_difference(b, a)
    assert found['high'] - found['low'] == pytest.approx(2 * 1.96 * np.std(b * 1. - a) / 400, rel=.15)


def test_ratio_is_fiellers_where_the_gap_is_barely_significant():
    """One seed, where normal theory over examples is near; at z = 2.2 the gap is negative in 1.3 % of the draws."""
    kinds = {'000': 60, '010': 20, '001': 25, '011': 35, '110': 23, '100': 15, '111': 200, '101': 22}
    rows = [[int(right) for right in kind] for kind, count in kinds.items() for _ in range(count)]
    weak, student, ceiling = np.array(rows, bool).T[:, None]
    recovered, gap = student[0] * 1. - weak[0], ceiling[0] * 1. - weak[0]
    (v11, v12), (_, v22) = 1.96**2 * np.cov(recovered, gap) / 400
    m, g = recovered.mean(), gap.mean()
    low, high = sorted(np.roots([g * g - v22, 2 * (v12 - m * g), m * m - v11]))
    found = metrics.pgr_interval(weak, student, ceiling, resamples=200_000)
    assert found['low'] == pytest.approx(low, abs=.05) and found['high'] == pytest.approx(high, rel=.1)


def test_spread_of_the_student_over_seeds_counts_where_the_gap_has_none():
    rates = np.array([.65, .7, .75])
    all_rates = np.stack([np.full(3, .6), rates, np.full(3, .8)])
    weak, student, ceiling = np.arange(100_000) < 100_000 * all_rates[:, :, None]
    found = metrics.pgr_interval(weak, student, ceiling, resamples=20_000)
    low, high = stats.t.interval(.95, 2, .5, stats.sem(rates) / .2)
    assert found['high'] - found['low'] == pytest.approx(high - low, rel=.05)


@pytest.mark.parametrize('seeds', [1, 3, 8])
def test_p_is_where_the_interval_ends_at_zero(seeds):
    rng, compared = np.random.default_rng(seeds), 0
    for _ in range(6):
        a, b, _ = crossed_experiment(rng, seeds, 400, .1, rates=(.7, .75, .8))
        if .001 < (p := metrics.paired_p(a, b)) < .8:
            found = metrics.paired_difference(a, b, level=1 - p, resamples=20_000)
            nearest = found['high'] if found['mean'] < 0 else found['low']
            # The draws' quantiles are noisy: an end lies at zero up to a tenth of the interval's width.
            assert abs(nearest) < .1 * (found['high'] - found['low']), (p, found)
            compared += 1
    assert compared > 2


def test_p_is_students_or_the_normal_one_where_only_seeds_or_only_examples_differ():
    rates = np.array([.51, .53, .54])
    a = np.arange(100_000) < 100_000 * rates[:, None]
    b = np.arange(100_000)[::-1] < np.full((3, 1), 50_000)
    by_hand = stats.ttest_1samp(rates - .5, 0).pvalue
    assert metrics.paired_p(a, b) == pytest.approx(by_hand, rel=.05)
    a, b = models(seeds=1, examples=2000)[:2]
    z = (b.mean() - a.mean()) / (np.std(b * 1. - a, ddof=1) / np.sqrt(2000))
    assert metrics.paired_p(a, b) == pytest.approx(2 * stats.t.sf(z, 1999), rel=1e-6)
    assert metrics.paired_p(a, b) == pytest.approx(metrics.paired_p(b, a))


def test_p_at_its_ends():
    a, b, _ = models()
    assert metrics.paired_p(a, a) == 1
    assert metrics.paired_p(np.ones((3, 50), bool), np.zeros((3, 50), bool)) == 0
    many = models(examples=100_000, rates=(.2, .8, .8))
    assert 0 <= metrics.paired_p(many[0][:1], many[1][:1]) < 1e-40
    assert metrics.paired_p(a[:, :100], b[:, :100]) > metrics.paired_p(a, b)


def test_holm_by_hand():
    assert metrics.holm([.01, .04, .03, .005]) == pytest.approx([.03, .06, .06, .02])
    assert metrics.holm([.9, .6]) == [1, 1]
    assert metrics.holm([.2]) == [.2] and metrics.holm([]) == []


def test_holm_errs_in_few_families_where_p_alone_errs_in_most():
    rng = np.random.default_rng(0)
    families = rng.uniform(size=(2000, 18))
    alone, adjusted = (families < .05).any(1).mean(), np.mean([min(metrics.holm(p)) < .05 for p in families])
    assert alone > .5 and .03 < adjusted < .065


def false_positives(experiments, seeds, examples, seed_spread):
    """The share of experiments without a difference whose p is below .05."""
    rng, rates = np.random.default_rng(0), (.78, .78, .78)
    found = [crossed_experiment(rng, seeds, examples, seed_spread, rates)[:2] for _ in range(experiments)]
    return np.mean([metrics.paired_p(a, b) < .05 for a, b in found])


@pytest.mark.parametrize('seeds', [3, 5, 8])
@pytest.mark.parametrize('seed_spread', [0., .15])
def test_p_calls_few_chances_real(seeds, seed_spread):
    assert .005 <= false_positives(500, seeds, 300, seed_spread) <= .075


@pytest.mark.slow
@pytest.mark.parametrize('seed_spread', [0., .05, .15, .3])
@pytest.mark.parametrize('seeds', [3, 5, 8])
def test_false_positives(seeds, seed_spread):
    assert .025 <= false_positives(4000, seeds, 500, seed_spread) <= .055


@pytest.mark.parametrize('seed_spread', [0., .3])
def test_coverage_in_short(seed_spread):
    """Plain resampling of three seeds and the examples covers in 91 % where seeds differ by .15, and in 84 % by .3."""
    difference, ratio, defined = coverage(300, 3, 500, seed_spread, resamples=400)
    assert difference >= .92 and ratio >= .92 and defined > .4


@pytest.mark.slow
@pytest.mark.parametrize('seed_spread', [0., .05, .15, .3])
@pytest.mark.parametrize('seeds', [3, 5, 8])
def test_coverage(seeds, seed_spread):
    difference, ratio, _ = coverage(2000, seeds, 500, seed_spread)
    assert .93 <= difference <= .985 and .93 <= ratio <= .985


def clustered(rng, seeds, groups, size, effect=1.):
    """Correctness [2, S, N] of two models with accuracies .7 and .8, and the groups [N] whose examples are alike."""
    alike = effect * (rng.normal(size=(1, 1, groups)) + .5 * rng.normal(size=(2, 1, groups)))
    drawn = np.repeat(alike, size, 2) + rng.normal(size=(2, seeds, groups * size))
    levels = special.ndtri([.7, .8]) * np.sqrt(1 + 1.25 * effect ** 2)
    return drawn < levels[:, None, None], np.repeat(np.arange(groups), size)


@pytest.mark.parametrize(('groups', 'size'), [(125, 4), (32, 16)])
def test_intervals_cover_where_examples_come_in_groups(groups, size):
    rng, hits, naive = np.random.default_rng(3), np.zeros(2), np.zeros(2)
    for _ in range(200):
        (a, b), group = clustered(rng, 3, groups, size)
        for count, g in ((hits, group), (naive, None)):
            found = (metrics.accuracy_interval(b, g, resamples=300), metrics.paired_difference(b, a, g, resamples=300))
            count += [f['low'] <= true <= f['high'] for f, true in zip(found, (.8, .1), strict=True)]
    assert (hits / 200 > .92).all() and (naive < hits).all() and naive[0] < .9 * 200


def test_groups_of_one_change_nothing_and_repeated_examples_count_once():
    weak, student, ceiling = models()
    ones = np.arange(weak.shape[1])
    assert metrics.pgr_interval(weak, student, ceiling, ones) == metrics.pgr_interval(weak, student, ceiling)
    once, twice = student[:, :200], np.repeat(student[:, :200], 2, 1)
    width = lambda f: f['high'] - f['low']
    alone, grouped = metrics.accuracy_interval(once), metrics.accuracy_interval(twice, np.repeat(np.arange(200), 2))
    assert width(grouped) == pytest.approx(width(alone), rel=.05)


def test_a_detectable_difference_is_found_in_four_of_five_experiments():
    rng = np.random.default_rng(5)
    size = np.mean([metrics.paired_difference(*(rng.random((2, 3, 500)) < .7), resamples=100)['detectable']
                    for _ in range(50)])
    found = [metrics.paired_p(*(rng.random((3, 500)) < rate for rate in (.7 + size, .7))) < .05 for _ in range(300)]
    assert .7 < np.mean(found) < .97
