"""How right weak labels were before transforms and are after; for the evaluation, which alone has the truth for it."""
from collections.abc import Mapping

import numpy as np

from w2s_jax import metrics


def labels_of(needs: Mapping, name: str, seed) -> tuple[np.ndarray, np.ndarray]:
    """The classes `[n]` of labels that a need has, and of which rows `[n]` of the pool; a transform may drop rows."""
    need, rows = needs[f'{name}/{seed}'], needs.get(f'{name}_rows/{seed}')
    labels = need.arrays['labels'] if hasattr(need, 'arrays') else need
    return labels if labels.ndim == 1 else labels.argmax(-1), need.arrays['rows'] if rows is None else rows


def transformed(needs: Mapping, seeds) -> dict:
    """What transforms did to the weak labels, over seeds; a number that some seed does not have (nothing dropped) is
    None.

    Returns: {'transformed': {'before': how right all labels were, 'rows': the share that was kept, 'kept' and
      'dropped': how right the labels of such rows were, 'relabelled': the share of kept rows whose answer is another,
      'relabelled_before' and 'relabelled_after': how right their labels were and are}}; {} without transforms.
    """
    if f'labels_before/{seeds[0]}' not in needs:
        return {}
    found = [_transformed(needs, seed) for seed in seeds]
    values = {k: [one[k] for one in found] for k in found[0]}
    return {'transformed': {k: None if None in v else metrics.summarise(v) for k, v in values.items()}}


def _transformed(needs: Mapping, seed) -> dict[str, float | None]:
    (before, rows), (after, kept) = (labels_of(needs, name, seed) for name in ('labels_before', 'labels'))
    place = {row: i for i, row in enumerate(rows.tolist())}
    at = np.array([place[row] for row in kept.tolist()])
    dropped, truth = np.delete(np.arange(len(rows)), at), needs['labels_truth']
    moved = before[at] != after

    def right(answers, of):
        return metrics.accuracy(answers, truth[of]) if len(of) else None
    return {'before': right(before, rows), 'rows': len(kept) / len(rows), 'kept': right(before[at], kept),
            'dropped': right(before[dropped], rows[dropped]), 'relabelled': float(moved.mean()),
            'relabelled_before': right(before[at][moved], kept[moved]),
            'relabelled_after': right(after[moved], kept[moved])}
