"""Whether probabilities mean what they say: in bins of equally many examples, and by the Brier score.

`ece` among the measures of every model has bins of equal width (Guo et al. 2017, eq. 3), most of which are empty for a
model that is sure of nearly all; bins of equal mass (Nixon et al. 2019, arXiv 1904.01685, section 3) are not.
"""
import numpy as np

from w2s_jax.diagnostics.registry import DIAGNOSTICS, Predictions, Series, classes, probabilities
from w2s_jax.registry import Setting, Settings

WHO = ('student', 'weak', 'ceiling')


def bins_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """`[N]`: the bin of each of `[N]` confidences, cut at quantiles; equal ones share a bin, so that bins may be empty
    and unequal where there are many of one value."""
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1], method='inverted_cdf')
    return np.searchsorted(edges, confidence, side='left')


def gaps(confidence: np.ndarray, right: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each bin that is not empty the share of rows, and mean right less mean confidence; both `[B]`."""
    count, sure, hits = sums(confidence, right, bins)
    there = count > 0
    return count[there] / len(right), (hits - sure)[there] / count[there]


def sums(confidence: np.ndarray, right: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin how many rows it has, the sum of their confidences, and how many are right; `[bins]` each."""
    at = bins_of(confidence, bins)
    count, sure, hits = (np.bincount(at, weights=w, minlength=bins) for w in (np.ones(len(at)), confidence, right))
    return count, sure, hits


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int, who: str) -> Series:
    """The reliability diagram (DeGroot and Fienberg 1983): mean right against mean confidence, bin by bin; a bin that
    is empty, as equal confidences share one, has no point."""
    count, sure, hits = sums(confidence, right, bins)
    each = np.where(count > 0, count, np.nan)
    return Series(100 * sure / each, 100 * hits / each, who, 'Reliability, bins of equally many examples',
                  ('mean confidence of the bin, %', 'right answers in the bin, %'), diagonal=True)


def brier(predictions: Predictions, truth: np.ndarray) -> float | None:
    """mean_i sum_k (p_ik - y_ik)^2 (Brier 1950), in [0, 2]; None of more than five classes."""
    p = probabilities(predictions)
    return None if p is None else float(((p - np.eye(p.shape[1])[truth]) ** 2).sum(1).mean())


@DIAGNOSTICS.register('calibration', version=2, bins=Setting(15, 1, 10**4, doc='of equally many examples'),
                      of=Setting(('student', 'weak'), choices=WHO, doc='whose numbers; the diagram has all three'))
def calibration(student: Predictions, weak: Predictions, ceiling: Predictions, truth: np.ndarray,
                settings: Settings) -> dict:
    """The gap between confidence and being right, by bins, on average and at most; the Brier score; the diagram."""
    models, found = {'student': student, 'weak': weak, 'ceiling': ceiling}, dict[str, tuple]()
    for who, model in models.items():
        confidence, right = model['top_probability'][:, 0].astype(np.float64), classes(model) == truth
        found[f'reliability_{who}'] = reliability(confidence, right, settings.bins, who)
        if who in settings.of:
            found |= numbers(who, *gaps(confidence, right, settings.bins), brier(model, truth))
    return found


def numbers(who: str, share: np.ndarray, gap: np.ndarray, score: float | None) -> dict[str, tuple]:
    """The measures of one model. share, gap: of its bins, `[B]`."""
    end, said = {'student': ('', ''), 'weak': ('_weak', ': weak model'), 'ceiling': ('_ceiling', ': ceiling')}[who]
    return {f'ece_equal_mass{end}': (float(share @ np.abs(gap)), f'ECE of equal bins{said}', 1, 3),
            f'mce{end}': (float(np.abs(gap).max()), f'largest calibration error (MCE){said}', 1, 3),
            f'brier{end}': (score, f'Brier score{said}', 1, 3)}
