"""TRANSFORMS that label rows again from what the student's features say by themselves, more or less without teacher."""
import numpy as np
import threadpoolctl

from w2s_jax.errors import DataError
from w2s_jax.labels.filters import normalised
from w2s_jax.labels.probes import FIT, SMALL, out_of_fold, standardised
from w2s_jax.labels.prompts import TEMPLATE
from w2s_jax.labels.transforms import TRANSFORMS, balanced
from w2s_jax.registry import Setting, Settings

ALPHA, HOT, COLD, COOLING = 50., 1., .01, .99  # of the annealing: exp(ALPHA * difference / heat)
SMOOTHING = 1.  # counts added to each cell of the confusion matrix


@TRANSFORMS.register('noisy_channel', features=True, **FIT,
                     steps=Setting(5, 1, 1000, traced=True, doc='of expectation-maximisation'))
def noisy_channel(labels: np.ndarray, features, settings: Settings, rng):
    """Labels are the posterior of classes given features and weak label, each class confused in a way of its own (EM).

    Dawid & Skene 1979 (Applied Statistics 28, 20) with one annotator, the weak model, and a probe as the prior: Raykar
    et al. 2010, JMLR 11, section 2. E: q_i(y) ~ probe(y | x_i) prod_w C[y, w]^p_i(w). M: C[y] ~ sum_i q_i(y) p_i, and
    the probe learns q; it is cross-fitted, so that no row confirms itself. A soft weak label p_i is so many answers w.
    """
    from scipy import special
    learned, seed = labels, int(rng.integers(2**32))
    for step in range(settings.steps):
        prior = out_of_fold(learned, features, settings, np.random.default_rng(seed))  # the same folds in every step
        channel = (learned if step else prior).T @ labels + SMOOTHING  # labels against themselves are never confused
        logs = np.log(channel / channel.sum(1, keepdims=True))
        learned = special.softmax(np.log(np.maximum(prior, 1e-30)) + labels @ logs.T, axis=1)
    return normalised(learned), None


@TRANSFORMS.register(
    'elicited', features=True, folds=FIT['folds'], l2=Setting(.1, 0, 1e6, '(]', traced=True, doc='as of probe; small '
    'ones make all splits by a plane equally predictable'),
    start=Setting('clusters', choices=('clusters', 'random'), doc="k-means of the features, or classes at random"),
    steps=Setting(50, 0, 10**6, traced=True, doc='proposals; each fits the probe once a fold'),
    share=Setting(.1, 0, 1, '(]', traced=True, doc='of the rows, those that a proposal labels again'))
def elicited(labels: np.ndarray, features, settings: Settings, rng):
    """Labels without a teacher: a search for those that predict each other best; weak labels only name the classes.

    Internal coherence maximisation (Wen et al. 2025, arXiv 2506.10139, algorithm 1) with the out-of-fold
    log-likelihood of a probe in place of a language model's in-context one, without its term for logical
    inconsistency. A proposal gives some rows what the probe answers, with the shares that classes have at the start
    (one class for all is the most predictable); it is taken if it scores higher, or by simulated annealing.
    """
    classes, seed = labels.shape[1], int(rng.integers(2**32))
    now, shares = _start(features, settings.start, classes, rng)
    found, score = predictable(now, features, settings, seed)
    for step in range(settings.steps):
        again = rng.random(len(now)) < settings.share
        other = np.where(again[:, None], np.eye(classes)[balanced(found, shares).argmax(1)], now)
        probabilities, value = predictable(other, features, settings, seed)
        heat = max(COLD, HOT / (1 + COOLING * np.log(step + 1)))
        if value >= score or rng.random() < np.exp(ALPHA * (value - score) / heat):
            now, found, score = other, probabilities, value
    return _named(now, labels), None


def _start(features: np.ndarray, how: str, classes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hard labels `[n, K]` to begin with, and the shares of classes `[K]`."""
    if how == 'random':
        answers = rng.integers(0, classes, len(features))
    else:  # features as they are: what varies most may be what counts
        from sklearn.cluster import KMeans
        x = features.reshape(len(features), -1)
        answers = KMeans(classes, n_init=10, random_state=int(rng.integers(2**32))).fit_predict(x)
    now = np.eye(classes)[answers]
    return now, np.maximum(now.mean(0), 1 / len(now))


def predictable(now: np.ndarray, features, settings: Settings, seed: int) -> tuple[np.ndarray, float]:
    """Out-of-fold probabilities `[n, K]`, and the mean log-likelihood of labels `[n, K]` by them."""
    found = out_of_fold(now, features, settings, np.random.default_rng(seed))
    return found, float((now * np.log(np.maximum(found, 1e-30))).sum(1).mean())


def _named(now: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Hard labels with their classes permuted so that they agree best with the weak labels, float32."""
    from scipy import optimize
    return now[:, optimize.linear_sum_assignment(-(labels.T @ now))[1]].astype(np.float32)


@TRANSFORMS.register(
    'ccs', features='prompts', words=Setting(('no', 'yes'), doc='how the two classes are called, in their order'),
    template=Setting(TEMPLATE, doc='of {text} and {answer}'),
    starts=Setting(10, 1, 1000, traced=True, doc='random directions to begin with, of which the least loss counts'),
    l2=Setting(.01, 0, 1e6, traced=True, doc='loss + l2 / 2 |weights|^2'))
def ccs(labels: np.ndarray, features, settings: Settings, rng):
    """Labels without a teacher: what a probe says that contradicts itself least; weak labels only name the classes.

    Contrast-consistent search (Burns et al. 2022, arXiv 2212.03827, equations 1 to 4). features: `[n, 2, ...]`, of the
    texts with either answer behind them. Each answer's are standardised by themselves, so that the word is forgotten. A
    weight decay takes the place of the authors' early end.
    """
    if labels.shape[1] != 2 or len(settings.words) != 2 or len(set(settings.words)) != 2:
        raise DataError(f'words: {tuple(settings.words)} for {labels.shape[1]} classes, expected two words for two '
                        'classes')
    no, yes = (standardised(features[:, i]).astype(np.float64) for i in range(2))
    said = consistent(no, yes, settings.l2, [rng.normal(size=no.shape[1] + 1) for _ in range(settings.starts)])
    found = np.stack([1 - said, said], axis=1)
    right = ((found.argmax(1) == labels.argmax(1)).mean()) >= .5
    return (found if right else found[:, ::-1]).astype(np.float32), None


def consistent(no: np.ndarray, yes: np.ndarray, l2: float, starts: list[np.ndarray]) -> np.ndarray:
    """`[n]`: the probability of yes, (p(yes) + 1 - p(no)) / 2, of the best of several descents from `starts`, weights
    `[D]` and an intercept; no, yes: features `[n, D]`."""
    from scipy import optimize, special
    with threadpoolctl.threadpool_limits(1 if no.size < SMALL else None):
        ends = [optimize.minimize(contradiction, start / np.linalg.norm(start), (no, yes, l2), jac=True,
                                  method='L-BFGS-B') for start in starts]
    best = min(ends, key=lambda end: end.fun).x
    p, q = (special.expit(x @ best[:-1] + best[-1]) for x in (yes, no))
    return (p + 1 - q) / 2


def contradiction(weights: np.ndarray, no: np.ndarray, yes: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
    """The mean of (p(yes) - (1 - p(no)))^2 + min(p(yes), p(no))^2, plus l2 / 2 |w|^2, and its gradient `[D + 1]`."""
    from scipy import special
    p, q = (special.expit(x @ weights[:-1] + weights[-1]) for x in (yes, no))
    apart, least = p + q - 1, np.minimum(p, q)
    loss = (apart ** 2 + least ** 2).mean() + l2 / 2 * (weights[:-1] ** 2).sum()
    at_p, at_q = (2 * (apart + least * mine) * x * (1 - x) / len(p) for x, mine in ((p, p < q), (q, p >= q)))
    return loss, np.append(yes.T @ at_p + no.T @ at_q + l2 * weights[:-1], (at_p + at_q).sum())
