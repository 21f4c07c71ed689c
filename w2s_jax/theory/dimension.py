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


def subspaces(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """(V_s `[D, d_s]`, V_w `[D, d_w]`), orthonormal, with the cell's cosines between their i-th columns; D = d_s + d_w.
    """
    strong, weak = np.eye(cell.weak + cell.strong)[:, :cell.strong], np.eye(cell.weak + cell.strong)[:, cell.strong:]
    for i, cosine in enumerate(cell.cosines):
        weak[:, i] = cosine * strong[:, i] + (1 - cosine ** 2) ** .5 * weak[:, i]
    return strong, weak


def fit(features: jax.Array, targets: jax.Array) -> jax.Array:
    """Least squares `[d]` of features `[n, d]` with a condition near 1, by their normal equations."""
    return jax.scipy.linalg.solve(features.T @ features, features.T @ targets, assume_a='pos')


@functools.partial(jax.jit, static_argnames='cell')
def simulate(every: jax.Array, cell: Cell) -> dict[str, jax.Array]:
    """The teacher and student of each key, with noise 1 and a random truth in the directions that both have.

    Returns: the excess risks 'weak' and 'strong', and 'discrepancy', what the student has of it as N is finite, its
    distance from the teacher's projection on V_s; each `[keys]`.
    """
    v_s, v_w = map(jnp.asarray, subspaces(cell))
    both = jnp.asarray(np.array([c == 1 for c in cell.cosines] + [False] * (cell.strong - len(cell.cosines))), float)

    def one(key):
        k = jax.random.split(key, 4)
        truth = v_s @ (both * jax.random.normal(k[0], (cell.strong,)))
        x = jax.random.normal(k[1], (cell.n, len(v_s)))
        teacher = v_w @ fit(x @ v_w, x @ truth + jax.random.normal(k[2], (cell.n,)))
        x = jax.random.normal(k[3], (cell.rows, len(v_s)))
        student = v_s @ fit(x @ v_s, x @ teacher)
        square = lambda v: jnp.sum(v ** 2)
        return {'weak': square(teacher - truth), 'strong': square(student - truth),
                'discrepancy': square(student - v_s @ (v_s.T @ teacher))}
    return jax.lax.map(one, every, batch_size=250)


def principal(features: np.ndarray, share: float) -> np.ndarray:
    """The fewest left singular directions `[N, d]` of features `[N, D]`, their mean taken off, that have `share` of
    their variance."""
    u, s, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    explained = np.cumsum(s ** 2) / np.sum(s ** 2)
    return u[:, :int(np.searchsorted(explained, share)) + 1]


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


CELLS = (Cell(10, 10, (1.,) * 5, 100, 200), Cell(20, 10, (1.,) * 4, 100, 100), Cell(10, 40, (1.,) * 5, 60, 200),
         Cell(20, 20, (), 100, 200), Cell(16, 8, (1., .8, .6, .5, .5, .3), 80, 60), Cell(30, 5, (1.,) * 2, 300, 50))
SAME = Cell(10, 10, (1.,) * 10, 100, 200)
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


@TESTBEDS.register('dimension', seeds=2000,
                   planted=Setting(20, 2, 200, doc='dimensions that the estimator is to find again'))
@in_float64
def dimension(seeds: int, settings: Settings) -> list[Row]:
    """Variances of teachers and students in subspaces, and the law of d_s / N."""
    found = {cell: {k: float(v.mean()) for k, v in simulate(keys(seeds, 'dimension'), cell).items()}
             for cell in (*CELLS, SAME, *SWEPT)}
    off = lambda cell, formula, who: abs(found[cell][('weak', 'strong')[who]] / formula(cell)[who] - 1)
    row = lambda cell, formula, who, name, limit, students=seeds, **more: Row(
        name, formula(cell)[who], found[cell][('weak', 'strong')[who]], off(cell, formula, who),
        '|measured / predicted - 1|', limit, students, **more)
    rows = [row(cell, variances, who, f'{name}: {cell}', .05, seeds * who)
            for cell in CELLS for who, name in enumerate(('Var_w', 'Var_s'))]
    worst = max(CELLS, key=lambda cell: off(cell, asymptotic, 1))
    same = found[SAME]['strong'] / found[SAME]['weak']
    return [*rows, row(worst, asymptotic, 1, f'Var_s, formula for many rows: {worst}', .05, 0, control=True),
            *(Row(f'slope of log discrepancy in log ({name})', -1, slope, abs(slope + 1), '|slope + 1|', .1,
                  seeds * len(SWEPT) * (name == 'N')) for name, slope in slopes(found)),
            Row(f'Var_s / Var_w, one subspace: {SAME}', 1, same, abs(same - 1), '|ratio - 1|', 1e-9, seeds),
            *estimated(settings.planted)]
