"""Statements and pairs of texts -> a Dataset: what every language task shares.

A task's module turns the rows of a table into `Statement`s, one at a time and each with its own random numbers
(`random_of`), so that nothing depends on the order of a file. `dataset` does the rest: it keeps groups on one side,
balances classes, chooses rows, checks for leaks and counts what it did.
"""
import dataclasses
import functools
import hashlib
import html
import itertools
import json
import random
import string
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from w2s_jax.data import Dataset, Examples, Inputs
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.store import arrays
from w2s_jax.tasks import difficulty
from w2s_jax.tasks.text import leak, tables
from w2s_jax.tasks.text.tables import Table

TEST_SHARE = 0.2
MOST_TEST_ROWS = 10_000  # task.test_size = 0 takes no more: the n_test_docs of openai/weak-to-strong
SHOWN = 600  # characters of a text in a report


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    """An example before it is an array: one text (or the two of a pair), its class, what it shares with others
    (`group_id`), and the probabilities of a weak label, if one comes with it. whole: of a question, all of its options
    as (text, class).  difficulty: if it is known."""
    texts: tuple[str, ...]
    truth: int
    group: int
    weak: tuple[Any, ...] | None = None  # [K], or [T, K] of several teachers
    whole: Callable[[], list[tuple[str, int]]] | None = None
    difficulty: float | None = None

    def digest(self, seed: int) -> bytes:
        """Puts statements in an order that knows nothing of the file's."""
        return _sha(seed, *self.texts, str(self.truth))


@dataclasses.dataclass
class Source:
    """Statements of one split, and what happened on the way."""
    name: str
    statements: list[Statement]
    skipped: int = 0
    first_skipped: str = ''


def _sha(*parts) -> bytes:
    return hashlib.sha256('\x1f'.join(map(str, parts)).encode(errors='surrogatepass')).digest()


def random_of(seed: int, row: dict) -> random.Random:
    """Random numbers that belong to a row's contents, wherever in the file it stands."""
    return random.Random(_sha(seed, json.dumps(row, sort_keys=True, default=str)))


def normal(text: str) -> str:
    """`text` as far as two copies of one question would agree: lower case, single spaces."""
    return ' '.join(text.split()).casefold()


def group_id(key: str) -> int:
    """A group's number, in [0, 2^63): a hash of what its rows share."""
    return int.from_bytes(_sha('group', key)[:8]) >> 1


def text_of(row: dict, column: str) -> str:
    """The text in a column, stripped. Raises ValueError where it is empty or no text."""
    value = row.get(column)
    if not isinstance(value, str):
        raise ValueError(f'{column} is {"missing" if value is None else repr(value)[:40]}, expected a text')
    if not value.strip():
        raise ValueError(f'{column} is an empty text')
    try:
        value.encode()
    except UnicodeEncodeError as e:
        raise ValueError(f'{column} is not valid Unicode') from e
    return value.strip()


def class_of(value, num_classes: int = 2) -> int:
    """A label as a class. Raises ValueError unless it is an integer (or its text) or a bool in [0, num_classes)."""
    if isinstance(value, str) and value.strip() in map(str, range(num_classes)):
        return int(value)
    if isinstance(value, int) and 0 <= value < num_classes:
        return int(value)
    raise ValueError(f'label {value!r}, expected an integer from 0 to {num_classes - 1}')


def fields_of(template: str, field: str = 'task.template') -> list[str]:
    """The names in a template's braces. Raises ConfigError where it is not a template with plain names."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as e:
        raise ConfigError(f'{field}: {template!r} is not a template ({e})') from e
    if any(spec or conversion for _, name, spec, conversion in parts if name is not None):
        raise ConfigError(f'{field}: {template!r}, expected plain column names in braces')
    return list(dict.fromkeys(name for _, name, _, _ in parts if name is not None))


def fill(template: str, values: dict[str, str]) -> str:
    """`template` with each {name} replaced: by name only, never by attribute, so a template cannot reach further."""
    return ''.join(before + (values[name] if name is not None else '')
                   for before, name, _, _ in string.Formatter().parse(template))


def answered(template: str, values: dict[str, str], answer: str) -> str:
    """The statement that one answer of a question makes."""
    return fill(template, values | {'answer': answer}).strip()


def source(parts: list[Table], make: Callable[[dict], Statement], task, log) -> Source:
    """The statements that `make` finds in the rows of the tables that hold one split.

    A row that `make` refuses with ValueError is skipped and counted. Raises DataError, naming the first such row,
    where they are more than a share of `task.max_bad_rows`.
    """
    result = Source(' + '.join(t.source for t in parts), [])
    for table, i, row in tables.numbered(parts):
        try:
            result.statements.append(make(row))
        except ValueError as e:
            result.skipped += 1
            result.first_skipped = result.first_skipped or f'{table.source}: {table.where(i)}: {e}'
    total = len(result.statements) + result.skipped
    if result.skipped > task.max_bad_rows * total:
        raise DataError(f'{result.first_skipped} ({result.skipped} of {total} rows unusable, '
                        f'task.max_bad_rows allows {100 * task.max_bad_rows:g} %)')
    if result.skipped:
        log(f'{result.first_skipped}; {result.skipped} of {total} rows skipped')
    return result


def dataset(task, name: str, classes: list[str], pool: Source, test: Source | None, log, *, balanced: bool = True,
            template: str = '', truncate: str = 'end', questions: int = 0,
            shifted: Mapping[str, Source] = types.MappingProxyType({})) -> Dataset:
    """The task's pool and test set, no group on both sides. Uses the statements of `pool` and `test` up.

    Args:
      classes: the name of each class.  test: None cuts the test set from the pool.  balanced: every class as often
        as any other, by leaving rows of the larger ones out; else the classes keep their shares.
      truncate: which end of a text that is too long may go.  questions: so many questions of the test set are a
        further one, `questions`, with all of their options.  shifted: further test sets by name, of which rows whose
        group is in the pool or the test set are left out.
    task: train_size, test_size, seed. Raises DataError where a class has no rows or there are too few rows.
    """
    known = {s.group for part in (pool, test) if part for s in part.statements} if shifted else set()
    pool_rows, test_rows, test_size = _parted(task, classes, pool, test, balanced)
    found, levels = len(pool_rows) + len(test_rows), [s.difficulty for s in pool_rows]
    level = difficulty.cut(levels, task)
    pool_rows = [pool_rows[i] for i in difficulty.learned(level, levels)]
    train = _examples(_choose(pool_rows, task.train_size, 'train_size', pool.name, classes, balanced))
    chosen = _choose(test_rows, test_size, 'test_size', (test or pool).name, classes, balanced)
    held_out, asked = _examples(chosen), _whole(chosen, questions)
    del chosen
    rows = sum(len(s.statements) for s in (pool, test) if s)
    unbalanced = sum(_surplus(part, len(classes)) for part in (pool_rows, test_rows)) if balanced else 0
    kept = len(pool_rows)
    del pool_rows, test_rows
    for used in filter(None, (pool, test)):
        used.statements.clear()  # before anything else takes a place among them, and keeps theirs from being given back
    notes = {'rows': rows, 'skipped': pool.skipped + (test.skipped if test else 0),
             'first_skipped': pool.first_skipped or (test.first_skipped if test else ''),
             'source': f'{pool.name}, test: {test.name}' if test else pool.name,
             'template': template, 'classes': classes, 'balanced': unbalanced, 'shared_with_test': rows - found,
             'unused': found - unbalanced - len(train) - len(held_out) - (len(levels) - kept),
             'leak': _checked_for_leaks(name, [train, held_out], task.seed, log)}
    tests = difficulty.tests(level, held_out)
    notes |= difficulty.notes(level, levels, tests)
    if asked is not None:
        tests['questions'] = asked
        number = len(np.unique(asked.extras['question']))
        notes['questions'] = {'number': number, 'options': len(asked) / number}
    further = {k: _shifted(part, known, task, classes, balanced) for k, part in shifted.items()}
    tests |= {k: rows for k, (rows, _) in further.items()}
    notes |= {'shifted': {k: said for k, (_, said) in further.items()}} if further else {}
    for where, (_, said) in further.items():
        log(f'{name}: test set {where!r}: {said["rows"]} rows, {said["shared"]} also in the pool or the test set')
    return Dataset(name, len(classes), train, tests, notes=notes, truncate=truncate,
                   render=functools.partial(render, classes=tuple(classes)))


def _shifted(part: Source, known: set[int], task, classes: list[str], balanced: bool) -> tuple[Examples, dict]:
    """A further test set, and what results.json says of it. known: the groups of pool and test set."""
    rows = _ordered((s for s in part.statements if s.group not in known), task.seed)
    if not rows:
        raise DataError(f'task.shifted: {part.name}: no row left, every text or question is also in the pool or the '
                        'test set')
    most = int(quotas(_counts(rows, len(classes)), 0, balanced).sum())
    chosen = _choose(rows, min(task.test_size or MOST_TEST_ROWS, most), 'test_size', part.name, classes, balanced)
    return _examples(chosen), {'source': part.name, 'rows': len(part.statements), 'skipped': part.skipped,
                               'shared': len(part.statements) - len(rows), 'measured': len(chosen)}


def _whole(chosen: list[Statement], number: int) -> Examples | None:
    """The first `number` questions of `chosen` with all of their options; `question` `[N]` among the extras says which
    question a row is of. None without any."""
    asked = ((s.group, options) for s in chosen if number and s.whole and (options := s.whole()))
    rows = [(i, Statement((text,), truth, group)) for i, (group, options) in enumerate(itertools.islice(asked, number))
            for text, truth in options]
    if not rows:
        return None
    question = np.array([i for i, _ in rows], np.int32)
    return dataclasses.replace(_examples([s for _, s in rows]), extras={'question': question})


def _checked_for_leaks(name: str, parts: list[Examples], seed: int, log) -> dict:
    rows, begin, found = leak.rows(sum(map(len, parts)), seed), 0, []
    for part in parts:
        found.append(part.take(rows[(rows >= begin) & (rows < begin + len(part))] - begin))
        begin += len(part)
    texts, truth, group = (np.concatenate(x) for x in zip(
        *((p.inputs['text'], p.truth, p.group) for p in found), strict=True))
    result = leak.check(texts, truth, group, seed)
    warning = leak.warning(result)
    if warning:
        log(f'warning: {name}: {warning}')
    if unchecked := leak.unchecked(result):
        log(f'{name}: {unchecked}')
    return result | {'warning': warning, 'unchecked': unchecked}


def _parted(task, classes: list[str], pool: Source, test: Source | None,
            balanced: bool) -> tuple[list[Statement], list[Statement], int]:
    """(pool, test set, rows wanted of the test set, 0 = all), in an order of their own, with no group in both."""
    k = len(classes)
    rows = _ordered(pool.statements, task.seed)
    if test:
        held_out = _ordered(test.statements, task.seed)
        most = MOST_TEST_ROWS if len(held_out) > MOST_TEST_ROWS else 0
        groups = {s.group for s in held_out}
        rest = [s for s in rows if s.group not in groups]
        if not rest:
            raise DataError(f'{pool.name}: no row left, every text or question is also in {test.name}')
        return rest, held_out, task.test_size or most
    _check_classes(pool.name, _counts(rows, k), classes)
    size = task.test_size or _default_test_size(rows, k, balanced)
    pool_rows, test_rows = _cut(rows, size, k, balanced)
    return pool_rows, test_rows, task.test_size or (MOST_TEST_ROWS if len(test_rows) > MOST_TEST_ROWS else 0)


def _ordered(statements: Iterable[Statement], seed: int) -> list[Statement]:
    return sorted(statements, key=lambda s: s.digest(seed))


def _counts(statements: list[Statement], k: int) -> np.ndarray:
    return np.bincount([s.truth for s in statements], minlength=k)


def _surplus(statements: list[Statement], k: int) -> int:
    """How many rows the balance of classes leaves out."""
    counts = _counts(statements, k)
    return int((counts - counts.min()).sum())


def _default_test_size(statements: list[Statement], k: int, balanced: bool) -> int:
    counts = _counts(statements, k)
    if balanced:
        return k * min(max(round(TEST_SHARE * counts.min()), 1), MOST_TEST_ROWS // k)
    return min(max(round(TEST_SHARE * counts.sum()), k), MOST_TEST_ROWS)


def quotas(counts: np.ndarray, size: int, balanced: bool) -> np.ndarray:
    """Rows of each class `[K]` in a choice of `size` (0 = as many as there are): equal, or in proportion to
    `counts` (but one at least, where there is room). Sums to `size`, or to less where there are too few rows."""
    if balanced:
        most = np.full_like(counts, counts.min())
        wanted = most if not size else size // len(counts) + (np.arange(len(counts)) < size % len(counts))
        return np.minimum(wanted, counts)
    if not size or size >= counts.sum():
        return counts
    k, n = len(counts), counts.sum()
    exact = 1 + (counts - 1) * (size - k) / (n - k) if k <= size else counts * size / n
    floor = np.floor(exact).astype(counts.dtype)
    largest = np.argsort(-(exact - floor), kind='stable')[:size - floor.sum()]
    floor[largest] += 1
    return floor


def _cut(statements: list[Statement], size: int, k: int, balanced: bool) -> tuple[list[Statement], list[Statement]]:
    """(pool, test): whole groups into the test set until it has enough of every class, no more than that takes."""
    groups: dict[int, list[Statement]] = {}
    for s in statements:
        groups.setdefault(s.group, []).append(s)
    needed = quotas(_counts(statements, k), size, balanced).astype(int)
    pool, test = [], []
    for members in groups.values():
        if any(needed[s.truth] > 0 for s in members):
            test += members
            needed -= _counts(members, k)
        else:
            pool += members
    return pool, test


def _check_classes(where: str, counts: np.ndarray, classes: list[str]) -> None:
    empty = [repr(c) for c, n in zip(classes, counts, strict=True) if not n]
    if empty:
        there = ', '.join(f'{c!r}: {n}' for c, n in zip(classes, counts, strict=True) if n)
        raise DataError(f'{where}: no row of class {", ".join(empty)}, expected some of every class (found {there})')


def _choose(statements: list[Statement], size: int, field: str, where: str, classes: list[str],
            balanced: bool) -> list[Statement]:
    """`size` rows (0 = all), balanced or with the classes' shares."""
    counts = _counts(statements, len(classes))
    _check_classes(f'{where} ({"pool" if field == "train_size" else "test set"})', counts, classes)
    wanted = quotas(counts, size, balanced)
    if wanted.sum() < size:
        raise DataError(f'task.{field}: {size}, expected at most {quotas(counts, 0, balanced).sum()}: {where} has no '
                        f'more rows for it{" with balanced classes" if balanced else ""}')
    if not wanted.all():
        raise DataError(f'task.{field}: {size}, expected at least {len(classes)}, a row of every class')
    seen, chosen = np.zeros_like(counts), []
    for s in statements:
        seen[s.truth] += 1
        if seen[s.truth] <= wanted[s.truth]:
            chosen.append(s)
    return chosen


def _examples(statements: list[Statement]) -> Examples:
    return Examples({'text': arrays.Texts(s.texts for s in statements)},  # type: ignore[dict-item]
                    np.array([s.truth for s in statements], np.int32),
                    np.array([s.group for s in statements], np.int64),
                    np.array([s.weak for s in statements], np.float32) if statements[0].weak is not None else None,
                    metadata={} if statements[0].difficulty is None else {
                        difficulty.KEY: np.array([s.difficulty for s in statements], np.float64)})


def render(inputs: Inputs, answers: dict[str, int], classes: tuple[str, ...]) -> str:
    """An HTML snippet of one row: its text (both of a pair) and each answer (who -> class).

    inputs: 'text' `[S]`, longer ones with their middle left out.
    """
    shown = ''.join(f'<blockquote style="white-space: pre-wrap">{html.escape(tables.shorten(str(t), SHOWN))}'
                    '</blockquote>' for t in np.ravel(inputs['text']))
    lines = ''.join(f'<li>{html.escape(who)}: {html.escape(classes[int(a)])}</li>' for who, a in answers.items())
    return f'<div class="text">{shown}<ul class="answers">{lines}</ul></div>'
