"""Bootstrapping through models of growing size (arXiv 2312.09390, section 4.3.1), a chain of any length.

The weak labels train the first model of `method.chain`, whose own labels train the next, and so on; the last of the
chain labels for the student. Beside it stands the direct student, who learns the weak labels themselves. A chain
of one model, the student's own, is self-distillation.

Rungs are phases like others: they are shared by all losses of the student, by chains that begin alike, and by the
cells of a grid. Only the teacher and the ceiling see truth.
"""
import numpy as np

from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Source
from w2s_jax.methods import naive
from w2s_jax.models.modes import Model


def graph(config, dataset: Dataset, models: dict[str, Model]) -> Phase:
    """The evaluate phase. `models` maps 'student', maybe 'teacher', and 'rung/0' ... as `method.chain` names them."""
    s = naive.setting(config, dataset, models)
    needs = naive.test_needs(s)
    names = [f'rung {k + 1}: {name}' for k, name in enumerate(config.method.chain)]
    for seed in s.halves:
        needs |= naive.seed_needs(s, seed)
        learned = slices(s, seed)
        rungs, (rows, targets) = climb(s, seed, needs[f'weak/{seed}'], needs[f'labels/{seed}'], learned)
        needs |= {f'student/{name}/{seed}': rung for name, rung in zip(names, rungs, strict=True)}
        for loss in naive.loss_names(config):
            needs[f'student/direct {loss}/{seed}'] = naive.student(s, loss, seed, needs[f'labels/{seed}'])
            needs[f'student/bootstrap {loss}/{seed}'] = naive.fit(s, 'student', 'student', loss, seed, rows, targets,
                                                                  f'student bootstrap {loss}')
    return naive.evaluation(s, needs, _rows(s, names))


def climb(s: naive.Setting, seed: int, weak: Phase | Source, targets: Phase | Source, learned: list[np.ndarray]):
    """The rungs of a seed, and the rows and targets that are left for the student.

    Args:
      weak: who answers as the supervisor.  targets: its labels of the whole half.  learned: `slices`.
    """
    rungs = []
    if s.config.method.fresh:
        targets = naive.supervisor_labels(s, seed, weak, learned[0])
    for k in range(len(s.config.method.chain)):
        role = f'rung/{k}'
        rungs.append(naive.fit(s, 'rung', role, s.config.method.chain_loss, seed, learned[k], targets,
                               f'rung {k + 1} {s.models[role].name}'))
        targets = naive.labels(s, role, seed, rungs[-1], learned[k + 1], f'labels of rung {k + 1}')
    return rungs, (learned[-1], targets)


def slices(s: naive.Setting, seed: int) -> list[np.ndarray]:
    """The pool's rows that each rung and then the student learns from: all of the half, or (`fresh`) slices of it."""
    rows, parts = s.halves[seed][1], len(s.config.method.chain) + 1
    if not s.config.method.fresh:
        return [rows] * parts
    group = s.dataset.pool.group
    cut = equal_slices(group[rows], parts, seed, int(np.unique(group, return_counts=True)[1].max()))
    return [rows[part] for part in cut]


def equal_slices(group: np.ndarray, parts: int, seed: int, largest: int) -> list[np.ndarray]:
    """Cuts rows into parts of one size, the same for every seed, whole groups at a time.

    Args:
      group: `[N]` group ids.  largest: an upper bound of a group's size that no seed changes; since whole groups do
        not cut evenly, up to as many rows are left out of each part.
    Returns: sorted indices into `[0, N)`, one array a part. Raises ConfigError where a part would be empty.
    """
    size = len(group) // parts if largest == 1 else int(len(group) / parts - largest)
    if size < 1:
        raise ConfigError(f'method.fresh: a half of {len(group)} examples in groups of up to {largest} cannot be cut '
                          f'into {parts} slices, one for each model of the chain and one for the student')
    rng = np.random.default_rng((seed, 2))
    _, ids = np.unique(group, return_inverse=True)
    sizes = np.bincount(ids)
    order = rng.permutation(len(sizes))
    middle = np.cumsum(sizes[order]) - sizes[order] / 2  # a group goes where its middle falls
    part = np.empty(len(sizes), int)
    part[order] = (middle * parts / len(group)).astype(int)
    return [np.sort(rng.permutation(np.flatnonzero(part[ids] == p))[:size]) for p in range(parts)]


def _rows(s: naive.Setting, names: list[str]) -> list[dict]:
    losses = naive.loss_names(s.config)
    return [*(naive.student_row(s, 'naive', f'direct {loss}', loss) for loss in losses),
            *(naive.student_row(s, 'bootstrap', f'bootstrap {loss}', loss) for loss in losses),
            *(naive.student_row(s, 'bootstrap rung', name, s.config.method.chain_loss, f'rung/{k}')
              for k, name in enumerate(names))]
