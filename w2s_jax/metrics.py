"""How good predictions are, and how sure of it one may be: numpy arrays in, float64 numbers or None out.

Predictions and truths are classes, int [N]. Correctness, bool [S, N], says for each of S seeds and N test examples
whether a model was right; models that are compared share seeds (rows) and examples (columns).
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

KEPT = 5  # best answers for each test row that are stored; all of them for up to five classes
NO_CLASS = 65535  # fills up rows of allowed classes, which are uint16
ROUNDING = 1e-9  # a gap below it is none
POWER = .8  # how often a difference that is called detectable is found
SMALLEST_LOG_P = -100.  # natural logarithm; p values below are zero


def best(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """The KEPT best classes of `[..., K]` with their probabilities, best first; equal ones by number."""
    top = np.argsort(-probabilities, axis=-1, kind='stable')[..., :KEPT]
    return {'top': top.astype(np.int32), 'top_probability': np.take_along_axis(probabilities, top, -1)}


def accuracy(predictions, truth):
    """The share of predictions [N] that equal truth [N]."""
    return float(np.mean(np.asarray(predictions) == np.asarray(truth)))


def top_k_accuracy(classes, truth):
    """The share of rows of classes [N, k], the k most likely classes of each example, that contain truth [N]."""
    return float(np.mean(np.any(np.asarray(classes) == np.asarray(truth)[:, None], axis=1)))


def auroc(score, truth):
    """Area under the ROC curve of score [N] (higher: class 1) for truth [N] in {0, 1}; None if a class is missing."""
    from sklearn.metrics import roc_auc_score  # half a second to import, and few runs need it

    if np.ptp(truth) == 0:
        return None
    return float(roc_auc_score(truth, score))


def question_accuracy(score, truth, question):
    """The share of questions whose right option has the highest score; of equal highest ones each counts its part.

    Args:
      score, truth, question: [N], of each option: how right it seems, 1 for the right one, and whose option it is.
    """
    at = np.unique(question, return_inverse=True)[1]
    best = np.full(at.max() + 1, -np.inf)
    np.maximum.at(best, at, score)
    highest = np.asarray(score) == best[at]
    hits = np.bincount(at, highest & (np.asarray(truth) == 1)) / np.bincount(at, highest)
    return float(hits.mean())


def expected_calibration_error(confidence, correct, bins=15):
    """sum_b |B_b| / N |mean correct - mean confidence| over equal bins (l, u] of (0, 1] (Guo et al. 2017, eq. 3).

    Args:
      confidence: [N] in [0, 1], the probability of the predicted class.
      correct: bool [N].
      bins: how many bins [0, 1] is cut into; a confidence of 0 falls into the first.
    """
    confidence = np.asarray(confidence, np.float64)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=np.asarray(correct, np.float64) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def agreement(student, weak, truth):
    """How often a student says what its supervisor says; all arguments are classes [N].

    Returns:
      {'all', 'weak_right', 'weak_wrong'}: the shares over all examples and over those where the weak model is right
      and wrong; None where there are no such examples. A student that only imitates has 1 in all three.
    """
    student, weak, truth = map(np.asarray, (student, weak, truth))
    same, right = student == weak, weak == truth
    subsets = {'all': same, 'weak_right': same[right], 'weak_wrong': same[~right]}
    return {name: float(np.mean(subset)) if subset.size else None for name, subset in subsets.items()}


def share_allowed(predictions, allowed):
    """The share of predictions [N] among the allowed classes of their example, uint16 [N, M] filled with 65535."""
    listed = np.asarray(allowed) == np.asarray(predictions)[:, None]
    return float(np.mean(np.any(listed & (np.asarray(allowed) != NO_CLASS), axis=1)))


def summarise(values):
    """{'mean', 'sem', 'seeds'} of one value per seed; the standard error has ddof 1, and is None for one seed."""
    values = np.asarray(values, np.float64)
    sem = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {'mean': float(values.mean()), 'sem': sem, 'seeds': values.tolist()}


def seeds_interval(values, level=.95):
    """{'low', 'high'} of the mean of one value per seed, by Student's t; {} for one seed."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return {}
    half = special.stdtrit(len(values) - 1, .5 + level / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return {'low': float(values.mean() - half), 'high': float(values.mean() + half)}


def pgr(weak, student, ceiling):
    """Performance gap recovered, (student - weak) / (ceiling - weak); None where there is no gap.

    Burns et al. 2023, arXiv 2312.09390, section 3. Not clipped: a student may fall below its supervisor.
    """
    return (student - weak) / (ceiling - weak) if ceiling != weak else None


def accuracy_interval(correct, group=None, *, level=.95, resamples=2000, seed=0):
    """{'low', 'high'} of the mean accuracy of one model, bool [S, N], over seeds and examples as in `pgr_interval`."""
    bootstrap = _bootstrap(np.asarray(correct)[None], resamples, seed, group)
    low, high = _bounds(bootstrap, np.array([1]), level)
    return {'low': max(low, 0.), 'high': min(high, 1.)}


def pgr_interval(weak, student, ceiling, group=None, *, level=.95, resamples=2000, seed=0):
    """PGR of mean accuracies, with an interval over seeds and examples.

    Args:
      weak, student, ceiling: bool [S, N] each, correct or not. Row s of all three is the same seed (that student was
        taught by that weak model) and column n the same test example.
      group: int [N], examples of one source, which are drawn together (a cluster bootstrap); None: each on its own.
      level: how often the interval should contain the PGR that infinitely many seeds and examples would give.
      resamples: draws of the bootstrap.
      seed: of the bootstrap.

    Returns:
      {'mean', 'low', 'high', 'defined'}; where the interval of the gap ceiling - weak reaches zero, None and False. For
      S = 1 the interval is over examples alone.

    Method: every draw resamples examples and reweighs seeds, the same for the three models (`_bootstrap`), and is
    spread out to make up for few seeds (`_widening`). As in Fieller (1954), the interval holds every r for which that
    of student - weak - r (ceiling - weak) contains zero: ratios of draws would misplace those whose gap is negative.

    Coverage at level .95, where defined, in 2000 simulated experiments each (tests/metrics_test.py: N = 500, rates .70,
    .78, .85, seeds and examples as crossed random effects, seeds' accuracies with a standard deviation of about 0, 1, 3
    and 6 points): 96.3 to 97.9 % for S = 3, 94.4 to 97.0 % for S = 5, 95.3 to 96.5 % for S = 8. Plain resampling of
    three seeds and the examples covers in 92 % at 3 points and 82 % at 6, where this one calls 13 % and 54 % of the
    gaps undefined. For S = 2 it is 94.7 to 97.1 %, with 26 to 79 % undefined.
    """
    bootstrap = _bootstrap(np.stack([weak, student, ceiling]), resamples, seed, group)
    if _bounds(bootstrap, np.array([-1, 0, 1]), level)[0] < ROUNDING:
        return {'mean': None, 'low': None, 'high': None, 'defined': False}

    def bounds(ratio):
        return _bounds(bootstrap, np.array([ratio - 1, 1, -ratio]), level)

    mean = float(pgr(*bootstrap.means))
    low = _first_excluded(lambda ratio: bounds(ratio)[0], mean, -1)
    high = _first_excluded(lambda ratio: -bounds(ratio)[1], mean, 1)
    return {'mean': mean, 'low': low, 'high': high, 'defined': True}


def paired_difference(a, b, group=None, *, level=.95, resamples=2000, seed=0):
    """Mean accuracy of a minus that of b, bool [S, N] each, with an interval as in `pgr_interval`.

    Returns:
      {'mean', 'low', 'high', 'detectable'}, the last being the smallest true difference that as many seeds and examples
      would tell from none in four of five repetitions, at 1 - level. Coverage in the same simulations: 95.6 to 97.2 %
      for S = 3, 95.4 to 96.4 % for S = 5, 95.3 to 97.0 % for S = 8, and 84 to 91 % by plain resampling for S = 3.
    """
    bootstrap, contrast = _bootstrap(np.stack([a, b]), resamples, seed, group), np.array([1, -1])
    low, high = _bounds(bootstrap, contrast, level)
    detectable = sum(_half_width(bootstrap.covariances, contrast, tail) for tail in (.5 - level / 2, 1 - POWER))
    return {'mean': float(contrast @ bootstrap.means), 'low': low, 'high': high, 'detectable': detectable}


def paired_p(a, b, group=None):
    """Two-sided p value of a and b, bool [S, N] each, having the same expected accuracy; 1 where their means are equal.

    It is the p at which `paired_difference` at level 1 - p just reaches zero if its draws are normal: the same
    variances, and the same mixture of Student's and the normal quantile. So it is smooth far into the tail, where a
    share of draws would end at 1 / resamples; close to 1 - level the noise of the draws may part the two.

    False positives in 4000 simulated experiments each (as in `pgr_interval`, both rates .78): 2.5 to 5.3 % at .05 and
    .4 to 1.8 % at .01 for S = 2; 3.1 to 4.5 % and .4 to 1.2 % for S = 3; 3.3 to 4.7 % and .5 to .9 % for S = 5; 3.7 to
    4.4 % and .5 to .8 % for S = 8.
    """
    means, contrast = np.array([np.mean(a), np.mean(b)]), np.array([1, -1])
    distance = abs(float(contrast @ means))
    if distance < ROUNDING:
        return 1.
    covariances = _covariances(_by_group(np.stack([a, b]), group))

    def excess(log_p):
        return _half_width(covariances, contrast, np.exp(log_p) / 2) - distance

    return float(np.exp(optimize.brentq(excess, SMALLEST_LOG_P, 0))) if excess(SMALLEST_LOG_P) > 0 else 0.


def holm(p):
    """The p values [M] of a family, adjusted: calling all below .05 real errs at all in at most 5 % of families.

    Holm 1979, Scandinavian Journal of Statistics 6, 65: the i-th smallest of M times M - i + 1, never below the one
    before it. It holds however the comparisons depend on each other.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind='stable')
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted.tolist()


class _Covariances(NamedTuple):
    """Of the mean accuracies of M models, [M, M] by source."""

    of_seeds: np.ndarray
    of_examples: np.ndarray
    interaction: np.ndarray  # of seeds and examples; contained in both of the above
    freedom: int  # degrees of freedom of `of_seeds`
    clusters: int  # how many examples, or groups of them, were drawn


class _Bootstrap(NamedTuple):
    """Mean accuracies [M] of models, draws of them [resamples, M], and their covariances."""

    means: np.ndarray
    draws: np.ndarray
    covariances: _Covariances


def _by_group(models, group):
    """Correctness [M, S, N] as one value per group of examples, [M, S, G], whose means are those of the examples.

    The value of a group is the mean and what the group contributes to its deviation: the linear form of a ratio of sums
    (Cochran 1977, Sampling Techniques, section 6.3). Groups of one example stay as they are.
    """
    if group is None:
        return models
    order = np.argsort(group, kind='stable')
    _, first, sizes = np.unique(np.asarray(group)[order], return_index=True, return_counts=True)
    if sizes.max() == 1:
        return models
    sums = np.add.reduceat(models[..., order].astype(np.float64), first, axis=2)
    means = models.mean(axis=2, keepdims=True)
    return means + (sums - means * sizes) * (len(sizes) / len(order))


def _covariances(models):
    """The _Covariances of models, [M, S, N], by the analysis of variance with two crossed factors."""
    count, seeds, examples = models.shape
    means, by_seed, by_example = models.mean(axis=(1, 2)), models.mean(axis=2), models.mean(axis=1)
    of_examples = np.atleast_2d(np.cov(by_example)) / examples
    if seeds == 1:
        none = np.zeros((count, count))
        return _Covariances(none, of_examples, none, 0, examples)
    rest = (models - by_seed[:, :, None] - by_example[:, None] + means[:, None, None]).reshape(count, -1)
    interaction = rest @ rest.T / ((seeds - 1) * (examples - 1) * seeds * examples)
    return _Covariances(np.atleast_2d(np.cov(by_seed)) / seeds, of_examples, interaction, seeds - 1, examples)


def _bootstrap(models, resamples, seed, group=None):
    """The _Bootstrap of models, bool [M, S, N]."""
    models = _by_group(models, group)
    seeds, means = models.shape[1], models.mean(axis=(1, 2))
    rng = np.random.default_rng(seed)
    draws = _example_draws(models, resamples, rng)
    if seeds > 1:
        # Three seeds have ten resamples, too few for a tail. Normal weights give their unbiased covariance instead.
        deviations = models.mean(axis=2) - means[:, None]
        draws += rng.standard_normal((resamples, seeds)) @ deviations.T / np.sqrt(seeds * (seeds - 1))
    return _Bootstrap(means, draws, _covariances(models))


def _example_draws(models, resamples, rng):
    """Mean accuracies [resamples, M] of models, [M, S, N], over examples drawn with replacement."""
    _, seeds, examples = models.shape
    # Examples on which every model was right equally often are interchangeable, and few kinds of them exist.
    kinds, counts = np.unique(models.sum(axis=1).T, axis=0, return_counts=True)
    return rng.multinomial(examples, counts / examples, size=resamples) @ kinds / (examples * seeds)


def _bounds(bootstrap, contrast, level):
    """The interval (low, high) of a contrast [M] of the mean accuracies."""
    mean = contrast @ bootstrap.means
    widening = _widening(bootstrap.covariances, contrast, level)
    spread = np.sort(mean + widening * (bootstrap.draws @ contrast - mean))
    cut = int((1 - level) / 2 * (len(spread) - 1))
    return float(spread[cut]), float(spread[-1 - cut])


def _widening(covariances, contrast, level):
    """The factor by which draws of a contrast [M] have to be spread about their mean.

    Their variance is that of seeds plus that of examples, and counts twice the interaction (which seed gets which
    example right) that is in both; and the variance of S seeds is known with S - 1 degrees of freedom only.
    """
    of_seeds, of_examples = (contrast @ covariance @ contrast for covariance in covariances[:2])
    if of_seeds + of_examples <= 0:
        return 1.
    tail = .5 - level / 2
    return _half_width(covariances, contrast, tail) / (-special.ndtri(tail) * np.sqrt(of_seeds + of_examples))


def _half_width(covariances, contrast, tail):
    """Half the width of the interval of a contrast [M] that leaves out a share `tail` on either side.

    Student's quantile for the seeds and the normal one for the examples are averaged by their shares in the variance
    (Cochran 1964, Biometrics 20, 191).
    """
    of_seeds, of_examples, interaction = (contrast @ covariance @ contrast for covariance in covariances[:3])
    normal = -special.stdtrit(covariances.clusters - 1, tail)  # Student's, but of many examples
    if of_seeds <= 0:
        return float(normal * np.sqrt(of_examples))
    of_examples = max(of_examples - interaction, 0.)
    student = -special.stdtrit(covariances.freedom, tail)
    return float((of_seeds * student + of_examples * normal) / np.sqrt(of_seeds + of_examples))


def _first_excluded(margin, start, step):
    """Where margin(r) becomes positive, going from start in the direction of the sign of step."""
    if margin(start) >= 0:
        return start
    while margin(start + step) <= 0:
        step *= 2
    return float(optimize.brentq(margin, start, start + step))
