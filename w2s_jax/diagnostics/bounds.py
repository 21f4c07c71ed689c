"""How far a student may be from its supervisor in loss and calibration (Yao et al. 2025, arXiv 2502.01458), on stored
predictions; w2s_jax/theory/bounds.py has the theorems, and where they are wrong.

With d = E KL(f_w, f_s) over the test rows, their truth y and all probabilities of both at least gamma:

    |E H(y, f_s) - E H(y, f_w)| <= sqrt(2 d) / gamma        |MCE(f_s) - MCE(f_w)| <= 2 sqrt(1 - exp(-d))

MCE(f) = sum_k E |E[f_k - y_k | G]|, both within the same groups G: bins of equally many rows by the supervisor's
confidence. They hold of any two models on any rows; what is to be seen is how much of the room is used.
"""
import numpy as np

from w2s_jax.diagnostics.calibration import bins_of
from w2s_jax.diagnostics.misfit import SMALLEST, kl
from w2s_jax.diagnostics.registry import DIAGNOSTICS, Note, Predictions, probabilities
from w2s_jax.registry import Setting, Settings


def marginal_error(answers: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> float:
    """MCE of probabilities against the one-hot truth, `[N, K]`, within groups `[N]`."""
    each = np.eye(groups.max() + 1)[groups]
    return float(np.abs(each.T @ (answers - truth)).sum() / len(answers))


@DIAGNOSTICS.register('bounds', bins=Setting(15, 1, 10**4, doc='groups of equally many examples'))
def bounds(student: Predictions, weak: Predictions, ceiling: Predictions, truth: np.ndarray,
           settings: Settings) -> dict:
    """How far the student is from its supervisor in cross-entropy and calibration, and how far it may be at most."""
    del ceiling
    s, w = (probabilities(model) for model in (student, weak))
    if s is None or w is None:
        return {'bounds': Note('bounds need all probabilities, and of more than five classes not all are stored')}
    s, w, y = np.maximum(s, SMALLEST), np.maximum(w, SMALLEST), np.eye(s.shape[1])[truth]
    d, gamma = kl(w, s), min(s.min(), w.min())
    loss = lambda f: float(-np.log(f[y == 1]).mean())
    groups = bins_of(weak['top_probability'][:, 0].astype(np.float64), settings.bins)
    found: dict = {
        'loss_gap': (abs(loss(s) - loss(w)), 'difference from the supervisor in cross-entropy', 1, 4),
        'calibration_gap': (abs(marginal_error(s, y, groups) - marginal_error(w, y, groups)),
                            'difference from the supervisor in calibration error', 1, 4),
        'calibration_bound': (2 * (-np.expm1(-d)) ** .5, 'at most, by its distance from the supervisor', 1, 4)}
    if (most := (2 * d) ** .5 / gamma) < -np.log(gamma):
        return found | {'loss_bound': (most, 'difference in cross-entropy at most, by that distance', 1, 4)}
    return found | {'loss_bound': Note(
        f'sqrt(2 d) / gamma bounds no cross-entropy here: it is {most:.3g}, and with no probability below {gamma:.2g} '
        f'none is above {-np.log(gamma):.3g}')}
