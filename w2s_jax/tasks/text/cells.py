"""Cells of a user's table -> texts, numbers, lists and groups. All raise ValueError, in words for the user."""
import ast
import collections
import json
import math

from w2s_jax.tasks.text import statements
from w2s_jax.tasks.text.tables import Table


def columns(value: str, parts: list[Table]) -> list[str]:
    """The columns that a field names: one, or several as 'a,b,c' or "('a', 'b', 'c')"."""
    if all(value in t.columns for t in parts):
        return [value]
    written = as_list(value)
    names = written if written and all(isinstance(n, str) for n in written) else value.strip('()').split(',')
    return [n.strip() for n in names if n.strip()]


def missing(value) -> bool:
    """Whether a cell is empty: null, NaN, or a text of nothing but spaces."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def as_list(value) -> list | None:
    """The list in a cell: a list, or a text of one in JSON's or Python's spelling; None for anything else."""
    if not isinstance(value, str):
        return value if isinstance(value, list) else None
    text = value.strip()
    if text[:1] + text[-1:] not in ('[]', '()'):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | tuple):
            return list(found)
    return None


def as_number(value) -> float | None:
    """The finite number in a cell, or a text of one; None for anything else, bools and '1_000' among it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or '_' in str(value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def number(row: dict, column: str) -> float:
    """The finite number in a cell. Raises ValueError for anything else."""
    found = as_number(row.get(column))
    if found is None:
        raise ValueError(f'{column} is {str(row.get(column))[:40]!r}, expected a number')
    return found


def shown(row: dict, column: str) -> str:
    """A text, or a number as one. Raises ValueError for an empty cell and for a list of texts."""
    value = row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    text = statements.text_of(row, column)
    if text.startswith('[') and any(isinstance(part, str) for part in as_list(text) or ()):
        raise ValueError(f'{column} holds a list, {text[:40]!r}, expected one text')
    return text


def joined(row: dict, names: list[str]) -> str:
    """The texts of several columns with blank lines between them; empty cells are left out. Raises ValueError if all
    are empty."""
    there = [n for n in names if not missing(row.get(n))] or names[:1]
    return '\n\n'.join(shown(row, n) for n in there)


def group(row: dict, column: str, otherwise: str) -> int:
    """The group of a row: that of its cell in `column`, or ('') of its text."""
    if not column:
        return statements.group_id(statements.normal(otherwise))
    if missing(row.get(column)):
        raise ValueError(f'{column} is missing, expected the group')
    return statements.group_id(str(row[column]))


def options(row: dict, names: list[str], fewest: int = 2) -> list[str]:
    """The candidate answers of a row: of a list, in a cell or in JSON, or of several columns, of which the last may be
    empty. Raises ValueError unless they are `fewest` or more different texts."""
    value = [row.get(n) for n in names] if len(names) > 1 else as_list(row.get(names[0]))
    while len(names) > 1 and value and missing(value[-1]):
        value.pop()
    if value is None and isinstance(row.get(names[0]), str):
        raise ValueError(f'{names[0]} {row[names[0]][:40]!r}, expected a JSON list of options')
    if value is None or len(value) < fewest:
        raise ValueError(f'options {str(row.get(names[0]) if value is None else value)[:40]!r}, expected a list of '
                         f'{("one", "two")[fewest - 1]} or more texts')
    found = [str(v) if isinstance(v, int | float) and v == v else statements.text_of({'options': v}, 'options')
             for v in value]
    twice = [o for o, n in collections.Counter(map(statements.normal, found)).items() if n > 1]
    if twice:
        raise ValueError(f'option {twice[0]!r} is there twice')
    return found
