"""Whether probabilities mean what they say: in bins of equally many examples, and by the Brier score.

`ece` among the measures of every model has bins of equal width (Guo et al. 2017, eq. 3), most of which are empty for a
model that is sure of nearly all; bins of equal mass (Nixon et al. 2019, arXiv 1904.01685, section 3) are not.
"""
import numpy as np

from w2s_jax.diagnostics.registry import DIAGNOSTICS, Predictions, classes, probabilities
from w2s_jax.registry import Setting, Settings

WHO = ('student', 'weak', 'ceiling')


def bins_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """`[N]`: the bin of each of `[N]` confidences, cut at quantiles; equal ones share a bin, so that bins may be fewer
    and unequal where there are many of one value."""
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1], method='inverted_cdf')
    return np.searchsorted(np.unique(edges), confidence, side='left')


def gaps(confidence: np.ndarray, right: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each bin that is not empty the share of rows, and mean right less mean confidence; both `[B]`."""
    at = bins_of(confidence, bins)
    count = np.bincount(at)
    gap = np.bincount(at, weights=right - confidence)
    there = count > 0
    return count[there] / len(at), gap[there] / count[there]


def brier(predictions: Predictions, truth: np.ndarray) -> float | None:
    """mean_i sum_k (p_ik - y_ik)^2 (Brier 1950), in [0, 2]; None of more than five classes."""
    p = probabilities(predictions)
    return None if p is None else float(((p - np.eye(p.shape[1])[truth]) ** 2).sum(1).mean())


@DIAGNOSTICS.register('calibration', bins=Setting(15, 1, 10**4, doc='of equally many examples'),
                      of=Setting(('student', 'weak'), choices=WHO, doc='whose predictions'))
def calibration(student: Predictions, weak: Predictions, ceiling: Predictions, truth: np.ndarray,
                settings: Settings) -> dict:
    """The gap between confidence and being right, on average over bins and at most, and the Brier score."""
    models, found = {'student': student, 'weak': weak, 'ceiling': ceiling}, dict[str, tuple]()
    for who in settings.of:
        model, end = models[who], '' if who == 'student' else f'_{who}'
        said = {'student': '', 'weak': ': weak model', 'ceiling': ': ceiling'}[who]
        confidence = model['top_probability'][:, 0].astype(np.float64)
        share, gap = gaps(confidence, classes(model) == truth, settings.bins)
        found |= {f'ece_equal_mass{end}': (float(share @ np.abs(gap)), f'ECE of equal bins{said}', 1, 3),
                  f'mce{end}': (float(np.abs(gap).max()), f'largest calibration error (MCE){said}', 1, 3),
                  f'brier{end}': (brier(model, truth), f'Brier score{said}', 1, 3)}
    return found
