"""Domains with a spurious feature (methods.md T6), for several teachers of which one is right for the right reason.

Each group of four rows has a row of every domain. Truth is even; beside what it causes (the core) stands a spurious
feature, a sign that is the truth's with probability (1 + r) / 2: r is CORRELATIONS in the domains 0 to 2, which
teachers learn (`method.domains`), and `task.correlation` in domain 3, the students' and the test set's. A teacher of
domain 0 or 1 learns the sign, and errs together with the other where the sign is another; one of domain 2 the core.

`weak` `[N, 8]` and `features` `[N, 32]` (the strong model's) are standard normal numbers about means: half of them the
core's, half the sign's. A mean's length is how far a linear model can tell, whatever the features are scaled by: it is
CORE and SIGN, and for the sign in the strong features SEEN times `task.attenuation`. At 0 a student cannot see what
misled its teachers, so that their errors are noise to it; the more it sees, the easier these teachers are to imitate.
"""
import numpy as np

from w2s_jax.data import Dataset, Examples
from w2s_jax.tasks import synthetic

CORRELATIONS = (.95, .9, 0.)
CORE = {'weak': 1., 'features': 2.}
SIGN, SEEN = 2., 10.
WIDTHS = {'weak': 4, 'features': 16}  # of the core, and of the sign


def load(task, log=print) -> Dataset:
    """The task at `task.train_size` (0: 16000) rows, a quarter of each domain, and `task.test_size` (0: 4000)."""
    target, size = len(CORRELATIONS), len(CORRELATIONS) + 1
    n, m = synthetic.sizes(task, synthetic.MOST, (16000, 4000))
    n -= n % size
    domain, group = np.arange(n) % size, np.arange(n) // size
    pool = draw(domain, group, task, 0)
    test = draw(np.full(m, target), np.arange(m), task, 1)
    return Dataset('spurious_domains', 2, pool, test, notes={'rows': n + m, 'skipped': 0, 'source': 'synthetic'})


def draw(domain: np.ndarray, group: np.ndarray, task, part: int) -> Examples:
    """Rows of domains `[n]`, drawn by the task's seed. part: 0 the pool, 1 the test set."""
    rng = np.random.default_rng((task.seed, 6, part))
    truth = rng.integers(0, 2, len(domain)).astype(np.int32)
    correlation = np.array([*CORRELATIONS, task.correlation])[domain]
    core = 2 * truth - 1
    sign = np.where(rng.random(len(domain)) < (1 + correlation) / 2, core, -core)
    inputs = {name: np.concatenate([about(rng, CORE[name] * core, WIDTHS[name]),
                                    about(rng, seen * sign, WIDTHS[name])], axis=1)
              for name, seen in (('weak', SIGN), ('features', SEEN * task.attenuation))}
    return Examples(inputs, truth, group, metadata={'domain': domain})


def about(rng: np.random.Generator, length: np.ndarray, width: int) -> np.ndarray:
    """`[n, width]` float32: standard normal numbers about means of that length `[n]`, signed, in one direction."""
    return (rng.normal(size=(len(length), width)) + length[:, None] / width ** .5).astype(np.float32)
