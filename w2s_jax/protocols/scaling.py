"""How oversight's success falls with the capability gap, and what nesting it in steps is worth (Engels, Baek,
Kantamneni, Tegmark 2025, arXiv 2504.18530): numpy arrays in, float64 numbers out.

A guard watches a houdini. Both have a rating in the game that is a double ReLU of their general capability: constant,
linear between two elbows, constant. The guard succeeds as Elo's ratings say. Nested: a guard that succeeds against a
slightly better system makes it trusted, and that one is the next guard.
"""
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.protocols.scores import ELO

PARAMETERS = 4
STARTS = (0, .25, .5, .75, 1)  # quantiles of x, pairs of which are first guesses of the elbows
MOST = 1600.  # rating points between two plateaus of success at most: a success of 1 is no infinite rating


class Elbows(NamedTuple):
    """A double ReLU: `low` up to x = first, `high` from x = second, linear between. rest: mean squared residual."""
    low: float
    high: float
    first: float
    second: float
    rest: float = float('nan')


def double_relu(x: ArrayLike, at: Elbows) -> np.ndarray:
    """low + slope (relu(x - first) - relu(x - second)), of any shape; rising or falling, everywhere in the same
    direction."""
    return np.asarray(np.interp(np.asarray(x, np.float64), at[2:4], at[:2]))


def won(difference: ArrayLike) -> np.ndarray:
    """How often one wins who is so many rating points better: 1 / (1 + 10^(-d / 400))."""
    return special.expit(np.asarray(difference, np.float64) / ELO)


def success(gap: ArrayLike, at: Elbows) -> np.ndarray:
    """Of a guard against a system better by `gap` in general capability, if the difference of their ratings in the game
    is the double ReLU `at` of that gap."""
    return won(double_relu(gap, at))


def fitted(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> Elbows:
    """The double ReLU of least squares: a guard's or a houdini's rating in the game by its general rating.

    Args:
      x, y: `[N]`, N >= 5, in any order.
      weights: `[N]`, of the squares, as 1 / variance; None: all the same.

    Both elbows are within the range of x, as where there are no points there is nothing to say. Raises DataError for
    fewer points or others than numbers.
    """
    x, y, weights = points(x, y, weights)
    room = max(float(np.ptp(y)), 1e-12)
    return least(x, y, weights, lambda found: found, (y.min() - room, y.max() + room))


def fitted_success(gap: ArrayLike, share: ArrayLike, weights: ArrayLike | None = None) -> Elbows:
    """The elbows, in rating points, of `success` that is nearest to shares `[N]` in [0, 1] at gaps `[N]`, by weighted
    least squares of the shares (weights: as numbers of games); plateaus are at most MOST. Raises as `fitted`."""
    gap, share, weights = points(gap, share, weights)
    if (share < 0).any() or (share > 1).any():
        raise DataError(f'success: {share.min():g} to {share.max():g}, expected shares in [0, 1]')
    return least(gap, share, weights, won, (-MOST, MOST))


def points(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three as float64 `[N]`, in the order of x, weights with mean 1."""
    given = [np.asarray(v, np.float64) for v in (x, y, np.ones(np.shape(x)) if weights is None else weights)]
    if len({v.shape for v in given}) > 1 or given[0].ndim != 1 or not np.isfinite(given).all():
        raise DataError(f'curve: shapes {", ".join(str(v.shape) for v in given)}, expected as many finite numbers each')
    if len(given[0]) <= PARAMETERS or np.ptp(given[0]) == 0:
        raise DataError(f'curve: {len(np.unique(given[0]))} points, expected at least {PARAMETERS + 1}')
    if (given[2] < 0).any() or not given[2].any():
        raise DataError('curve: weights below 0 or all 0, expected some above')
    order = np.argsort(given[0], kind='stable')
    return given[0][order], given[1][order], given[2][order] / given[2].mean()


def least(x: np.ndarray, y: np.ndarray, weights: np.ndarray, link: Callable, plateau: tuple[float, float]) -> Elbows:
    """The best of bounded fits from several starts: the squares of a piecewise linear curve have several minima."""
    left, width, root = float(x[0]), float(np.ptp(x)), np.sqrt(weights)
    # Elbows as shares of the range, the second as a share of what is left behind the first: always in order.
    unpack = lambda p: (p[0], p[1], left + width * p[2], left + width * (p[2] + (1 - p[2]) * p[3]))
    rest = lambda p: root * (link(np.interp(x, unpack(p)[2:], unpack(p)[:2])) - y)
    floor, roof = np.array([*plateau[:1] * 2, 0., 1e-9]), np.array([*plateau[1:] * 2, 1 - 1e-9, 1.])
    found = [optimize.least_squares(rest, np.clip(start, floor, roof), bounds=(floor, roof), x_scale=roof - floor)
             for start in guesses(x, y, link, plateau)]
    best = min(found, key=lambda fit: fit.cost)
    low, high, first, second = (float(v) for v in unpack(best.x))
    return Elbows(low, high, first, second, float(2 * best.cost / len(x)))


def guesses(x: np.ndarray, y: np.ndarray, link: Callable, plateau: tuple[float, float]) -> list[np.ndarray]:
    """Starts: pairs of quantiles of x as elbows, and as plateaus what y is beyond them."""
    share, levels = (x - x[0]) / np.ptp(x), np.linspace(*plateau, 401)
    back = lambda values: levels[np.argmin(np.abs(link(levels) - values.mean()))]
    pairs = itertools.combinations(np.unique(np.quantile(share, STARTS)), 2)
    return [np.array([back(y[share <= a]), back(y[share >= b]), a, (b - a) / (1 - a)]) for a, b in pairs]


def nested(guard: Callable, houdini: Callable, start: float, gap: float, steps: int) -> float:
    """Success of n nested steps of equal size, all of which have to succeed: prod_i won(G(s + (i - 1) d) - H(s + i d)),
    d = gap / n, as in the published code of arXiv 2504.18530.

    Args:
      guard, houdini: general rating -> rating in the game, as `functools.partial(double_relu, at=...)`.
      start: the first guard's general rating.
      gap: how much better the system is that is to be overseen in the end, in general rating.
      steps: n >= 1; 1 is oversight without nesting. Raises ConfigError below.
    """
    if steps < 1:
        raise ConfigError(f'steps: {steps}, expected at least 1')
    at = np.linspace(start, start + gap, steps + 1)
    difference = np.asarray(guard(at[:-1]), np.float64) - np.asarray(houdini(at[1:]), np.float64)
    return float(np.exp(special.log_expit(difference / ELO).sum()))


def nested_by_gap(curve: Callable, gap: float, steps: int) -> float:
    """The same if success hangs on the gap alone, as on one ladder of rungs: curve(gap / n)^n."""
    if steps < 1:
        raise ConfigError(f'steps: {steps}, expected at least 1')
    return float(curve(gap / steps)) ** steps


def best_steps(of_steps: Callable[[int], float], most: int = 20) -> tuple[int, float]:
    """The number of steps from 1 to `most` at which nesting succeeds most often, the least of equals, and how often."""
    each = [of_steps(n) for n in range(1, most + 1)]
    return int(np.argmax(each)) + 1, float(max(each))
