"""What an idea is: one Python file of at most 30 lines of code that registers something, or a JSON file of fields.

The checks here read the text and run nothing. They are for honest mistakes and plain leaks, in one line each; who means
to get around them can, and is then held by the sandbox.
"""
import ast
import dataclasses
import hashlib
import io
import json
import pathlib
import re
import tokenize
from typing import Any

from w2s_jax.api import ConfigError

MOST_LINES, MOST_BYTES, LARGEST = 30, 20_000, 1e15
IMPORTS = ('chex', 'collections', 'dataclasses', 'flax', 'functools', 'itertools', 'jax', 'math', 'numpy', 'optax',
           'scipy', 'typing', 'w2s_jax')
OURS = ('graph', 'labels', 'losses', 'methods', 'metrics', 'objectives', 'registry', 'train.stopping')
FORBIDDEN = ('__import__', 'breakpoint', 'compile', 'eval', 'exec', 'globals', 'input', 'locals', 'open', 'vars')
# Registry -> the field that names what is registered there.
CHOSEN = {'LOSSES': 'student.loss.name', 'OBJECTIVES': 'student.loss.name', 'TRANSFORMS': 'labels.transforms',
          'METHODS': 'method.name', 'STOPPING': 'student.stopping.name'}
# What a delta, or CONFIG in an idea, may set; of these again what it may not.
FIELDS = re.compile(r'(student\.(loss|stopping)\.\w+|student\.(learning_rate|epochs)|optimizer\.\w+|method\.\w+'
                    r'|train\.(epochs|batch_size|evaluations)|labels\.transforms|labels\.\w+\.\w+)')
SEALED = ('method.baselines', 'method.share', 'method.label_noise')
MAY = 'student.loss.*, student.stopping.*, student.learning_rate, optimizer.*, train.epochs, labels.*, method.*'
PLACES = re.compile(r'[/\\~]|^\.')  # of a text that names a file or a hub id


@dataclasses.dataclass(frozen=True)
class Idea:
    """name: of its file.  text: all of it.  delta: field -> value, also those that choose what it registers.  code:
    whether there is some to run."""
    name: str
    text: str
    delta: dict[str, Any]
    code: bool

    @property
    def hash(self) -> str:
        """Of its text, 16 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def load(path: str | pathlib.Path) -> Idea:
    """The idea in a file. Raises ConfigError, one line, for what is none."""
    path = pathlib.Path(path)
    if path.suffix not in ('.py', '.json'):
        raise ConfigError(f'{path}: expected a .py file, or a .json file of fields')
    try:
        if not path.is_file():
            raise ConfigError(f'{path}: no such file')
        raw = path.read_bytes()[:MOST_BYTES + 1]
    except OSError as e:
        raise ConfigError(f'{path}: cannot be read ({e.strerror})') from None
    return parse(path.name, raw)


def parse(name: str, raw: bytes | str) -> Idea:
    """The idea in a text. name: of its file, .py or .json. Raises ConfigError."""
    raw = raw.encode() if isinstance(raw, str) else raw
    if len(raw) > MOST_BYTES:
        raise ConfigError(f'{name}: more than {MOST_BYTES} bytes, expected an idea')
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ConfigError(f'{name}: no UTF-8 text') from None
    if name.endswith('.json'):
        return Idea(name, text, checked(name, read(name, text)), False)
    return Idea(name, text, read_code(name, text), True)


def from_delta(delta: dict[str, Any]) -> Idea:
    """An idea of fields alone, as drivers make them. Raises ConfigError."""
    try:
        text = json.dumps(delta, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise ConfigError(f'delta: {e}, expected what JSON has') from None
    return parse('delta.json', text)


def read(name: str, text: str) -> dict[str, Any]:
    """The fields of a JSON text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ConfigError(f'{name}: no JSON ({" ".join(str(e).split())[:120]})') from None
    if not isinstance(found, dict):
        raise ConfigError(f'{name}: a {type(found).__name__}, expected an object of fields: {{"train.epochs": 8}}')
    return found


def checked(name: str, delta: dict[str, Any]) -> dict[str, Any]:
    """A delta whose fields may all be set. Raises ConfigError."""
    for field, value in delta.items():
        if not isinstance(field, str) or not FIELDS.fullmatch(field) or field in SEALED:
            raise ConfigError(f'{name}: {field!r} is not for ideas, expected of {MAY}')
        if not simple(value):
            raise ConfigError(f'{name}: {field}: {str(value)[:60]!r}, expected a number, a switch, a word or a list of '
                              'words; no path and no hub id')
    return delta


def simple(value) -> bool:
    """Whether a value of a field is a finite number, a switch, a word, or a list of these."""
    if isinstance(value, list | tuple):
        return len(value) <= 16 and all(simple(v) and not isinstance(v, list | tuple) for v in value)
    if isinstance(value, int | float):
        return abs(value) < LARGEST  # false for nan, too
    return value is None or (
        isinstance(value, str) and len(value) <= 60 and not PLACES.search(value))


def read_code(name: str, text: str) -> dict[str, Any]:
    """The fields that a Python file sets: what it registers is chosen, and its CONFIG. Raises ConfigError."""
    try:
        tree = ast.parse(text)
        lines = code_lines(text, tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as e:
        line = f', line {e.lineno}' if isinstance(e, SyntaxError) and e.lineno else ''
        raise ConfigError(f'{name}{line}: no Python ({getattr(e, "msg", None) or e})') from None
    if lines > MOST_LINES:
        raise ConfigError(f'{name}: {lines} lines of code, expected at most {MOST_LINES}')
    for node in ast.walk(tree):
        if wrong := objection(node):
            raise ConfigError(f'{name}, line {getattr(node, "lineno", 1)}: {wrong}')
    chosen = registered(name, tree)
    return chosen | checked(name, config_of(name, tree))


def code_lines(text: str, tree: ast.Module) -> int:
    """Lines that hold code: no comments, no docstrings, nothing empty."""
    quiet = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            quiet |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            found |= set(range(token.start[0], token.end[0] + 1))
    return len(found - quiet)


def objection(node: ast.AST) -> str:
    """Why a node does not belong into an idea; ''."""
    if isinstance(node, ast.Import):
        return next((why for alias in node.names if (why := no_import(alias.name))), '')
    if isinstance(node, ast.ImportFrom):
        if node.level:
            return 'a relative import, expected none'
        whole = node.module or ''
        names = [f'{whole}.{alias.name}' for alias in node.names] if whole == 'w2s_jax' else [whole]
        return next((why for name in names if (why := no_import(name))), '')
    if isinstance(node, ast.Name) and node.id in FORBIDDEN:
        return f'{node.id} is not for ideas'
    if isinstance(node, ast.Attribute) and node.attr.startswith('_'):
        return f'.{node.attr} is not for ideas'
    return ''


def no_import(name: str) -> str:
    """Why a module may not be imported; ''."""
    top, _, rest = name.partition('.')
    if top not in IMPORTS:
        return f'imports {name}, expected of {", ".join(IMPORTS)}'
    if top == 'w2s_jax' and not any(rest == one or rest.startswith(f'{one}.') for one in OURS):
        return f'imports {name}, expected of w2s_jax: {", ".join(OURS)}'
    return ''


def registered(name: str, tree: ast.Module) -> dict[str, Any]:
    """Field -> name of what the decorators of a file register. Raises ConfigError unless that is one of a kind."""
    out: dict[str, Any] = {}
    for node in ast.walk(tree):
        for call in getattr(node, 'decorator_list', ()):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == 'register'
                    and isinstance(call.func.value, ast.Name)):
                continue
            registry, word = call.func.value.id, call.args[0] if call.args else None
            if registry not in CHOSEN:
                raise ConfigError(f'{name}, line {call.lineno}: {registry} is not for ideas, expected of '
                                  f'{", ".join(CHOSEN)}')
            if not (isinstance(word, ast.Constant) and isinstance(word.value, str)):
                raise ConfigError(f'{name}, line {call.lineno}: {registry}.register: expected a name in quotes')
            field = CHOSEN[registry]
            if field in out:
                raise ConfigError(f'{name}, line {call.lineno}: registers a second {field}, expected one')
            out[field] = [word.value] if field == 'labels.transforms' else word.value
    if not out:
        raise ConfigError(f"{name}: registers nothing, expected @LOSSES.register('name') or another of "
                          f'{", ".join(CHOSEN)}')
    return out


def config_of(name: str, tree: ast.Module) -> dict[str, Any]:
    """The literal that a file calls CONFIG; {}."""
    found = [node for node in tree.body if isinstance(node, ast.Assign)
             and any(isinstance(t, ast.Name) and t.id == 'CONFIG' for t in node.targets)]
    if not found:
        return {}
    try:
        value = ast.literal_eval(found[0].value)
    except (ValueError, TypeError, RecursionError, MemoryError):
        value = None
    if len(found) > 1 or not isinstance(value, dict):
        raise ConfigError(f'{name}, line {found[-1].lineno}: CONFIG, expected one dict of fields and plain values')
    return value
