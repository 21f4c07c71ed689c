"""Kinds `transform` and `table`: registered functions of columns to columns, labels and texts among them."""
import pathlib
import time

import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.graph import Phase
from w2s_jax.labels.transforms import TRANSFORMS
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.registry import Registry, Settings

TABLES = Registry('table', traces=True)  # fn(columns, settings, rng) -> columns: name -> array `[N, ...]`, or texts


def transform(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Labels after a transform, and the rows that are left."""
    out = []
    for phase, needs in zip(phases, inputs, strict=True):
        began, section = time.perf_counter(), phase.section
        labels, rows = common.labels(needs['labels']), common.rows({'rows': needs.get('rows', needs['labels'])})
        if labels.ndim == 1:
            labels = np.eye(section['num_classes'], dtype=np.float32)[labels]
        features = common.arrays(needs['features'])['features'][rows] if 'features' in needs else None
        entry = TRANSFORMS[section['transform']['name']]
        labels, keep = entry.fn(labels, features, settings_of(section, 'transform'), rng_of(section))
        keep = np.ones(len(rows), bool) if keep is None else np.asarray(keep)
        if keep.shape != rows.shape or keep.dtype != bool or labels.shape != (len(rows), section['num_classes']):
            raise DataError(f'transform {entry.name!r}: labels {labels.shape} and keep {keep.shape} {keep.dtype}, '
                            f'expected {(len(rows), section["num_classes"])} and {rows.shape} bool')
        if not keep.any():
            raise DataError(f'transform {entry.name!r}: keeps none of {len(rows)} rows, expected some')
        found = {'labels': labels[keep].astype(np.float32), 'rows': rows[keep]}
        out.append(({'seconds': time.perf_counter() - began, 'rows': len(rows), 'dropped': int((~keep).sum())}, found,
                    None))
    return out


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
