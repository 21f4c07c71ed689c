"""How right weak labels were before transforms and are after; for the evaluation, which alone has the truth for it."""
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from w2s_jax import metrics

FEW = 20  # classes whose shares are told


def labels_of(needs: Mapping, name: str, seed) -> tuple[np.ndarray, np.ndarray]:
    """The classes `[n]` of labels that a need has, and of which rows `[n]` of the pool; a transform may drop rows."""
    need, rows = needs[f'{name}/{seed}'], needs.get(f'{name}_rows/{seed}')
    labels = need.arrays['labels'] if hasattr(need, 'arrays') else need
    return labels if labels.ndim == 1 else labels.argmax(-1), need.arrays['rows'] if rows is None else rows


def transformed(needs: Mapping, seeds, names: Sequence[str] = ()) -> dict:
    """What transforms did to the weak labels, over seeds; a number that some seed does not have (nothing dropped) is
    None.

    names: the transforms, in order.
    Returns: {'transformed': {'before': how right all labels were, 'rows': the share that was kept, 'kept' and
      'dropped': how right the labels of such rows were, 'relabelled': the share of kept rows whose answer is another,
      'relabelled_before' and 'relabelled_after': how right their labels were and are, 'classes_before' and
      'classes_after': the shares of classes, of few classes; 'steps': the same of each transform by itself, with its
      'name'}}; {} without transforms.
    """
    if f'labels_before/{seeds[0]}' not in needs:
        return {}
    places = ['labels_before', *(f'labels_after/{name}' for name in names)]
    steps = [{'name': name, **_changed(needs, seeds, *pair)}
             for name, pair in zip(names, itertools.pairwise(places), strict=True)]
    return {'transformed': _changed(needs, seeds, 'labels_before', 'labels') | {'steps': steps}}


def _changed(needs: Mapping, seeds, before: str, after: str) -> dict:
    """Labels of one name against those of another, over seeds."""
    truth = needs['labels_truth']
    pairs = [[labels_of(needs, name, seed) for name in (before, after)] for seed in seeds]
    found = [_of_seed(truth, *pair) for pair in pairs]
    values = {k: [one[k] for one in found] for k in found[0]}
    return {k: None if None in v else metrics.summarise(v) for k, v in values.items()} | _classes(pairs)


def _of_seed(truth: np.ndarray, old: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray]
             ) -> dict[str, float | None]:
    """Classes `[n]` and rows `[n]` of the pool, before and after."""
    (before, rows), (after, kept) = old, new
    place = {row: i for i, row in enumerate(rows.tolist())}
    at = np.array([place[row] for row in kept.tolist()])
    dropped = np.delete(np.arange(len(rows)), at)
    moved = before[at] != after

    def right(answers, of):
        return metrics.accuracy(answers, truth[of]) if len(of) else None
    return {'before': right(before, rows), 'rows': len(kept) / len(rows), 'kept': right(before[at], kept),
            'dropped': right(before[dropped], rows[dropped]), 'relabelled': float(moved.mean()),
            'relabelled_before': right(before[at][moved], kept[moved]),
            'relabelled_after': right(after[moved], kept[moved])}


def _classes(pairs: list) -> dict[str, list]:
    """The shares of the classes before and after, each a summary over seeds; {} of more than FEW."""
    number = 1 + max(int(classes.max()) for pair in pairs for classes, _ in pair)
    if number > FEW:
        return {}
    shares = [[np.bincount(classes, minlength=number) / len(classes) for classes, _ in pair] for pair in pairs]
    return {f'classes_{name}': [metrics.summarise(v) for v in np.stack([pair[i] for pair in shares]).T.tolist()]
            for i, name in enumerate(('before', 'after'))}
