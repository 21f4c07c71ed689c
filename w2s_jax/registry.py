"""Registries: name -> function, with its settings, its version and one line of documentation.

Whoever registers declares what can be set; from that come config fields, their checks, what is traced, `w2s list` and
the reference in the docs. Code from outside (`config.plugins`) registers with the same call and has the same rights.
"""
import ast
import dataclasses
import difflib
import hashlib
import inspect
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from w2s_jax.errors import ConfigError

RESERVED = ('name', 'version', 'seed')


@dataclasses.dataclass(frozen=True)
class Setting:
    """One number, word or switch that can be set.

    default: None for a number that falls back on another field, then of type `kind`.  low, high: the range of numbers;
    ends: whether the ends belong to it, '[]', '()' ...  choices: the words that are allowed.  traced: runs that differ
    in it train in one program.  decides: whether it changes results, or only how they are computed.  several: a tuple
    of words may stand there, which becomes one text with commas.
    """
    default: Any
    low: float | None = None
    high: float | None = None
    ends: str = '[]'
    choices: tuple = ()
    traced: bool = False
    doc: str = ''
    kind: type | None = None
    decides: bool = True
    several: bool = False

    @property
    def type(self) -> type:
        """Of its values."""
        return self.kind or (float if self.default is None else type(self.default))

    def check(self, field: str, value) -> None:
        """Raises ConfigError, naming the field and what was expected, unless `value` is allowed."""
        if value is None and self.default is None:
            return
        whole = self.type in (int, float) and isinstance(value, bool)
        if whole or not isinstance(value, (int, float) if self.type is float else self.type):
            hint = f", as '{self.default}'" if self.type is tuple and self.default else ''
            raise ConfigError(f'{field}: {value!r}, expected a {self.type.__name__}{hint}')
        if self.choices:
            for word in value if isinstance(value, tuple | list) else (value,):
                known(field, word, dict.fromkeys(self.choices))
        if self.low is not None or self.high is not None:
            self._check_range(field, value)

    def _check_range(self, field: str, value) -> None:
        low = -float('inf') if self.low is None else self.low
        high = float('inf') if self.high is None else self.high
        inside = low < value < high or (value == low and self.ends[0] == '[') or (value == high and self.ends[1] == ']')
        if not inside:
            raise ConfigError(f'{field}: {value}, expected a number in {self.ends[0]}{low:g}, {high:g}{self.ends[1]}')


class Settings(dict):
    """The settings of one registered thing, as attributes. One that was not declared is an error, never 0."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise ConfigError(f'setting {name!r}: not declared, expected one of {", ".join(sorted(self)) or "none"}; '
                              f'declare it where it is registered: {name}=Setting(default)') from None


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """What a registry holds under a name.

    version: of its code, part of the id of every phase that uses it: a number, and for code from outside the hash of
    its source.  options: what the registry asks for beside settings.
    """
    name: str
    fn: Callable
    version: str
    settings: dict[str, Setting]
    options: dict[str, Any]
    doc: str

    def identity(self, values: Mapping) -> dict:
        """What decides results: name, version and its static settings as `values` has them. JSON."""
        return {'name': self.name, 'version': self.version,
                **{k: _plain(values[k]) for k, s in self.settings.items() if not s.traced and s.decides}}

    def traced(self, values: Mapping) -> dict:
        """Its traced settings as `values` has them."""
        return {k: values[k] for k, s in self.settings.items() if s.traced}


class Registry(Mapping):
    """Name -> Entry. what: of what, in the singular.  options: other keywords that `register` takes.

    traces: whether its settings may be traced.
    """

    def __init__(self, what: str, options: tuple[str, ...] = (), traces: bool = False):
        self.what, self.options, self.traces = what, options, traces
        self.entries: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __setitem__(self, name: str, fn) -> None:
        raise ConfigError(f'{self.what} {name!r}: registries take no assignment, expected .register({name!r}) above '
                          'the function')

    def register(self, name: str, version: int = 1, **fields: Any) -> Callable:
        """A decorator that adds a function under `name`; in `fields` are its settings and the registry's options.

        Raises ConfigError for a name that is taken, or a setting that is none.
        """
        options = {k: fields.pop(k) for k in self.options if k in fields}
        for field, setting in fields.items():
            if not isinstance(setting, Setting) or field in RESERVED:
                raise ConfigError(f'{self.what} {name!r}: {field}={setting!r}, expected a Setting(default) '
                                  f'under another name than {", ".join(RESERVED)}')
            if setting.traced and not self.traces:
                raise ConfigError(f'{self.what} {name!r}: {field} cannot be traced, expected traced=False')

        def add(fn: Callable) -> Callable:
            self._add(name, fn, str(version), fields, options)
            return fn
        return add

    def _add(self, name: str, fn: Callable, version: str, settings: dict, options: dict) -> None:
        before = self.entries.get(name)
        if before is not None and before.fn.__module__ != fn.__module__:
            raise ConfigError(f'{self.what} {name!r}: {before.fn.__module__} has it already, expected another name')
        if not fn.__module__.startswith('w2s_jax.'):
            version += f'-{source_hash(fn)}'
        lines = (inspect.getdoc(fn) or '').splitlines()
        self.entries[name] = Entry(name, fn, version, settings, options, lines[0] if lines else '')

    def get_entry(self, name: str, field: str) -> Entry:
        """The entry of that name. Raises ConfigError with the nearest name; `field` is where the user wrote it."""
        known(field, name, self)
        return self.entries[name]


def known(field: str, name: str, table: Mapping) -> str:
    """`name`, if the table has it. Raises ConfigError that lists the table and the nearest name."""
    if isinstance(name, str) and name in table:
        return name
    near = difflib.get_close_matches(str(name), table, 1)
    hint = f'; did you mean {near[0]!r}?' if near else ''
    raise ConfigError(f'{field}: unknown {name!r}, expected one of {", ".join(sorted(table))}{hint}')


def source_hash(fn: Callable) -> str:
    """12 hex digits over the source that `fn` comes from: its module, and those beside it that this one uses.

    Raises ConfigError if there is no source to read, for what cannot be told apart cannot be trusted.
    """
    module = sys.modules.get(fn.__module__)
    path = getattr(module, '__file__', None)
    try:
        texts = _sources(pathlib.Path(path)) if path else [inspect.getsource(fn)]
    except (OSError, TypeError):
        raise ConfigError(f'{fn.__module__}.{fn.__name__}: its source cannot be read, expected a module in a file'
                          ) from None
    return hashlib.sha256('\0'.join(texts).encode()).hexdigest()[:12]


def _sources(path: pathlib.Path) -> list[str]:
    """The texts of a module's file and of the modules in its folder, or below, that it imports, in order."""
    folder, found, todo = path.resolve().parent, {}, [path.resolve()]
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found[file] = file.read_text()
        todo += [f for name in _imports(found[file]) for f in (folder / f'{name}.py', folder / name / '__init__.py')
                 if f.exists() and 'site-packages' not in f.parts]
    return [found[f] for f in sorted(found)]


def _imports(text: str) -> list[str]:
    """The modules that a source imports, as paths below its folder; this package's own versions count for it."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f'{node.module}.' if node.module else ''
            names += [node.module or '', *(f'{base}{alias.name}' for alias in node.names)]
    return [n.replace('.', '/') for n in names if n and n.partition('.')[0] != 'w2s_jax']


def _plain(value):
    return list(value) if isinstance(value, tuple) else value

