"""Sweeps: lists of overrides of a config, one dict of dotted fields a cell, and the algebra that makes them.

  product(values('teacher.model', ['chess-xs', 'chess-s']), values('student.learning_rate', [1e-4, 3e-4]))
"""
import itertools
import json
import re
from collections.abc import Iterable
from typing import Any

import ml_collections

from w2s_jax import config as configs
from w2s_jax.errors import ConfigError
from w2s_jax.text import plain

Sweep = list[dict[str, Any]]


def values(field: str, options: Iterable) -> Sweep:
    """A cell for each value of a dotted field."""
    if not isinstance(field, str) or not isinstance(options, Iterable) or isinstance(options, str | bytes | dict):
        raise ConfigError(f'sweep: {field}: {options!r}, expected a dotted field and a list of values')
    return [{field: option} for option in options]


def product(*sweeps: Iterable[dict]) -> Sweep:
    """A cell for each combination of a cell of every sweep; the last varies fastest. Raises ConfigError."""
    return [_merged(cells) for cells in itertools.product(*map(cells_of, sweeps))]


def zipped(*sweeps: Iterable[dict]) -> Sweep:
    """The first cells of all sweeps together, the second ones, and so on. Raises ConfigError unless equally long."""
    lists = [cells_of(sweep) for sweep in sweeps]
    if len({len(s) for s in lists}) > 1:
        raise ConfigError(f'sweep: zipped sweeps have {", ".join(str(len(s)) for s in lists)} cells, expected as many')
    return [_merged(cells) for cells in zip(*lists, strict=True)]


def chain(*sweeps: Iterable[dict]) -> Sweep:
    """The cells of one sweep after those of another."""
    return [dict(cell) for sweep in sweeps for cell in cells_of(sweep)]


def cells_of(sweep: Any) -> Sweep:
    """A sweep as a list, whatever gives its cells one by one. Raises ConfigError unless they are dicts of fields."""
    cells = list(sweep) if isinstance(sweep, Iterable) and not isinstance(sweep, str | bytes | dict) else None
    if cells is None or not all(isinstance(c, dict) and all(isinstance(k, str) for k in c) for c in cells):
        raise ConfigError(f'sweep: {str(sweep)[:60]}, expected a list of dicts of dotted fields, one dict a cell')
    return cells


def _merged(cells: Iterable[dict]) -> dict:
    out: dict = {}
    for cell in cells:
        if twice := sorted(out.keys() & cell.keys()):
            raise ConfigError(f'sweep: {twice[0]} is set twice, by sweeps that are combined')
        out |= cell
    return out


def traced(config, field: str) -> bool:
    """Whether runs that differ in this field can train in one program; those of a static one are compiled apart."""
    found = configs.settings(config).get(field)
    return found is not None and found.traced


def apply(config, overrides: dict) -> ml_collections.ConfigDict:
    """A copy of a config with overrides: first those that name something, which bring fields of their own. Raises
    ConfigError for a field that is not there (with the nearest names), one that decides how and not what is computed,
    or a value of another type."""
    out = ml_collections.ConfigDict(configs.compose(config).copy_and_resolve_references())
    for field in sorted(overrides, key=lambda f: not configs.naming(f)):
        out = configs.compose(out)
        configs.check_name(field, out)
        value = overrides[field]
        if not configs.decides(out, field):
            raise ConfigError(f'sweep: {field} does not change results, expected it in the config and not in the sweep')
        try:
            out.update_from_flattened_dict({field: tuple(value) if isinstance(value, list) else value})
        except (TypeError, ValueError, KeyError, AttributeError) as e:
            raise ConfigError(f'sweep: {field}: {value!r} ({" ".join(str(e).split())})') from None
    return configs.compose(out)


def check(sweep: Any) -> Sweep:
    """The sweep as JSON would give it back. Raises ConfigError unless it is a list of different dicts of overrides."""
    cells = [{k: _json(k, v) for k, v in cell.items()} for cell in cells_of(sweep)]
    if not cells:
        raise ConfigError('sweep: empty, expected a list of dicts of dotted fields, one dict a cell')
    for i, cell in enumerate(cells):
        if cell in cells[:i]:
            raise ConfigError(f'sweep: cell {i} repeats cell {cells.index(cell)} ({cell})')
    return cells


def _json(field: str, value: Any) -> Any:
    """A value as JSON would give it back. Raises ConfigError for what JSON has not."""
    try:
        return json.loads(json.dumps(plain(value)))
    except (TypeError, ValueError, RecursionError):
        raise ConfigError(f'sweep: {field}: {str(value)[:60]!r}, expected a number, a text, a switch or a tuple of '
                          'them') from None


def axes(sweep: Sweep) -> dict[str, list]:
    """The swept fields, each with its different values in their order."""
    out: dict[str, list] = {}
    for cell in sweep:
        for field, value in cell.items():
            if value not in out.setdefault(field, []):
                out[field].append(value)
    return out


def names(sweep: Sweep) -> list[str]:
    """A folder's name for each cell: its number and what it has of its own."""
    varying = [field for field, options in axes(sweep).items() if len(options) > 1]
    words = ['-'.join(_word(cell[f]) for f in varying if f in cell) for cell in sweep]
    return [f'{i:03}-{w}'[:80].rstrip('-.') for i, w in enumerate(words)]


def _word(value) -> str:
    text = f'{value:g}' if isinstance(value, float) else str(value)
    return re.sub(r'[^A-Za-z0-9.]+', '-', text.rstrip('/').rpartition('/')[2]).strip('-.')
