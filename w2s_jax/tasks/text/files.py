"""The user's own data: texts with labels, or questions with options, from csv, tsv, jsonl, json or parquet.

With `task.text` (or a template of columns) and `task.label` the classes are those of the label column. With
`task.question`, `task.options` and `task.answer` each question becomes one statement with one candidate answer, right
or wrong with even chance, as in `nlp`. Rows with the same text, question or `task.group` stay together.
"""
import collections
import functools
import json
import re
import string
from collections.abc import Callable

from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks.text import formats, nlp, statements, tables
from w2s_jax.tasks.text.statements import Statement
from w2s_jax.tasks.text.tables import Table

MOST_CLASSES = 100
FLOAT = re.compile(r'[-+]?(?:\d+\.\d*|\.\d+|\d+(?:\.\d*)?[eE][-+]?\d+|nan|inf(?:inity)?)', re.IGNORECASE)
INTEGER = re.compile(r'[-+]?\d+')


def load(task, log=print) -> Dataset:
    """Examples from `task.path`, a file or a folder of them.

    task: path, test_path ('' = a file called test in the folder, else a fifth of the rows), text, label, classes
    (their names in order, comma separated; '' = as the labels say), question, options (a column of lists, or
    several columns 'a,b,c'), answer (an index from 0, a letter, or an option's text), group, template (of
    {column}s, and {answer}), train_size, test_size, seed, max_bad_rows.
    Raises ConfigError for fields that contradict each other, DataError for files that cannot be used.
    """
    _check(task)
    parts = tables.splits(task, 'train', ('test', 'validation'), None)
    everything = parts[0] + (parts[1] or [])
    template = task.template or (nlp.ANSWERED.replace('{question}', f'{{{task.question}}}') if task.question
                                 else f'{{{task.text}}}')
    options = _option_columns(task, everything) if task.question else []
    for table in everything:
        tables.check_columns(table, _asked(task, options, template))
    make: Callable[[dict], Statement]
    if task.question:
        read = _reading(everything, options, task.answer)
        make = functools.partial(question, task=task, template=template, options=options, read=read)
        names = _names(task, list(nlp.WRONG_RIGHT))
    else:
        classes = _classes(everything, task)
        make = functools.partial(labelled, task=task, template=template, classes={c: i for i, c in enumerate(classes)})
        names = _names(task, classes)
    pool, test = (statements.source(p, make, task, log) if p else None for p in parts)
    assert pool is not None
    return statements.dataset(task, 'files', names, pool, test, log, balanced=bool(task.question), template=template,
                        truncate='start' if len(statements.fields_of(template)) > 1 else 'end')


def _check(task) -> None:
    if bool(task.question) == bool(task.text or (task.template and task.label)):
        raise ConfigError(f'task.text: {task.text!r} and task.question: {task.question!r}, expected one of them')
    wanted = ('options', 'answer') if task.question else ('label',)
    other = ('label', 'weak') if task.question else ('options', 'answer')
    for name in wanted:
        if not task[name]:
            raise ConfigError(f'task.{name}: empty, expected a column, as task.'
                              f'{"question" if task.question else "text"} is set')
    for name in other:
        if task[name]:
            raise ConfigError(f'task.{name}: {task[name]!r}, expected \'\', as task.'
                              f'{"question" if task.question else "text"} is set')
    if task.question and task.template and 'answer' not in statements.fields_of(task.template):
        raise ConfigError(f'task.template: {task.template!r}, expected {{answer}} in it, which the candidate replaces')
    if task.template and not statements.fields_of(task.template):
        raise ConfigError(f'task.template: {task.template!r}, expected {{column}}s in it')


def _option_columns(task, parts: list[Table]) -> list[str]:
    if all(task.options in t.columns for t in parts):
        return [task.options]
    return [c.strip() for c in task.options.split(',')]


def _asked(task, options: list[str], template: str) -> dict[str, str]:
    """column -> the field that asks for it."""
    asked = {name: 'task.template' for name in statements.fields_of(template)
             if not (name == 'answer' and task.question)}
    columns = ('text', 'label', 'question', 'answer', 'group', 'weak')
    asked |= {getattr(task, f): f'task.{f}' for f in columns if task[f]}
    return asked | dict.fromkeys(options, 'task.options')


def _names(task, classes: list[str]) -> list[str]:
    """What the classes are called: `task.classes` in order, where it is given."""
    names = [n.strip() for n in task.classes.split(',')] if task.classes else classes
    if len(names) != len(classes) or len(set(names)) != len(names) or not all(names):
        raise ConfigError(f'task.classes: {task.classes!r}, expected {len(classes)} different names, for '
                          + tables.shorten(', '.join(classes), 200))
    return names


# Texts with labels.


def label_of(value) -> str:
    """A label as its class's text. Raises ValueError where it is missing, or a number with a fraction or so written."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError('the label is missing')
    written = str(value).strip()
    if isinstance(value, bool | int):
        return written
    if isinstance(value, str) and not FLOAT.fullmatch(written):
        return str(int(written)) if INTEGER.fullmatch(written) else written
    raise ValueError(f'label {value!r}, expected a class: a word or an integer')


def _classes(parts: list[Table], task) -> list[str]:
    """The distinct labels, integers in order of size, words by the alphabet or in the order of `task.classes`."""
    found, bad, first = collections.Counter[str](), 0, ''
    for table, i, row in tables.numbered(parts):
        try:
            found[label_of(row.get(task.label))] += 1
        except ValueError as e:
            bad, first = bad + 1, first or f'{table.source}: {table.where(i)}: {e}'
    where = f'{parts[0].source}: task.label: column {task.label!r}'
    if bad > task.max_bad_rows * (bad + found.total()):
        raise DataError(f'{first} ({bad} of {bad + found.total()} rows, '
                        f'task.max_bad_rows allows {100 * task.max_bad_rows:g} %)')
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
    numbers = all(map(INTEGER.fullmatch, found))
    return sorted(found, key=int) if numbers else sorted(found)


def labelled(row: dict, task, template: str, classes: dict[str, int]) -> Statement:
    """A row with its label as its class. Raises ValueError where it cannot be used."""
    truth = classes[label_of(row.get(task.label))]
    statement = statements.fill(template, {n: _shown(row, n) for n in statements.fields_of(template)}).strip()
    return Statement((statement,), truth, _group(row, task, statement), weak_of(row, task, classes))


def weak_of(row: dict, task, classes: dict[str, int]) -> tuple[float, ...] | None:
    """The weak label of a row as probabilities `[K]`: a class, or of two classes the probability of the second. Raises
    ValueError if it is neither."""
    if not task.weak:
        return None
    value = row.get(task.weak)
    if isinstance(value, float) and len(classes) == 2 and 0 <= value <= 1:
        return 1 - value, value
    known = label_of(value)
    if known not in classes:
        raise ValueError(f'{task.weak} {value!r}, expected a class' + (
            ' or a probability of the second class' if len(classes) == 2 else ''))
    return tuple(float(k == classes[known]) for k in range(len(classes)))


def _shown(row: dict, column: str) -> str:
    """A text, or a number as one."""
    value = row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    return statements.text_of(row, column)


def _group(row: dict, task, otherwise: str) -> int:
    if not task.group:
        return statements.group_id(statements.normal(otherwise))
    value = row.get(task.group)
    if value is None or value != value or value == '':
        raise ValueError(f'{task.group} is missing, expected the group')
    return statements.group_id(str(value))


# Questions with options.


def options_of(row: dict, columns: list[str]) -> list[str]:
    """The candidate answers. Raises ValueError unless they are two or more different texts."""
    value = [row.get(c) for c in columns] if len(columns) > 1 else row.get(columns[0])
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f'{columns[0]} {value[:40]!r}, expected a JSON list of options') from None
    if isinstance(value, list):
        value = [str(v) if isinstance(v, int | float) and v == v else v for v in value]
    options = formats.texts(value, 'options')
    twice = [o for o, n in collections.Counter(map(statements.normal, options)).items() if n > 1]
    if twice:
        raise ValueError(f'option {twice[0]!r} is there twice')
    return options


def by_text(answer, options: list[str]) -> int | None:
    """The place of the option with this text."""
    return options.index(str(answer).strip()) if str(answer).strip() in options else None


def by_letter(answer, options: list[str]) -> int | None:
    """A = 0, b = 1 ..."""
    letters = string.ascii_uppercase[:len(options)]
    written = str(answer).strip().upper()
    return letters.index(written) if len(written) == 1 and written in letters else None


def by_index(answer, options: list[str]) -> int | None:
    """From 0."""
    written = str(answer).strip()
    return int(written) if written.isdecimal() and int(written) < len(options) else None


def _reading(parts: list[Table], columns: list[str], answer: str) -> Callable:
    """How the answer column is meant, by what fits most rows: one way for all of them.

    Raises DataError where two ways fit equally and disagree.
    """
    ways = (by_text, by_letter, by_index)
    fits = collections.Counter[Callable]()
    differ: dict[tuple[Callable, Callable], str] = {}
    for table, i, row in tables.numbered(parts):
        try:
            options = options_of(row, columns)
        except ValueError:
            continue
        places = {way: way(row.get(answer), options) for way in ways}
        fits.update(way for way, place in places.items() if place is not None)
        for a in ways:
            for b in ways:
                if places[a] is not None and places[b] is not None and places[a] != places[b]:
                    differ.setdefault((a, b), f'{table.source}: {table.where(i)}: {answer} {row.get(answer)!r}')
    best = max(ways, key=lambda way: fits[way])
    for (a, b), where in differ.items():
        if a is best and fits[a] == fits[b]:
            raise DataError(f'{where} is the {_WAYS[a]} of one option and the {_WAYS[b]} of another, expected an '
                            'answer column that can be read in one way only')
    return best


_WAYS = {by_text: 'text', by_letter: 'letter', by_index: 'index'}


def question(row: dict, task, template: str, options: list[str], read: Callable) -> Statement:
    """A row as a statement: the question and one candidate answer. Raises ValueError where it cannot be used."""
    shown = statements.text_of(row, task.question)
    candidates = options_of(row, options)
    right = read(row.get(task.answer), candidates)
    if right is None:
        letters = string.ascii_uppercase[len(candidates) - 1]
        raise ValueError(f'{task.answer} {row.get(task.answer)!r}, expected the {_WAYS[read]} of an option as in most '
                         f'rows (0 to {len(candidates) - 1}, A to {letters} or its text)')
    answer, truth = formats.draw(candidates, right, statements.random_of(task.seed, row))
    values = {n: _shown(row, n) for n in statements.fields_of(template) if n != 'answer'} | {'answer': answer}
    return Statement((statements.fill(template, values).strip(),), truth, _group(row, task, shown))
