"""What is registered, as text: `w2s list [losses|objectives|...] [--plugins=module,...]`."""
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from w2s_jax.errors import ConfigError
from w2s_jax.registry import Entry, Setting, known

# What may be listed -> where it is registered; imported when it is asked for.
REGISTRIES = {
    'config': ('w2s_jax.config', 'SECTIONS'),
    'losses': ('w2s_jax.losses', 'LOSSES'),
    'objectives': ('w2s_jax.objectives', 'OBJECTIVES'),
    'tasks': ('w2s_jax.tasks', 'TASKS'),
    'models': ('w2s_jax.models.zoo', 'MODELS'),
    'methods': ('w2s_jax.methods', 'METHODS'),
    'sources': ('w2s_jax.labels.sources', 'SOURCES'),
    'transforms': ('w2s_jax.labels.transforms', 'TRANSFORMS'),
    'combiners': ('w2s_jax.labels.ensembles', 'COMBINERS'),
    'errors': ('w2s_jax.labels.errors', 'STRUCTURES'),
    'stopping': ('w2s_jax.train.stopping', 'STOPPING'),
    'diagnostics': ('w2s_jax.diagnostics', 'DIAGNOSTICS'),
    'protocols': ('w2s_jax.protocols', 'PROTOCOLS'),
    'tables': ('w2s_jax.phases.tables', 'TABLES'),
    'optimizers': ('w2s_jax.train.optimizers', 'OPTIMIZERS'),
    'algorithms': ('w2s_jax.train.policy', 'ALGORITHMS'),
    'sinks': ('w2s_jax.report.sinks', 'SINKS'),
}


def listing(name: str = '') -> str:
    """The text of one registry, or ('') of all. Raises ConfigError for a name that is none, with the nearest one."""
    names = [known('w2s list', name, REGISTRIES)] if name else list(REGISTRIES)
    return '\n\n'.join(describe(one, registry(one)) for one in names)


def registry(name: str) -> Mapping[str, Any]:
    """The registry that is listed under `name`."""
    module, variable = REGISTRIES[name]
    return getattr(importlib.import_module(module), variable)


def describe(title: str, entries: Mapping[str, Any]) -> str:
    """A title and what is registered, each with its settings below it; what has the same settings and says the same
    stands together."""
    together: dict[tuple, list[str]] = {}
    for name, entry in entries.items():
        doc, settings = _parts(entry)
        together.setdefault((doc, tuple(settings.items())), []).append(name)
    lines = [title]
    for (doc, settings), names in together.items():
        lines += [f'  {", ".join(n or "(top)" for n in names)}' + (f': {doc}' if doc else '')]
        lines += _columns([_cells(*setting) for setting in settings])
    return '\n'.join(lines if entries else [f'{title}: none'])


def _parts(entry: Any) -> tuple[str, dict[str, Setting]]:
    """Its line of documentation and its settings; sinks are plain functions, without any, and sections of a config are
    settings alone."""
    if isinstance(entry, dict):
        return '', entry
    if isinstance(entry, Entry):
        return entry.doc, entry.settings
    return (inspect.getdoc(entry) or '').partition('\n')[0], {}


def _cells(name: str, setting: Setting) -> list[str]:
    return [f'{name} = {setting.default!r}', allowed(setting), 'traced' if setting.traced else '', setting.doc]


def allowed(setting: Setting) -> str:
    """What may stand there: words, a range with its ends, or a type."""
    if setting.choices:
        return ' | '.join(map(repr, setting.choices))
    kind = setting.type.__name__
    if setting.low is None and setting.high is None:
        return kind
    low = '(-inf' if setting.low is None else f'{setting.ends[0]}{setting.low:g}'
    high = 'inf)' if setting.high is None else f'{setting.high:g}{setting.ends[1]}'
    return f'{kind} in {low}, {high}'


def _columns(rows: list[list[str]]) -> list[str]:
    """Rows of cells below each other; without columns in which nothing stands."""
    full = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in full]
    return ['      ' + '  '.join(map(str.ljust, row, widths)).rstrip() for row in zip(*full, strict=True)]


def page() -> str:
    """docs/config.md: everything that can be set."""
    return f"""# Everything that can be set

What `w2s list` prints (`make docs` writes this page): name, default, what may stand there, `traced` where runs that
differ in it train in one program. A section has its fixed fields below `config`, and the settings of what it names:
`--config.student.loss.name=confidence` brings `--config.student.loss.alpha`.

```
{listing()}
```
"""


def load(plugins: str) -> None:
    """Imports plug-ins, `module,module`. Raises ConfigError for one that cannot be imported."""
    if plugins:
        from w2s_jax.engine import plan
        plan.load_plugins({'plugins': [name.strip() for name in plugins.split(',') if name.strip()]})


def parse(arguments: list[str]) -> tuple[str, str]:
    """(what to list, '' for all; plug-ins) of the command's arguments. Raises ConfigError."""
    name = plugins = ''
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        flag, given, value = word.partition('=')
        if flag in ('--plugins', '-plugins'):
            plugins = value if given else (rest.pop(0) if rest else '')
        elif word.startswith('-') or name:
            raise ConfigError(f'w2s list: unexpected {word!r}, expected one name of {", ".join(REGISTRIES)}, and '
                              '--plugins=module,...')
        else:
            name = word
    if name:
        known('w2s list', name, REGISTRIES)
    return name, plugins


HELP = f"""What is registered, with its settings: default, what may stand there, whether it is traced.

  w2s list [{"|".join(REGISTRIES)}] [--plugins=module,...]

Traced: runs that differ in it train in one program. Without a name: everything.
--plugins: modules that register more, as config.plugins has them."""


def run(arguments: list[str]) -> int:
    """`w2s list`. Returns the exit status. Raises ConfigError."""
    if {'-h', '--help', '-help'} & set(arguments):
        print(HELP)
        return 0
    name, plugins = parse(arguments)
    load(plugins)
    print(listing(name))
    return 0
