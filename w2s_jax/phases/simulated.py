"""Kind `simulate_errors`: labels made from truth, with as many errors as the weak labels have, on other rows."""
import pathlib
import time

import numpy as np

from w2s_jax.graph import Phase
from w2s_jax.labels import errors
from w2s_jax.phases import context as common
from w2s_jax.phases import tables
from w2s_jax.phases.context import Context


def run(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Hard labels of the rows that weak labels are of. It sees the truth of the pool: what learns from it is an oracle.
    """
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, section = time.perf_counter(), phase.section
        weak, rows, at = weak_labels(needs)
        truth = needs['truth'][rows]
        wrong, columns = int((weak != truth).sum()), columns_of(needs, rows, at)
        labels = errors.simulated(section['structure']['name'], truth, wrong, section['num_classes'], columns,
                                  tables.rng_of(section))
        out.append(({'seconds': time.perf_counter() - began, 'rows': len(rows), 'wrong': wrong,
                     'accuracy': float((labels == truth).mean())}, {'labels': labels, 'rows': rows}, None))
    return out


def weak_labels(needs: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weak labels as classes `[n]`, of which rows of the pool, and where these stand among all that were labelled;
    a transform may have dropped some."""
    labels, every = common.labels(needs['labels']), needs['rows']
    rows = getattr(needs['labels'], 'arrays', {}).get('rows', every)
    order = np.argsort(every, kind='stable')
    at = order[np.searchsorted(every, rows, sorter=order)]
    return labels if labels.ndim == 1 else labels.argmax(-1), rows, at


def columns_of(needs: dict, rows: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
    """What the structure needs of rows of the pool, which stand at `at` among those that the ceiling answered."""
    found = {}
    if 'inputs' in needs:
        texts = common.arrays(needs['inputs'])['text']
        found['length'] = np.array([sum(map(len, texts[int(row)])) for row in rows])
    if 'ceiling' in needs:
        found['ceiling'] = common.labels(needs['ceiling'])[at]
    return found
