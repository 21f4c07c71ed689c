"""Two preferences that pull apart (methods.md T7): which of two answers is more harmless, and which more helpful.

A row is how two answers differ, 12 standard normal features. The more harmless one (the truth, class 1) is the sign of
a linear part, of features 0 to 5, and a part that only a larger model sees: products of features 6 to 9. The more
helpful one (the metadata `helpful`, a class, which people may tell) is the sign of a number whose correlation with the
first is `task.correlation`; what it has beside that shows in features 10 and 11, or (`task.visible`) nowhere.
"""
import numpy as np

from w2s_jax.data import Dataset, Examples
from w2s_jax.tasks import synthetic

WIDTH, LINEAR, HIDDEN = 12, 6, 1.2


def load(task, log=print) -> Dataset:
    """The task at `task.train_size` (0: 8000) and `task.test_size` (0: 4000) rows."""
    n, m = synthetic.sizes(task, synthetic.MOST, (8000, 4000))
    rng = np.random.default_rng((task.seed, 9))
    x = rng.normal(size=(n + m, WIDTH)).astype(np.float32)
    harmless = (x[:, :LINEAR].sum(1) / LINEAR ** .5 + HIDDEN * (x[:, 6] * x[:, 7] + x[:, 8] * x[:, 9])) / (
        1 + 2 * HIDDEN ** 2) ** .5
    own = (x[:, 10] + x[:, 11]) / 2 ** .5 if task.visible else rng.normal(size=n + m)
    helpful = task.correlation * harmless + (1 - task.correlation ** 2) ** .5 * own
    rows = Examples({'features': x}, (harmless > 0).astype(np.int32), np.arange(n + m),
                    metadata={'helpful': (helpful > 0).astype(np.int32)})
    return Dataset('harmless_helpful', 2, rows.take(np.arange(n)), rows.take(np.arange(n, n + m)),
                   notes={'rows': n + m, 'skipped': 0, 'source': 'synthetic'})
