"""What diagnostics say of every seed, as the measures and series of results.json."""
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from w2s_jax import metrics
from w2s_jax.diagnostics.registry import DIAGNOSTICS, Note, Predictions, Series
from w2s_jax.registry import Settings


def diagnosed(chosen: list[dict], student: Sequence[Predictions], weak: Sequence[Predictions] | None,
              ceiling: Sequence[Predictions], truth: np.ndarray, row: dict | None = None,
              reference: Sequence[Predictions] | None = None) -> dict[str, dict]:
    """{'measures', 'series'}: name -> summary over seeds, without what some seed does not define (None); nothing on a
    test set without a weak model's answers. 'notes', if there are any: name -> text.

    chosen: the identities of diagnostics.  student, weak, ceiling: one a seed.  truth: `[N]`.  row: what
    results.json says of the student.  reference: of the first student, for those diagnostics that compare with it.
    """
    found: dict[str, dict] = {'measures': {}, 'series': {}}
    for identity in chosen if weak else ():
        settings = Settings({k: v for k, v in identity.items() if k not in ('name', 'version')})
        entry = DIAGNOSTICS[identity['name']]
        each = asked(entry.options, student, weak or (), ceiling, reference or student)
        more = {'row': row or {}} if entry.options.get('rows') else {}
        seeds = [entry.fn(*three, truth, settings, **more, **also) for three, also in each]
        for name in seeds[0]:
            values = [s.get(name) for s in seeds]
            if any(v is None for v in values):
                continue
            if isinstance(values[0], Note):
                found.setdefault('notes', {})[name] = values[0].text
            elif isinstance(values[0], Series):
                found['series'] |= {name: made} if (made := series(values)) else {}
            else:
                found['measures'] |= {name: made} if (made := measure(name, values)) else {}
    return found


def asked(options: Mapping, student, weak, ceiling, reference) -> list[tuple[tuple, dict]]:
    """(student, weak, ceiling) and what is given by name, that a diagnostic is asked with: of each seed, or of all."""
    each = [((student, weak, ceiling), reference)] if options.get('over_seeds') else [
        ((s, w, c), r) for s, w, c, r in zip(student, weak, ceiling, reference, strict=True)]
    return [(three, {'reference': first} if options.get('reference') else {}) for three, first in each]


def direct(chosen: list[dict], student: Sequence[Predictions], supervisor: Sequence[Predictions],
           ceiling: Sequence[Predictions], truth: np.ndarray) -> dict[str, dict]:
    """The measures, as NAME_direct, of those diagnostics that compare a student with its supervisor, where that is
    another student."""
    compare = [identity for identity in chosen if DIAGNOSTICS[identity['name']].options.get('supervisors')]
    found = diagnosed(compare, student, supervisor, ceiling, truth)['measures']
    return {f'{name}_direct': m | {'title': f'{m["title"]}, by its direct supervisor'} for name, m in found.items()}


def measure(name: str, values: list) -> dict[str, Any] | None:
    """A number of each seed, or (number, title, factor, digits), with mean, standard error and interval; None where
    some seed has none."""
    rows = [v if isinstance(v, tuple) else (v, name, 1, 3) for v in values]
    if any(row[0] is None for row in rows):
        return None
    numbers = [float(row[0]) for row in rows]
    return {'title': rows[0][1], 'factor': rows[0][2], 'digits': rows[0][3], **metrics.summarise(numbers),
            **metrics.seeds_interval(numbers)}


def series(values: list[Series]) -> dict[str, Any] | None:
    """The mean of x, and of y with its standard error, point by point over the seeds that have it; None where seeds
    have different numbers of points."""
    if len({len(v.x) for v in values}) > 1:
        return None
    x, y = (np.array([getattr(v, axis) for v in values], np.float64) for axis in 'xy')
    there = np.isfinite(y).sum(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # points that no seed has are NaN
        mean_x, mean_y = np.nanmean(x, 0), np.nanmean(y, 0)
        sem = np.nanstd(y, 0, ddof=1) / np.sqrt(there)
    first = values[0]
    return {'line': first.line, 'figure': first.figure, 'axes': list(first.axes), 'diagonal': first.diagonal,
            **{k: [float(v) if np.isfinite(v) else None for v in found]
               for k, found in (('x', mean_x), ('y', mean_y), ('sem', sem))}}
