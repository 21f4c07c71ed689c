"""What verdicts are worth once it is known which claim was right: numpy arrays in, float64 numbers out.

verdict: `[..., N, 2]`, the judge's probabilities of the claims; right: int `[..., N]`, which of them is right, with the
same leading axes or, for `[2, N, 2]` of both seatings (registry.py), by `in_both`.
"""
import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from w2s_jax import metrics
from w2s_jax.errors import DataError

ELO = 400 / np.log(10)  # rating points of odds e
PRIOR = .01  # ratings of agents that win or lose all are finite: the weight of their squared size, in nats
LEAST = 1e-12  # a probability below counts as this one in logarithms


def in_both(right: ArrayLike) -> np.ndarray:
    """The right claim's seat in both seatings, `[2, N]` of `[N]`."""
    return np.stack([np.asarray(right), 1 - np.asarray(right)])


def of_right(verdict: ArrayLike, right: ArrayLike) -> np.ndarray:
    """The probability of the right claim, `[..., N]`. Raises DataError if shapes differ."""
    verdict, right = np.asarray(verdict, np.float64), np.asarray(right)
    if verdict.shape != (*right.shape, 2):
        raise DataError(f'verdict: shape {verdict.shape}, expected {(*right.shape, 2)}, that of right and 2')
    return np.take_along_axis(verdict, right[..., None], -1)[..., 0]


def correct(verdict: ArrayLike, right: ArrayLike) -> np.ndarray:
    """Whether the judge found the right claim, `[..., N]`: 1, 0, or 1/2 if both are equally probable."""
    p = of_right(verdict, right)
    return np.where(p == 1 - p, .5, p > .5)


def accuracy(verdict: ArrayLike, right: ArrayLike) -> float:
    """The share of `correct`, over questions and whatever axes are before them: of both seatings the mean."""
    return float(correct(verdict, right).mean())


def brier(verdict: ArrayLike, right: ArrayLike) -> float:
    """Mean squared error of the probability that the judge gives to the right claim: 0 best, 1/4 for even odds."""
    return float(((1 - of_right(verdict, right)) ** 2).mean())


def agent_score_difference(verdict: ArrayLike, right: ArrayLike, side: ArrayLike | None = None) -> float:
    """What telling the truth earns more than lying, in nats; an agent's score is the judge's log-probability of its
    claim (Sudhir, Kaunismaa, Panickssery 2025, arXiv 2504.03731).

    Args:
      verdict, right: as above.
      side: `[..., N]`, the claim that the one agent of a consultancy argued for; None: both were argued for (debate).

    Returns: mean score of those for the right claim minus that of those for the wrong one; NaN where either lacks.
    """
    p, right = of_right(verdict, right), np.asarray(right)
    log = lambda x: np.log(np.maximum(x, LEAST))
    if side is None:
        return float((log(p) - log(1 - p)).mean())
    honest = np.asarray(side) == right
    if honest.all() or not honest.any():
        return float('nan')
    return float(log(p[honest]).mean() - log(1 - p[~honest]).mean())


def compared(a: ArrayLike, b: ArrayLike) -> dict[str, float]:
    """Accuracy of protocol a minus that of b on the same questions, paired by question.

    Args:
      a, b: `correct` of both, `[N]` or, of seeds with the same questions, `[S, N]`; of both seatings the mean.

    Returns: {'mean', 'low', 'high', 'detectable', 'p'}, of `metrics.paired_difference` and `metrics.paired_p`.
    Raises DataError if shapes differ.
    """
    if np.shape(a) != np.shape(b):
        raise DataError(f'correct: shapes {np.shape(a)} and {np.shape(b)}, expected the same questions')
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    return metrics.paired_difference(a, b) | {'p': metrics.paired_p(a, b)}


def bradley_terry(first: ArrayLike, second: ArrayLike, wins: ArrayLike) -> tuple[np.ndarray, float]:
    """Elo ratings by which games were most likely won as they were (Bradley, Terry 1952; Elo's scale).

    P(first wins) = sigmoid((rating[first] - rating[second] + seat) / ELO), with a weak prior (PRIOR).

    Args:
      first, second: int `[G]`, the players in seat 0 and seat 1.
      wins: `[G]` in [0, 1], what the first got: 1, 0, 1/2, or the judge's probability of its claim.

    Returns: ratings `[players]` with mean 0, and what seat 0 is worth, in the same points.
    """
    first, second, wins = np.asarray(first), np.asarray(second), np.asarray(wins, np.float64)
    players = int(max(first.max(), second.max())) + 1
    x = np.zeros((len(wins), players + 1))
    x[:, players] = 1
    np.add.at(x, (np.arange(len(wins)), first), 1)
    np.add.at(x, (np.arange(len(wins)), second), -1)

    def loss(r):
        z = x @ r
        value = (np.logaddexp(0, z) - wins * z).sum() + PRIOR * (r ** 2).sum() / 2
        return value, x.T @ (special.expit(z) - wins) + PRIOR * r
    found = optimize.minimize(loss, np.zeros(players + 1), jac=True, method='BFGS', options={'gtol': 1e-6}).x * ELO
    return found[:-1] - found[:-1].mean(), float(found[-1])
