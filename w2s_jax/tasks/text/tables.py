"""Tables of a file, a folder or the hub: rows as dicts, and where each one stands, for messages.

csv and tsv (all values are texts), jsonl, json (a list of objects) and parquet; the text formats also as .gz.
Nothing here unpickles or runs code that came with the data.
"""
import array
import bisect
import csv
import dataclasses
import difflib
import gzip
import io
import itertools
import json
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from w2s_jax import paths
from w2s_jax.errors import ConfigError, DataError

KINDS = ('.csv', '.tsv', '.jsonl', '.json', '.parquet')
MANY = 200_000  # a table with more rows is sampled before it becomes Python objects
CHUNK = 1000  # rows that are Python objects at a time
LINE_BREAK = re.compile(r'\r\n|\r|\n')
SHARD = re.compile(r'-\d+-of-\d+$')


class Rows(Sequence):
    """Rows that Arrow holds, as dicts that are made when they are looked at: a third of the memory of dicts and less.

    parts: with the same columns.  make: what a row is made of the columns of it.
    """

    def __init__(self, parts: list[pa.Table], make: Callable[[dict], dict] = lambda row: row):
        self.parts, self.make = parts, make
        self.ends = list(itertools.accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __iter__(self) -> Iterator[dict]:
        for part in self.parts:
            for start in range(0, len(part), CHUNK):
                yield from map(self.make, part.slice(start, CHUNK).to_pylist())

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        number = range(len(self))[i]
        at = bisect.bisect_right(self.ends, number)
        return self.make(self.parts[at].slice(number - (self.ends[at] - len(self.parts[at])), 1).to_pylist()[0])


def packed(rows: Iterable[dict], columns: list[str], make: Callable[[dict], dict] = lambda row: row) -> Rows:
    """`Rows` of dicts whose values are texts."""
    schema, rest = pa.schema([(c, pa.large_string()) for c in columns]), iter(rows)
    chunks = iter(lambda: list(itertools.islice(rest, CHUNK)), [])
    return Rows([pa.Table.from_pylist(chunk, schema) for chunk in chunks], make)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of one file or one split of the hub.

    source: what to call it.  unit: what `numbers` count from 1: lines of the file for csv and jsonl (a csv's
    header is line 1), rows for parquet and the hub, items for json.
    """
    source: str
    columns: list[str]
    rows: Sequence[dict]
    unit: str
    numbers: Sequence[int]

    def where(self, i: int) -> str:
        """'line 7' or the like: row `i` as the user finds it."""
        return f'{self.unit} {self.numbers[i]}'


def read(path, needed: int = 0, seed: int = 0) -> Table:
    """All rows of a file; of one with more than 200 000, about `needed` (0 = all) drawn by position with `seed`.

    Raises DataError, one line, where the file is missing, empty, damaged or of an unknown kind.
    """
    path = pathlib.Path(path)
    kind = kind_of(path)
    paths.check_file(path)
    try:
        table = _READERS[kind](path) if kind != '.parquet' else _parquet(path, needed, seed)
    except FileNotFoundError as e:
        raise DataError(f'{path}: no such file') from e
    except UnicodeDecodeError as e:
        raise DataError(f'{path}: not UTF-8 text (byte {e.start})') from e
    except (OSError, EOFError, csv.Error, pa.ArrowException, ValueError, RecursionError, zlib.error) as e:
        raise DataError(f'{path}: not a readable {kind[1:]} file ({one_line(e)})') from e
    if not table.rows:
        raise DataError(f'{path}: no rows')
    return table


def kind_of(path: pathlib.Path) -> str:
    """'.csv', '.jsonl' ... by the name. Raises DataError where it is unknown."""
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == '.gz' and len(suffixes) == 2 and suffixes[0] != '.parquet':
        suffixes.pop()
    if not suffixes or suffixes[-1] not in KINDS:
        raise DataError(f'{path}: unknown kind of file, expected {", ".join(KINDS)} (or .gz of a text format)')
    return suffixes[-1]


def _text(path: pathlib.Path) -> io.TextIOBase:
    opened = gzip.open(path) if path.suffix.lower() == '.gz' else open(path, 'rb')  # noqa: SIM115
    return io.TextIOWrapper(opened, encoding='utf-8-sig', newline='')


def _csv(path: pathlib.Path) -> Table:
    csv.field_size_limit(2**31 - 1)
    numbers = array.array('q')

    def checked(reader):
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f'line {reader.line_num}: another number of fields than the {len(columns)} '
                                 'of the header')
            numbers.append(reader.line_num - sum(len(LINE_BREAK.findall(v)) for v in row.values()))
            yield row
    with _text(path) as file:
        reader = csv.DictReader(file, delimiter='\t' if kind_of(path) == '.tsv' else ',', strict=True)
        columns = list(reader.fieldnames or [])
        _check_header(columns)
        return Table(str(path), columns, packed(checked(reader), columns), 'line', numbers)


def _check_header(columns: list[str]) -> None:
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise ValueError(f'two columns are called {twice[0]!r}')


def _jsonl(path: pathlib.Path) -> Table:
    numbers, keys = array.array('q'), dict[str, None]()

    def checked(file):
        for n, line in enumerate(file, 1):
            if line.strip():
                keys.update(dict.fromkeys(_object(line, f'line {n}')))
                numbers.append(n)
                yield {'line': line}
    with _text(path) as file:
        rows = packed(checked(file), ['line'], lambda row: json.loads(row['line']))
    return Table(str(path), list(keys), rows, 'line', numbers)


def _object(line: str, where: str) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        raise ValueError(f'{where}: {e.msg}') from e
    if not isinstance(row, dict):
        raise ValueError(f'{where}: {type(row).__name__}, expected an object')
    return row


def _json(path: pathlib.Path) -> Table:
    with _text(path) as file:
        rows = json.load(file)
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ValueError('expected a list of objects')
    return Table(str(path), list(dict.fromkeys(k for row in rows for k in row)), rows, 'item',
                 range(1, len(rows) + 1))


def _parquet(path: pathlib.Path, needed: int, seed: int) -> Table:
    table = pq.read_table(path, partitioning=None)
    table.validate(full=True)  # or text that is not UTF-8 comes up later
    return _sampled(table.num_rows, needed, seed, str(path), table.column_names,
                    lambda index: Rows([table if index is None else table.take(pa.array(index))]))


def _sampled(n: int, needed: int, seed: int, source: str, columns: list[str], rows) -> Table:
    index = None
    if n > MANY and 0 < needed < n:
        index = np.sort(np.random.default_rng((seed, 2)).choice(n, needed, replace=False))
    numbers = range(1, n + 1) if index is None else (index + 1).tolist()
    return Table(source, columns, rows(index), 'row', numbers)


_READERS = {'.csv': _csv, '.tsv': _csv, '.jsonl': _jsonl, '.json': _json}


def find(folder, split: str) -> list[pathlib.Path]:
    """The files of a split: `split.*`, or its shards `split-00000-of-00001.*`, in the folder or in its `data/`.

    Where several kinds of file hold the split, one kind is taken. Other parts of a name do not count:
    `test_hard.parquet` is not `test`.
    """
    for place in (pathlib.Path(folder), pathlib.Path(folder) / 'data'):
        found = [f for f in data_files(place) if SHARD.sub('', f.name.split('.')[0]) == split]
        if found:
            kind = kind_of(found[0])
            return [f for f in found if kind_of(f) == kind]
    return []


def data_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder that `read` knows, by name."""
    def known(f: pathlib.Path) -> bool:
        name = f.name.lower().removesuffix('.gz')
        return f.is_file() and name.endswith(KINDS) and not f.name.lower().endswith('.parquet.gz')
    return sorted(f for f in folder.glob('*') if known(f)) if folder.is_dir() else []


def from_hub(name: str, split: str, config: str = '', revision: str = '', data_dir: str = '', needed: int = 0,
             seed: int = 0) -> Table:
    """A split of a data set of the hub that is plain files. Raises ConfigError where it cannot be had.

    HF_HUB_OFFLINE and the cache of `datasets` are respected.
    """
    import datasets  # slow to import, and only needed here
    try:
        data = datasets.load_dataset(name, config or None, split=split, revision=revision or None,
                                     data_dir=data_dir or None)
    except Exception as e:  # the library raises what its transports raise
        raise ConfigError(f'task.path: {name} ({split}) cannot be had from the hub ({one_line(e)}): set task.path '
                          'to a file or a folder of it, or go online') from e
    table = _sampled(len(data), needed, seed, f'{name}/{split}', data.column_names,
                     lambda index: (data if index is None else data.select(index)).to_list())
    if not table.rows:
        raise DataError(f'{name}/{split}: no rows')
    return table


def splits(task, train: str, tests: tuple[str, ...],
           hub: Callable[[str, int, int], Table] | None) -> tuple[list[Table], list[Table] | None]:
    """The tables of the pool and of the test set; None where the test set is to be cut from the pool.

    A folder without a file of the split `train` gives its test split's, or else all of its files, to be cut.

    Args:
      task: path, test_path, train_size, test_size, seed.  train, tests: names of splits; the first of `tests` that
        is there counts.  hub: (split, about how many rows, seed) -> table, for task.path = ''.
    """
    needed, needed_test = (4 * size + 1000 if size else most for size, most in
                           ((task.train_size, 0), (task.test_size, 50_000)))
    pool, test = [], []
    if not task.path:
        if hub is None:
            raise ConfigError('task.path: empty, expected a file or a folder of data')
        pool = [hub(train, needed, task.seed)]
        test = [] if task.test_path else [hub(tests[0], needed_test, task.seed)]
    else:
        pool_files, test_files = files_of(task.path, 'task.path', train, tests)
        pool = [read(f, needed, task.seed) for f in pool_files]
        test = [] if task.test_path else [read(f, needed_test, task.seed) for f in test_files]
    if task.test_path:
        files, more = files_of(task.test_path, 'task.test_path', tests[0], tests[1:])
        test = [read(f, needed_test, task.seed) for f in files or more]
    return pool, test or None


def files_of(path: str, field: str, train: str,
             tests: tuple[str, ...]) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The files of the pool and of the test set in a folder, or a file by itself. Raises DataError."""
    try:
        place = pathlib.Path(path).expanduser()
    except RuntimeError as e:
        raise DataError(f'{field}: {path}: {paths.reason(e)}') from None
    if not paths.exists(place, field):
        raise DataError(f'{field}: {path}: no such file or folder')
    if not place.is_dir():
        return [place], []
    pool = find(place, train)
    test = next((found for split in tests if split != train and (found := find(place, split))), [])
    if not pool:
        pool, test = test or data_files(place), []
    if not pool:
        raise DataError(f'{field}: {path}: no data in this folder, expected {train}.* or other files of kind '
                        + ', '.join(KINDS))
    return pool, test


def check_columns(table: Table, names: dict[str, str]) -> None:
    """Raises DataError at the first column of `names` (column -> the config field that asks for it, '' = the task)
    that the table does not have; lists the columns, the nearest name first."""
    for name, field in names.items():
        if name not in table.columns:
            near = difflib.get_close_matches(name, table.columns, len(table.columns), 0.5)
            listed = near + [c for c in table.columns if c not in near]
            asked = f'{field}: ' if field else ''
            raise DataError(f'{table.source}: {asked}no column {name!r}, it has '
                            + shorten(', '.join(map(repr, listed)), 300))


def numbered(tables: list[Table]) -> Iterator[tuple[Table, int, dict]]:
    """(table, i, row) of every row."""
    for table in tables:
        for i, row in enumerate(table.rows):
            yield table, i, row


def one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:160] or type(error).__name__


def shorten(text: str, length: int) -> str:
    """`text`, with the middle left out beyond `length` characters."""
    if len(text) <= length:
        return text
    return f'{text[:length * 2 // 3]} … {text[-(length // 3):]}'
