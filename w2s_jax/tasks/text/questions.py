"""Multiple choice: a column of right answers -> the place of the right option, read in one way for all rows."""
import collections
import functools
import re
import string
from collections.abc import Callable
from typing import NamedTuple

from w2s_jax.errors import DataError
from w2s_jax.tasks.text import cells, formats, statements, tables
from w2s_jax.tasks.text.statements import Statement
from w2s_jax.tasks.text.tables import Table

LETTER = re.compile(r'\(?([A-Za-z])[).:]?')
APART = .9  # the share of rows whose answer is none of their options, from which the options are all wrong ones


def by_text(answer, options: list[str]) -> int | None:
    """The place of the option with this text; of more than a letter, whatever its case and spaces."""
    written = str(answer).strip()
    if written in options or len(written) < 2:
        return options.index(written) if written in options else None
    alike = [statements.normal(o) for o in options]
    return alike.index(statements.normal(written)) if statements.normal(written) in alike else None


def by_letter(answer, options: list[str]) -> int | None:
    """A = 0, b = 1, (C) = 2 ..."""
    found = LETTER.fullmatch(str(answer).strip())
    place = string.ascii_uppercase.index(found[1].upper()) if found else len(options)
    return place if place < len(options) else None


def by_index(answer, options: list[str], first: int = 0) -> int | None:
    """From 0, or from `first`."""
    number = cells.as_number(answer)
    if number is None or not number.is_integer() or not first <= number < first + len(options):
        return None
    return int(number) - first


by_place = functools.partial(by_index, first=1)


class Way(NamedTuple):
    """A way to read an answer. name: of what the answer then is.  place: (answer, options) -> the right one's place, or
    None; of the last way nothing, as the answer is none of the options.  said: for the notes."""
    name: str
    place: Callable[[object, list[str]], int | None] | None
    said: str


WAYS = (Way('text', by_text, "the right option's text"), Way('letter', by_letter, "the right option's letter"),
        Way('index', by_index, "the right option's index, from 0"),
        Way('number', by_place, "the right option's number, from 1: more rows can be read so than from 0"))
ALONE = Way('answer', None, 'the right answer itself, and the options are wrong ones')


def read(parts: list[Table], columns: list[str], answer: str) -> Way:
    """How the answer column is meant, by what fits most rows: one way for all of them.

    Raises DataError where two ways fit equally and disagree.
    """
    fits = collections.Counter[str]()
    differ: dict[tuple[str, str], str] = {}
    for table, i, row in tables.numbered(parts):
        try:
            options = cells.options(row, columns, fewest=1)
        except ValueError:
            continue
        places = {w.name: p for w in WAYS if w.place and (p := w.place(row.get(answer), options)) is not None}
        fits.update(list(places))
        fits['rows'] += 1
        fits[ALONE.name] += not places and isinstance(row.get(answer), str) and not cells.missing(row.get(answer))
        for a in places:
            for b in places:
                if places[a] != places[b]:
                    differ.setdefault((a, b), f'{table.source}: {table.where(i)}: {answer} {row.get(answer)!r}')
    if fits[ALONE.name] >= APART * max(fits['rows'], 1):
        return ALONE
    ways = [w for w in WAYS if w.name != 'number' or fits['number'] > fits['index']]
    best = max(ways, key=lambda way: fits[way.name])
    for (a, b), where in differ.items():
        if a == best.name and fits[a] == fits[b] and b in {w.name for w in ways}:
            raise DataError(f'{where} is the {a} of one option and the {b} of another, expected an answer column that '
                            'can be read in one way only')
    return best


def candidates(row: dict, columns: list[str], answer: str, way: Way) -> tuple[list[str], int]:
    """A row's options and the place of the right one. Raises ValueError where there are none."""
    if way.place is None:
        return [cells.shown(row, answer), *cells.options(row, columns, fewest=1)], 0
    options = cells.options(row, columns)
    place = way.place(row.get(answer), options)
    if place is None:
        first, last = int(way.name == 'number'), len(options) - 1
        raise ValueError(f'{answer} {row.get(answer)!r}, expected the {way.name} of an option as in most rows '
                         f'({first} to {last + first}, A to {string.ascii_uppercase[min(last, 25)]} or its text)')
    return options, place


def statement(row: dict, task, template: str, columns: list[str], way: Way) -> Statement:
    """A row as a statement: the question and one candidate answer. Raises ValueError where it cannot be used."""
    shown = cells.shown(row, task.question)
    options, right = candidates(row, columns, task.answer, way)
    answer, truth = formats.draw(options, right, statements.random_of(task.seed, row))
    values = {n: cells.shown(row, n) for n in statements.fields_of(template) if n != 'answer'}
    filled = functools.partial(statements.answered, template, values)
    whole = functools.partial(formats.whole, options, right, filled) if task.questions else None
    return Statement((filled(answer),), truth, cells.group(row, task.group, shown), whole=whole)
