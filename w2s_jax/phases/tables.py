"""Kinds `transform` and `table`: registered functions of columns to columns, labels and texts among them."""
import pathlib
import time

import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.graph import Phase
from w2s_jax.labels.changes import FEW
from w2s_jax.labels.texts import TABLES
from w2s_jax.labels.transforms import TRANSFORMS
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.registry import Settings

GONE = .05  # of the rows: a class that had as many may not vanish; rare ones may


def transform(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Labels after a transform, and the rows that are left."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, section = time.perf_counter(), phase.section
        before, rows = common.labels(needs['labels']), common.rows({'rows': needs.get('rows', needs['labels'])})
        if before.ndim == 1:
            before = np.eye(section['num_classes'], dtype=np.float32)[before]
        features = common.arrays(needs['features'])['features'][rows] if 'features' in needs else None
        labels, keep = _transformed(section, before, features)
        context.say(f'{phase.label}: seed {phase.seed}: {said(before, labels[keep])}')
        out.append(({'seconds': time.perf_counter() - began, 'rows': len(rows), 'dropped': int((~keep).sum()),
                     **_shares(before, labels[keep])}, {'labels': labels[keep], 'rows': rows[keep]}, None))
    return out


def _transformed(section: dict, before: np.ndarray, features: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[n, K]` and keep `[n]`, as a section's transform makes them. Raises DataError, naming it, unless they are
    that and leave something to learn."""
    name, settings = section['transform']['name'], settings_of(section, 'transform')
    try:
        labels, keep = TRANSFORMS[name].fn(before, features, settings, rng_of(section))
    except DataError as e:
        raise DataError(f'labels.{name}.{e}') from None
    keep = np.ones(len(before), bool) if keep is None else np.asarray(keep)
    if keep.shape != before.shape[:1] or keep.dtype != bool or labels.shape != before.shape:
        raise DataError(f'transform {name!r}: labels {labels.shape} and keep {keep.shape} {keep.dtype}, '
                        f'expected {before.shape} and {before.shape[:1]} bool')
    said = ', '.join(f'{k}={v}' for k, v in settings.items()) or 'no settings'
    if not keep.any():
        raise DataError(f'transform {name!r}: keeps none of {len(keep)} rows, expected some (labels.{name}: {said})')
    counts, left = _counts(before), _counts(labels[keep])
    for one in np.flatnonzero((counts >= GONE * len(before)) & (left == 0)):
        raise DataError(f'transform {name!r}: of the {counts[one]} rows of class {one} none is left, expected some '
                        f'(labels.{name}: {said})')
    return labels.astype(np.float32), keep


def _counts(labels: np.ndarray) -> np.ndarray:
    """`[K]`: how many rows of labels `[n, K]` are of each class."""
    return np.bincount(labels.argmax(-1), minlength=labels.shape[1])


def _shares(before: np.ndarray, after: np.ndarray) -> dict:
    """The shares of classes before and after; nothing of many classes."""
    few = before.shape[1] <= FEW
    return {'shares': {'before': (_counts(before) / len(before)).tolist(),
                       'after': (_counts(after) / len(after)).tolist()}} if few else {}


def said(before: np.ndarray, after: np.ndarray) -> str:
    """What a transform did to labels `[n, K]` and left of them `[m, K]`, as a line for people."""
    found = _shares(before, after).get('shares')
    told = ', '.join(f'{100 * a:.1f} -> {100 * b:.1f}' for a, b in zip(found['before'], found['after'], strict=True)
                     ) if found else ''
    return f'{len(after)} of {len(before)} rows kept' + (f'; classes per cent {told}' if told else '')


def table(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """The columns that a registered function makes of all columns that it needs; of several needs as NEED/COLUMN."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, entry = time.perf_counter(), TABLES[phase.section['table']['name']]
        columns = {k if len(needs) == 1 else f'{name}/{k}': v for name, need in needs.items()
                   for k, v in named(need).items()}
        found = entry.fn(columns, settings_of(phase.section, 'table'), rng_of(phase.section))
        out.append(({'seconds': time.perf_counter() - began, 'rows': len(next(iter(found.values())))}, found, None))
    return out


def named(need) -> dict:
    """A need as columns."""
    found = common.arrays(need)
    return found if isinstance(found, dict) else {'values': found}


def settings_of(section: dict, part: str) -> Settings:
    """The static and traced settings of what a section names."""
    return Settings({**{k: v for k, v in section[part].items() if k not in ('name', 'version')},
                     **{k: v for k, v in section['hyper'].items() if k != 'seed'}})


def rng_of(section: dict) -> np.random.Generator:
    """Random numbers of a run's seed and of what the section names."""
    return np.random.default_rng((section['hyper']['seed'], 3))
