"""TRANSFORMS: name -> what is done to weak labels: `fn(labels, features, settings, rng) -> (labels, keep)`.

labels: `[n, K]` float32, rows sum to 1.  features: `[n, ...]`, what the student's frozen model makes of the rows, for
those registered with `features=True`; of the texts that a table makes of them (labels/texts.py) for those registered
with its name, its settings being the transform's; else None.  rng: numpy's, drawn from the run's seed.  keep: `[n]`
bool, which rows the student learns from; None: all. Pure: no truth, no files. A DataError begins with the setting that
it is about; `labels.NAME.` is put before it.
"""
import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.registry import Registry, Setting, Settings

TRANSFORMS = Registry('transform', options=('features',), traces=True)


@TRANSFORMS.register('harden')
def harden(labels: np.ndarray, features, settings: Settings, rng):
    """Each label becomes its most probable class."""
    return np.eye(labels.shape[1], dtype=np.float32)[labels.argmax(-1)], None


@TRANSFORMS.register('temperature', T=Setting(1., 0, 1e3, '(]', traced=True, doc='below 1 surer, above 1 less sure'))
def temperature(labels: np.ndarray, features, settings: Settings, rng):
    """Labels as p^(1/T), renormalised (Hinton et al. 2015, arXiv 1503.02531, equation 1)."""
    return altered(labels, settings.T, 0, 0), None


@TRANSFORMS.register('noise', share=Setting(.1, 0, 1, traced=True, doc='of the rows'))
def noise(labels: np.ndarray, features, settings: Settings, rng):
    """Moves a share of the labels to other classes, each as likely: uniform label noise."""
    return altered(labels, 1, settings.share, int(rng.integers(2**32))), None


@TRANSFORMS.register('smooth', eps=Setting(.1, 0, 1, traced=True, doc='weight of the even label'))
def smooth(labels: np.ndarray, features, settings: Settings, rng):
    """Labels as (1 - eps) p + eps / K: label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7)."""
    eps = np.float32(settings.eps)
    return (1 - eps) * labels + eps / np.float32(labels.shape[1]), None


@TRANSFORMS.register('balance', prior=Setting((), doc='what the mean label becomes, a number a class; (): even'))
def balance(labels: np.ndarray, features, settings: Settings, rng):
    """Multiplies labels by a weight for each class, and renormalises, so that their mean is the prior."""
    classes = labels.shape[1]
    try:
        prior = np.array(settings.prior or [1 / classes] * classes, np.float64)
    except (TypeError, ValueError):
        prior = np.zeros(0)
    if prior.shape != (classes,) or not (prior > 0).all() or not abs(prior.sum() - 1) < 1e-3:
        raise DataError(f'prior: {tuple(settings.prior)}, expected {classes} numbers above 0 that sum to 1')
    prior /= prior.sum()
    found = balanced(labels, prior)
    if not np.abs(found.mean(0) - prior).max() < 1e-4:
        raise DataError(f'prior: {prior.round(4).tolist()[:8]} cannot be the mean of these labels, whose mean is '
                        f'{labels.mean(0).round(4).tolist()[:8]}; expected softer labels, or a prior nearer to that')
    return found, None


def balanced(labels: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Labels `[n, K]` times class weights w, renormalised, whose mean is the prior `[K]`.

    log w minimises mean_i log sum_k p_ik w_k - prior . log w, which is convex and whose gradient is mean label less
    prior (with even weights: the correction for a shifted prior of Saerens et al. 2002, Neural Computation 14,
    equation 2.4, w chosen by the mean). The mean is another where no weights do it, as with hard labels.
    """
    from scipy import optimize, special  # a fifth of a second to import, and few runs need it
    with np.errstate(divide='ignore'):
        logs = np.log(labels.astype(np.float64))

    def dual(weights):
        scaled = logs + weights
        return (special.logsumexp(scaled, axis=1).mean() - prior @ weights,
                special.softmax(scaled, axis=1).mean(0) - prior)
    weights = optimize.minimize(dual, np.zeros(len(prior)), jac=True, method='L-BFGS-B',
                                options={'ftol': 1e-14, 'gtol': 1e-8}).x
    return special.softmax(logs + weights, axis=1).astype(np.float32)


def tempered(labels: np.ndarray, temperature: np.ndarray | float, least: float = 1e-30) -> np.ndarray:
    """Labels `[..., K]` as p^(1/T), renormalised (Hinton et al. 2015, arXiv 1503.02531, equation 1), computed in their
    own type. temperature: a number, or an array that fits.  least: what a probability counts as at least."""
    logs = np.log(np.maximum(labels, least)) / temperature
    logs -= logs.max(-1, keepdims=True)
    return np.exp(logs) / np.exp(logs).sum(-1, keepdims=True)


def altered(labels: np.ndarray, temperature: float, noise: float, seed: int) -> np.ndarray:
    """Probabilities `[n, K]` as p^(1/T), renormalised, and a share of them moved by one to K - 1 classes (label noise,
    drawn by the seed)."""
    if temperature != 1:
        labels = tempered(labels, temperature).astype(np.float32)
    if noise:
        rng, classes = np.random.default_rng((seed, 2)), labels.shape[-1]
        shift = np.where(rng.random(len(labels)) < noise, rng.integers(1, classes, len(labels)), 0)
        labels = np.take_along_axis(labels, (np.arange(classes) - shift[:, None]) % classes, axis=-1)
    return labels
