"""Bootstrapping (arXiv 2312.09390, section 4.3.1) and self-distillation: a chain of models up to the student.

The supervisor labels for the first model of the chain, that one for the second, and so on; the last of the
chain labels for the student. Beside it stands the direct student, who learns the weak labels themselves. A chain
of one model, the student's own, is self-distillation.

Rungs are phases like others: they are shared by all losses of the student, by chains that begin alike, and by the
cells of a grid. Only the teacher and the ceiling see truth.
"""
import numpy as np

from w2s_jax import objectives
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Rows
from w2s_jax.methods.parts import Labels, Parts
from w2s_jax.methods.registry import METHODS
from w2s_jax.registry import Setting


def models(settings) -> dict[str, str]:
    """The models of the chain by role, with the settings of the student."""
    if not settings.chain:
        raise ConfigError('method.chain: (), expected one or more models between the supervisor and the student')
    objectives.entry(settings.chain_loss, 'method.chain_loss')
    return {f'chain/{k}': name for k, name in enumerate(settings.chain)}


@METHODS.register('bootstrap', models=models,
                  chain=Setting((), doc='the models between teacher and student, each taught by the one before'),
                  chain_loss=Setting('xent', doc='of these; otherwise they are trained as the student is'),
                  fresh=Setting(False, doc="whether each of them, and then the student, learns a slice of its own of "
                                           "the student's half"))
def bootstrap(b: Parts) -> None:
    """A chain of models of growing size, each taught by the one before, beside the direct student."""
    names = [f'rung {k + 1}: {name}' for k, name in enumerate(b.settings.chain)]
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        b.ceiling(b.fit('ceiling', b.student, b.halves[seed].student, b.truth))
        rungs, rest, last = climb(b, weak, labels, slices(b, seed))
        for loss in b.losses:
            direct = b.fit('student', b.student, b.halves[seed].student, labels, loss)
            b.students([direct], method='naive', label=f'direct {loss}')
        for loss in b.losses:
            b.students([b.fit('student', b.student, rest, last, loss, label=f'student bootstrap {loss}')],
                       label=f'bootstrap {loss}', supervisor=names[-1])
        for name, rung, before in zip(names, rungs, ['', *names], strict=False):
            b.students([rung], method='bootstrap rung', label=name, supervisor=before)


def climb(b: Parts, weak, labels: Labels, learned: list[Rows]):
    """The rungs of a seed, and the rows and labels that are left for the student.

    Args:
      weak: who answers as the supervisor.  labels: of the whole half.  learned: `slices`.
    """
    rungs = []
    if b.settings.fresh:
        labels = b.supervisor_labels(weak, learned[0])
    for k in range(len(b.settings.chain)):
        model = b.models[f'chain/{k}']
        label = f'rung {k + 1} {model.name}'
        rungs.append(b.fit('rung', model, learned[k], labels, b.settings.chain_loss, label=label))
        labels = b.label(rungs[-1], learned[k + 1], name=f'labels of rung {k + 1}')
    return rungs, learned[-1], labels


def slices(b: Parts, seed: int) -> list[Rows]:
    """The pool's rows that each rung and then the student learns from: all of the half, or (`fresh`) slices of it."""
    rows, parts = b.halves[seed].student, len(b.settings.chain) + 1
    if not b.settings.fresh:
        return [rows] * parts
    group = b.dataset.pool.group
    cut = equal_slices(group[rows.index], parts, seed, int(np.unique(group, return_counts=True)[1].max()))
    return [Rows(seed, rows.index[part]) for part in cut]


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


