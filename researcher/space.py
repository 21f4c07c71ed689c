"""What a driver may choose: a dict of dotted fields, each a list of choices or a range, as JSON.

`{"low": 0, "high": 1}` is a range, with `"log": true` of orders of magnitude, with `"integer": true` of whole numbers.
`{"levels": [1, 3, 10]}` is how much a run costs, cheap first (epochs, seeds): successive halving uses it, all others
take the last level.
"""
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from w2s_jax.api import ConfigError, known

Space = dict[str, Any]
Delta = dict[str, Any]


def check(space: Space) -> None:
    """Raises ConfigError for a space that is none."""
    if not isinstance(space, dict) or not space:
        raise ConfigError(f'space: {space!r}, expected a dict of fields')
    for name, field in space.items():
        whole = (isinstance(field, list) and field) or (isinstance(field, dict) and _range_is_right(field))
        if not whole:
            raise ConfigError(f'{name}: {field!r}, expected a list of choices, {{"low", "high"}} with low < high (and '
                              'low > 0 if log), or {"levels"}')
    if sum(is_levels(f) for f in space.values()) > 1:
        raise ConfigError('space: several fields have levels, expected one')


def check_delta(space: Space, delta: Delta) -> Delta:
    """`delta`, if it has a value of the space for each field. Raises ConfigError."""
    if not isinstance(delta, dict):
        raise ConfigError(f'proposal: {delta!r}, expected an object of fields')
    for name, value in delta.items():
        known('proposal', name, space)
        if not _inside(space[name], value):
            raise ConfigError(f'{name}: {value!r}, expected one of {space[name]}')
    if missing := [n for n in space if n not in delta]:
        raise ConfigError(f'proposal: without {", ".join(missing)}, expected a value for each field')
    return delta


def draw(space: Space, rng: np.random.Generator) -> Delta:
    """Every field on its own, uniform."""
    return decoded(space, rng.random(len(space)))


def decoded(space: Space, point: np.ndarray) -> Delta:
    """The values at a point of the unit cube, [fields]."""
    return {name: _value(field, float(u)) for (name, field), u in zip(space.items(), point, strict=True)}


def encoded(space: Space, delta: Delta) -> np.ndarray:
    """The point of the unit cube, [fields]; a choice is the middle of its share of the axis."""
    return np.asarray([_unit(field, delta[name]) for name, field in space.items()])


def grid(space: Space, points: int) -> Iterator[Delta]:
    """All choices and `points` values of each range, combined."""
    axes = [(np.arange(k) + .5) / k for f in space.values() for k in [_size(f, points)]]
    return (decoded(space, np.asarray(point)) for point in itertools.product(*axes))


def is_levels(field) -> bool:
    return isinstance(field, dict) and 'levels' in field


def cost(space: Space, delta: Delta) -> float:
    """Of a run, in runs at the last level."""
    shares = [delta[name] / field['levels'][-1] for name, field in space.items() if is_levels(field)]
    return math.prod(map(float, shares))


def _range_is_right(field: dict) -> bool:
    if 'levels' in field:
        levels = field['levels']
        return bool(levels) and all(a < b for a, b in itertools.pairwise([0, *levels]))
    low, high = ends = [field.get(k, math.nan) for k in ('low', 'high')]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in ends)
    known_keys = {*field} <= {'low', 'high', 'log', 'integer'}
    return known_keys and numbers and low < high and (low > 0 or not field.get('log'))


def _size(field, points: int) -> int:
    return len(field) if isinstance(field, list) else 1 if is_levels(field) else points


def _inside(field, value) -> bool:
    if isinstance(field, list):
        return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in field)
    if is_levels(field):
        return value in field['levels']
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and field['low'] <= value <= field['high'] and (not field.get('integer') or value == int(value))


def _value(field, u: float):
    u = min(max(u, 0.), 1.)
    if isinstance(field, list):
        return field[min(int(u * len(field)), len(field) - 1)]
    if is_levels(field):
        return field['levels'][-1]
    low, high = field['low'], field['high']
    if field.get('integer'):
        low, high = low - .5, high + .499
    low = max(low, 1e-12) if field.get('log') else low
    value = low * (high / low) ** u if field.get('log') else low + (high - low) * u
    return int(min(max(round(value), field['low']), field['high'])) if field.get('integer') else \
        float(min(max(value, field['low']), field['high']))


def _unit(field, value) -> float:
    if isinstance(field, list):
        return (field.index(value) + .5) / len(field)
    if is_levels(field):
        return .5
    low, high = field['low'], field['high']
    return math.log(value / low) / math.log(high / low) if field.get('log') else (value - low) / (high - low)
