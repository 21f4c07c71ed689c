"""Gain and misfit on stored predictions (arXiv 2405.15116, 2501.19105, 2505.24313; w2s_jax/theory has the theorems).

y: the truth, one-hot; f_w, f_s, f_c: the probabilities of supervisor, student and ceiling; means over test rows.

Of squares, for any student, gain = misfit + cross term, with (f - g)^2 summed over classes:

    E (f_w - y)^2 - E (f_s - y)^2 = E (f_w - f_s)^2 + 2 E (f_w - f_s)(f_s - y).

Of KL, the ceiling in the place of the best model of the student's class, for a probe of cross-entropy:

    E KL(f_w, f_c) - E KL(f_s, f_c) = E KL(f_w, f_s),

on the rows that it has learned, trained to the end, if f_c is a function of its class; on test rows it says how far the
student is from that. The better known identity with
the arguments exchanged is of students of reverse KL in a convex class, which one trained network is not: of any student
here it is not checked, and is said so.
"""
import numpy as np

from w2s_jax.diagnostics.registry import DIAGNOSTICS, Note, Predictions, probabilities
from w2s_jax.registry import Settings

SMALLEST = 1e-7  # a probability, where its logarithm is taken
FORWARD = ('xent', 'kl')  # losses whose least is nearest to the labels in the second argument of KL


def squares(student: np.ndarray, weak: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """(gain, misfit, cross term) of probabilities and one-hot truth, `[N, K]`: the first is the sum of the others."""
    d = lambda a, b: float(((a - b) ** 2).sum(1).mean())
    cross = 2 * float(((weak - student) * (student - truth)).sum(1).mean())
    return d(weak, truth) - d(student, truth), d(weak, student), cross


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """The mean over rows of KL(p, q), `[N, K]`."""
    p, q = (np.maximum(x, SMALLEST) for x in (p, q))
    return float((p * np.log(p / q)).sum(1).mean())


def dual(student: np.ndarray, weak: np.ndarray, ceiling: np.ndarray) -> tuple[float, float]:
    """(gain, misfit) of KL, towards the ceiling: equal where the identity holds."""
    return kl(weak, ceiling) - kl(student, ceiling), kl(weak, student)


def unmet(row: dict) -> str:
    """Why the dual identity is not of this student; '' if it may be."""
    if row.get('loss') not in FORWARD:
        return f'it learned {row.get("loss")}, and the identity is of cross-entropy'
    if row.get('mode') != 'probe':
        return f'it is of mode {row.get("mode")}, and the identity is of log-linear models, such as probes'
    return ''


@DIAGNOSTICS.register('misfit', rows=True)
def misfit(student: Predictions, weak: Predictions, ceiling: Predictions, truth: np.ndarray, settings: Settings, *,
           row: dict) -> dict:
    """Gain, misfit and cross term of squared errors; of KL only where the student's loss and class allow it."""
    del settings
    s, w, c = (probabilities(model) for model in (student, weak, ceiling))
    if s is None or w is None or c is None:
        return {'misfit': Note('gain and misfit need all probabilities, and of more than five classes not all are '
                               'stored')}
    gain, apart, cross = squares(s, w, np.eye(s.shape[1])[truth])
    found: dict = {'squared_gain': (gain, 'gain in squared error', 1, 4),
                   'squared_misfit': (apart, 'misfit: squared distance from the supervisor', 1, 4),
                   'squared_cross': (cross, 'cross term: gain less misfit', 1, 4),
                   'kl_primal': Note('KL(y, f_w) >= KL(y, f_s) + KL(f_s, f_w) is not checked: it is of students of '
                                     f'reverse KL in a convex class; this one is a network that learned '
                                     f'{row.get("loss")}')}
    if why := unmet(row):
        return found | {'kl_dual': Note(f'gain in KL equal to misfit is not checked: {why}')}
    gain, apart = dual(s, w, c)
    return found | {'kl_gain': (gain, 'gain in KL to the ceiling', 1, 4),
                    'kl_misfit': (apart, 'misfit: KL from the supervisor', 1, 4),
                    'kl_residual': (gain / apart - 1 if apart > 0 else None,
                                    'KL gain less misfit, of misfit; test rows', 1, 3)}
