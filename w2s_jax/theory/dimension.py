"""Variance in intrinsic dimensions (Dong, Li, Li, Lee, Lei 2025, arXiv 2502.05075).

x ~ N(0, I). A teacher of least squares sees x in a subspace V_w of d_w dimensions, and n labels with noise s^2; a
student sees it in V_s of d_s, and the teacher's answers on N further rows. For a truth that lies in both, what either
has above it, E (f - f*)^2, is variance alone. With the dimensions that they share, d_sw = ||V_s' V_w||_F^2, the paper
has for many rows

    Var_w = s^2 d_w / n,    Var_s = s^2 / n [d_sw + (d_w - d_sw) d_s / N]:

what the teacher learned of its noise outside V_s is to the student noise, which N rows average out. Of Gaussian rows
both are known for every n and N, as E (Z'Z)^-1 = I / (n - d - 1) of Z `[n, d]`:

    Var_w = s^2 d_w / (n - d_w - 1),    Var_s = s^2 / (n - d_w - 1) [d_sw + (d_w - d_sw) d_s / (N - d_s - 1)].
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.registry import TESTBEDS, Row, in_float64, keys


class Cell(NamedTuple):
    """weak = d_w, strong = d_s.  cosines: of the angles between the subspaces, as many as they have.  n: rows of truth.
    rows: N of the teacher's answers."""
    weak: int
    strong: int
    cosines: tuple[float, ...]
    n: int
    rows: int

    @property
    def shared(self) -> float:
        """d_sw."""
        return float(sum(c ** 2 for c in self.cosines))

    def __str__(self) -> str:
        return f'd_w {self.weak}, d_s {self.strong}, d_sw {self.shared:g}, n {self.n}, N {self.rows}'


def variances(cell: Cell, noise: float = 1.) -> tuple[float, float]:
    """(Var_w, Var_s), exact for Gaussian rows, with noise s^2. Needs n > d_w + 1 and N > d_s + 1."""
    each = noise / (cell.n - cell.weak - 1)
    return each * cell.weak, each * (
        cell.shared + (cell.weak - cell.shared) * cell.strong / (cell.rows - cell.strong - 1))


def asymptotic(cell: Cell, noise: float = 1.) -> tuple[float, float]:
    """(Var_w, Var_s) as in the paper, for n >> d_w and N >> d_s."""
    each = noise / cell.n
    return each * cell.weak, each * (cell.shared + (cell.weak - cell.shared) * cell.strong / cell.rows)


class Bases(NamedTuple):
    """Cells as arrays. strong, weak: V_s and V_w `[C, D, d]`, orthonormal but for columns of zeros where a cell has
    fewer dimensions.  n, rows: `[C]`."""
    strong: jax.Array
    weak: jax.Array
    n: jax.Array
    rows: jax.Array


def bases(cells: tuple[Cell, ...]) -> Bases:
    """With each cell's cosines between the i-th columns of V_s and V_w."""
    most = max(cell.strong + cell.weak for cell in cells)
    strong, weak = (np.zeros((len(cells), most, max(d))) for d in ([c.strong for c in cells], [c.weak for c in cells]))
    for s, w, cell in zip(strong, weak, cells, strict=True):
        s[:cell.strong, :cell.strong] = np.eye(cell.strong)
        w[cell.strong:cell.strong + cell.weak, :cell.weak] = np.eye(cell.weak)
        for i, cosine in enumerate(cell.cosines):
            w[:, i] = cosine * s[:, i] + (1 - cosine ** 2) ** .5 * w[:, i]
    return Bases(*map(jnp.asarray, (strong, weak, [c.n for c in cells], [c.rows for c in cells])))


def fit(basis: jax.Array, x: jax.Array, targets: jax.Array, count: jax.Array) -> jax.Array:
    """Least squares `[D]` within a basis `[D, d]` of the first `count` rows of x `[n, D]`, by the normal equations:
    Gaussian rows have a condition near 1. Columns of zeros get the coefficient 0."""
    z = (x @ basis) * (jnp.arange(len(x)) < count)[:, None]
    gram = z.T @ z + jnp.diag(1 - jnp.sum(basis ** 2, axis=0))
    return basis @ jax.scipy.linalg.solve(gram, z.T @ targets, assume_a='pos')


@functools.partial(jax.jit, static_argnames=('n', 'rows'))
def simulate(every: jax.Array, cells: Bases, n: int, rows: int) -> dict[str, jax.Array]:
    """The teacher and student of each key and cell, with noise 1 and a random truth in the directions that both have;
    all cells of a key share its draws. n, rows: the most that a cell has.

    Returns: the excess risks 'weak' and 'strong', and 'discrepancy', what the student has of it as N is finite: its
    distance from the teacher's projection on V_s; each `[keys, C]`.
    """
    square, size = lambda v: jnp.sum(v ** 2), cells.strong.shape[1]

    def one(key):
        k = jax.random.split(key, 4)
        drawn, noise = jax.random.normal(k[0], (size,)), jax.random.normal(k[1], (n,))
        taught, answered = jax.random.normal(k[2], (n, size)), jax.random.normal(k[3], (rows, size))

        def of(cell: Bases):
            truth = both(cell, drawn)
            teacher = fit(cell.weak, taught, taught @ truth + noise, cell.n)
            student = fit(cell.strong, answered, answered @ teacher, cell.rows)
            return {'weak': square(teacher - truth), 'strong': square(student - truth),
                    'discrepancy': square(student - cell.strong @ (cell.strong.T @ teacher))}
        return jax.vmap(of)(cells)
    return jax.lax.map(one, every)


def both(cell: Bases, drawn: jax.Array) -> jax.Array:
    """The part of a vector `[D]` in V_s and V_w, from their i-th columns where these are equal."""
    few = min(cell.strong.shape[1], cell.weak.shape[1])
    equal = jnp.sum(cell.strong[:, :few] * cell.weak[:, :few], axis=0) > 1 - 1e-9
    return cell.strong[:, :few] @ (equal * drawn[:few])


def principal(features: np.ndarray, share: float) -> np.ndarray:
    """The fewest left singular directions `[N, d]` of features `[N, D]`, their mean taken off, that have `share` of
    their variance."""
    centred = features - features.mean(0)
    values, directions = np.linalg.eigh(centred.T @ centred)  # in rising order
    explained = np.cumsum(values[::-1]) / values.sum()
    first = slice(-1, -2 - int(np.searchsorted(explained, share)), -1)
    return centred @ directions[:, first] / np.sqrt(values[first])


def intrinsic_dimension(features: np.ndarray, share: float = .99) -> int:
    """How many directions have `share` of the variance of features `[N, D]`: d_s, of a spectrum that falls off."""
    return principal(features, share).shape[1]


def correlation_dimension(strong: np.ndarray, weak: np.ndarray, share: float = .99) -> float:
    """d_sw of two models' features of the same rows, `[N, D_s]` and `[N, D_w]`: the sum of their squared canonical
    correlations, each model in its `intrinsic_dimension`.

    Of Gaussian rows this is ||V_s' V_w||_F^2; models need no common space for it, but rows do: by chance alone it is
    d_s d_w / N.
    """
    return float(np.sum((principal(strong, share).T @ principal(weak, share)) ** 2))


def projected(features: np.ndarray, dimensions: int, seed: int = 0) -> np.ndarray:
    """Features `[N, D]`, or gradients of examples, by a Gaussian matrix in fewer `dimensions`, lengths kept in the
    mean (Johnson and Lindenstrauss 1984)."""
    shape = features.shape[1], dimensions
    return features @ np.random.default_rng(seed).normal(0, dimensions ** -.5, shape)


CELLS = (Cell(10, 10, (1.,) * 5, 100, 100), Cell(20, 10, (1.,) * 4, 60, 50), Cell(8, 24, (1.,) * 4, 40, 100),
         Cell(12, 12, (), 60, 60), Cell(16, 8, (1., .8, .6, .5, .5, .3), 80, 40), Cell(20, 5, (1.,) * 2, 100, 30))
SAME = Cell(10, 10, (1.,) * 10, 100, 100)
SWEPT = tuple(Cell(20, 10, (1.,) * 4, 100, rows) for rows in (100, 200, 400, 800, 1600))


def slopes(found: dict) -> list[tuple[str, float]]:
    """Of log discrepancy against log N, and against log (N - d_s - 1), over the cells of SWEPT."""
    y = np.log([found[cell]['discrepancy'] for cell in SWEPT])
    return [(name, float(np.polyfit(np.log([cell.rows - less for cell in SWEPT]), y, 1)[0]))
            for name, less in (('N', 0), ('N - d_s - 1', SWEPT[0].strong + 1))]


def planted(dimensions: int, noise: float, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Features of two models `[rows, 200]`, `[rows, 120]` of `dimensions` and three quarters of them, half of which
    are the same, and noise with that share of their variance."""
    rng, fewer, same = np.random.default_rng(0), dimensions * 3 // 4, dimensions // 2
    z = rng.normal(size=(rows, dimensions + fewer - same))

    def features(part, wide):
        out = part * np.linspace(1, .5, part.shape[1]) @ np.linalg.qr(rng.normal(size=(wide, part.shape[1])))[0].T
        return out + rng.normal(0, (noise / (1 - noise) * out.var(0).sum() / wide) ** .5, (rows, wide))
    return features(z[:, :dimensions], 200), features(z[:, dimensions - same:], 120)


def estimated(dimensions: int) -> list[Row]:
    """Whether planted dimensions are found again."""
    row = lambda cell, predicted, measured, **more: Row(
        cell, predicted, measured, abs(measured / predicted - 1), '|measured / planted - 1|', .05, 0, **more)
    (strong, weak), (noisy, _) = planted(dimensions, .002), planted(dimensions, .05)
    return [row('d_s of 200 features', dimensions, intrinsic_dimension(strong)),
            row('d_s of 200 features, projected to 150', dimensions, intrinsic_dimension(projected(strong, 150))),
            row('d_sw of 200 and 120 features', dimensions // 2, correlation_dimension(strong, weak)),
            row('d_s under noise with 5 % of the variance', dimensions, intrinsic_dimension(noisy), control=True),
            row('d_sw, rows of one model shuffled', dimensions // 2, correlation_dimension(strong, weak[::-1]),
                control=True)]


def measured(seeds: int, cells: tuple[Cell, ...]) -> dict[Cell, dict[str, float]]:
    """What `simulate` returns, in the mean over seeds."""
    most = [max(getattr(cell, name) for cell in cells) for name in ('n', 'rows')]
    found = jax.device_get(simulate(keys(seeds, 'dimension'), bases(cells), *most))
    return {cell: {k: float(v[:, i].mean()) for k, v in found.items()} for i, cell in enumerate(cells)}


def compared(cell: Cell, found: dict, formula: Callable, who: int, said: str, students: int, **more) -> Row:
    """A variance, of the teacher (0) or the student, against a formula."""
    predicted, seen = formula(cell)[who], found[('weak', 'strong')[who]]
    error = abs(seen / predicted - 1)
    return Row(f'{said}: {cell}', predicted, seen, error, '|measured / predicted - 1|', .05, students, **more)


@TESTBEDS.register('dimension', seeds=4000,
                   planted=Setting(20, 4, 100, doc='dimensions that the estimator is to find again'))
@in_float64
def dimension(seeds: int, settings: Settings) -> list[Row]:
    """Variances of teachers and students in subspaces, and the law of d_s / N."""
    few = max(seeds // 8, 1)  # a discrepancy has little noise
    found, swept = measured(seeds, (*CELLS, SAME)), measured(few, SWEPT)
    rows = [compared(cell, found[cell], variances, who, ('Var_w', 'Var_s')[who], seeds * who)
            for cell in CELLS for who in (0, 1)]
    wrong = [compared(cell, found[cell], asymptotic, 1, 'Var_s, formula for many rows', 0, control=True)
             for cell in CELLS]
    ratio = found[SAME]['strong'] / found[SAME]['weak']
    return [*rows, max(wrong, key=lambda row: row.error),
            *(Row(f'slope of log discrepancy in log ({name})', -1, slope, abs(slope + 1), '|slope + 1|', .1,
                  few * len(SWEPT) * (name == 'N')) for name, slope in slopes(swept)),
            Row(f'Var_s / Var_w, one subspace: {SAME}', 1, ratio, abs(ratio - 1), '|ratio - 1|', 1e-9, seeds),
            *estimated(settings.planted)]
