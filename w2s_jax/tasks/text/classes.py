"""A column of labels -> classes, and a column of weak labels -> probabilities.

A column is read in one way from its first row to its last: as classes (words or integers), as probabilities of the
second of two classes (numbers in [0, 1], one at least strictly inside), or as lists of K probabilities.
"""
import collections
import dataclasses
import re
from collections.abc import Iterator

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks.text import cells, tables
from w2s_jax.tasks.text.tables import Table

MOST_CLASSES = 100
SLACK = .02  # by which the sum of K probabilities may miss 1
INTEGER = re.compile(r'[-+]?\d+')


@dataclasses.dataclass(frozen=True)
class Labels:
    """How a column of labels is read.

    kind: 'class', 'probability' (of class 1 of two) or 'list' (of the probabilities of all).  names: of the classes in
    order, as a column writes them.  aliases: other names of them that a column may write.
    """
    column: str
    kind: str
    names: tuple[str, ...]
    aliases: tuple[str, ...] = ()

    def probabilities(self, value) -> tuple[float, ...]:
        """What a cell says of each class, `[K]`. Raises ValueError where it cannot be read."""
        if self.kind == 'class':
            return self._certain(value)
        if self.kind == 'probability':
            second = cells.as_number(value)
            if second is None or not 0 <= second <= 1:
                raise ValueError(f'{self.column} {value!r}, expected a probability in [0, 1] as in most rows')
            return 1 - second, second
        return _distribution(self.column, value, len(self.names))

    def _certain(self, value) -> tuple[float, ...]:
        written = label_of(value)
        for names in (self.names, self.aliases):
            if written in names:
                return tuple(float(name == written) for name in names)
        raise ValueError(f'{self.column} {value!r}, expected a class ({tables.shorten(", ".join(self.names), 80)}) or '
                         f'{"a probability of the second" if len(self.names) == 2 else "a list of probabilities"}')

    def truth(self, value) -> int:
        """The likeliest class of a cell; of equal ones the first. Raises ValueError where it cannot be read."""
        found = self.probabilities(value)
        return found.index(max(found))

    def is_tie(self, value) -> bool:
        """Whether a cell that can be read has no likeliest class."""
        found = self.probabilities(value)
        return found.count(max(found)) > 1


def _distribution(column: str, value, size: int) -> tuple[float, ...]:
    numbers = [cells.as_number(v) for v in cells.as_list(value) or ()]
    found = [n for n in numbers if n is not None and 0 <= n <= 1]
    if not len(found) == len(numbers) == size or abs(sum(found) - 1) > SLACK:
        raise ValueError(f'{column} {str(value)[:40]}, expected {size} probabilities that sum to 1')
    return tuple(n / sum(found) for n in found)


def label_of(value) -> str:
    """A label as its class's text, whole numbers as integers. Raises ValueError where it is missing, a list, or a
    number with a fraction."""
    if cells.missing(value):
        raise ValueError('the label is missing')
    written, number = str(value).strip(), cells.as_number(value)
    if isinstance(value, bool | int):
        return written
    if number is not None and number.is_integer():
        return str(int(written) if INTEGER.fullmatch(written) else int(number))
    if isinstance(value, str) and number is None and written.lower().lstrip('+-') not in ('nan', 'inf', 'infinity'):
        return written
    raise ValueError(f'label {value!r}, expected a class: a word or an integer')


def read(parts: list[Table], task) -> Labels:
    """How `task.label` is read, and its classes. Raises DataError, ConfigError."""
    kind, size = kind_of(parts, task.label)
    if kind == 'class':
        return Labels(task.label, kind, tuple(_classes(parts, task)))
    return Labels(task.label, kind, tuple(str(k) for k in range(size)))


def read_weak(parts: list[Table], task, labels: Labels) -> list[Labels]:
    """How each column of `task.weak` is read, of the classes of `labels`. Raises DataError for lists of another
    length."""
    aliases = tuple(names(task.classes, list(labels.names))) if task.weak else ()
    found = []
    for column in cells.columns(task.weak, parts) if task.weak else []:
        kind, size = kind_of(parts, column, labels.names + aliases)
        if kind != 'class' and size != len(labels.names):
            raise DataError(f'{parts[0].source}: task.weak: column {column!r} holds probabilities of {size} classes, '
                            f'expected {len(labels.names)}, as task.label has')
        found.append(Labels(column, kind, labels.names, aliases))
    return found


def kind_of(parts: list[Table], column: str, known: tuple[str, ...] = ()) -> tuple[str, int]:
    """(the kind of a column of labels by most of its rows, of how many classes it speaks; 0 for classes).

    known: classes. Of whole numbers alone, 0 and 1, a column speaks of classes, unless neither is among `known`.
    """
    forms, sizes = collections.Counter[str](), collections.Counter[int]()
    whole: set[str] = set()
    for value in _values(parts, column):
        found = cells.as_list(value)
        number = cells.as_number(value)
        if found is not None and len(found) > 1 and all(cells.as_number(v) is not None for v in found):
            sizes[len(found)] += 1
        elif number is not None and 0 <= number <= 1:
            forms['inside' if 0 < number < 1 else 'end'] += 1
            whole |= {label_of(value)} if number in (0, 1) else set()
        else:
            forms['other'] += 1
    rows = forms.total() + sizes.total()
    if sizes.total() > rows / 2:
        return 'list', sizes.most_common(1)[0][0]
    soft = forms['inside'] or (known and whole and not whole & set(known))
    return ('probability', 2) if soft and forms['other'] + sizes.total() < rows / 2 else ('class', 0)


def _values(parts: list[Table], column: str) -> Iterator:
    return (value for _, _, row in tables.numbered(parts) if not cells.missing(value := row.get(column)))


def _classes(parts: list[Table], task) -> list[str]:
    """The distinct labels, integers in order of size, words by the alphabet or in the order of `task.classes`."""
    found = _counted(parts, task)
    where = f'{parts[0].source}: task.label: column {task.label!r}'
    if len(found) > MOST_CLASSES:
        raise DataError(f'{where} has {len(found)} distinct values, expected at most {MOST_CLASSES} classes')
    given = [n.strip() for n in task.classes.split(',')] if task.classes else []
    if given and not all(map(INTEGER.fullmatch, found)):
        strange = sorted(set(found) - set(given))
        if strange:
            raise DataError(f'{where} has {strange[0]!r}, expected one of task.classes: {", ".join(given)}')
        return given
    if len(found) < 2:
        raise DataError(f'{where} has only the class {next(iter(found))!r}, expected two or more classes')
    return sorted(found, key=int) if all(map(INTEGER.fullmatch, found)) else sorted(found)


def _counted(parts: list[Table], task) -> collections.Counter[str]:
    found, bad, first = collections.Counter[str](), 0, ''
    for table, i, row in tables.numbered(parts):
        try:
            found[label_of(row.get(task.label))] += 1
        except ValueError as e:
            bad, first = bad + 1, first or f'{table.source}: {table.where(i)}: {e}'
    if bad > task.max_bad_rows * (bad + found.total()):
        raise DataError(f'{first} ({bad} of {bad + found.total()} rows, '
                        f'task.max_bad_rows allows {100 * task.max_bad_rows:g} %)')
    return found


def names(given: str, classes: list[str]) -> list[str]:
    """What the classes are called: `given`, task.classes, in order, where it is not empty. Raises ConfigError."""
    found = [n.strip() for n in given.split(',')] if given else classes
    if len(found) != len(classes) or len(set(found)) != len(found) or not all(found):
        raise ConfigError(f'task.classes: {given!r}, expected {len(classes)} different names, for '
                          + tables.shorten(', '.join(classes), 200))
    return found
