"""The one place where every section of a config takes its fields and defaults, and where a config is checked.

A section has fixed fields and, where it names something registered (a task, a method, a loss ...), the settings of
what it names: `method.chain` exists only if the method has it. `compose` brings a config into that form.
"""
import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from w2s_jax.diagnostics import DIAGNOSTICS
from w2s_jax.diagnostics.alarms import ALARMS
from w2s_jax.errors import ConfigError
from w2s_jax.labels.sources import SOURCES
from w2s_jax.labels.transforms import TRANSFORMS
from w2s_jax.losses import LOSSES
from w2s_jax.methods.registry import METHODS
from w2s_jax.models import zoo
from w2s_jax.models.config import ATTENTIONS, REMATS
from w2s_jax.models.modes import MODES
from w2s_jax.objectives import OBJECTIVES
from w2s_jax.registry import Entry, Setting, Settings, known
from w2s_jax.report.sinks import SINKS
from w2s_jax.tasks import TASKS
from w2s_jax.text import plain
from w2s_jax.train import adversarial, attacks, conflict, evidential, preference  # noqa: F401
from w2s_jax.train.optimizers import OPTIMIZERS, SCHEDULES
from w2s_jax.train.stopping import HOLDOUT, STOPPING

MANY = 10**9
ConfigSection = ml_collections.ConfigDict | ml_collections.FrozenConfigDict
RATE: dict[str, Any] = {'low': 0, 'high': 1e3, 'traced': True}


def _how(default, **options) -> Setting:
    """A setting of how something is computed: it may change when a run is resumed, and does not change results."""
    return Setting(default, decides=False, **options)


def _model(model: str) -> dict[str, Setting]:
    return {
        'model': Setting(model, doc='a name of `w2s list models`, a folder, or a hub id'),
        'mode': Setting('full', choices=tuple(MODES), doc='full, lora, probe (the head alone, on stored features)'),
        'dtype': Setting('float32', choices=('float32', 'bfloat16'), doc='of the computation'),
        'read_out': Setting('', choices=('', 'last', 'first', 'mean', 'pooled'),
                            doc="what the head reads of a text's tokens or an image's places; '': as the model was "
                                'made for'),
        'layers': Setting(0, 0, MANY, doc="of a pretrained model's blocks, how many are used, from the first; 0: all"),
        'intercept': Setting(True, doc="a pretrained model's head has one; it starts at the shares of the labels"),
        'learning_rate': Setting(None, **RATE, doc='None: optimizer.learning_rate'),
        'epochs': Setting(None, 1, MANY, kind=int, doc='None: train.epochs'),
    }


LORA = {'rank': Setting(8, 1, 10**6), 'alpha': Setting(16., 0, 1e6, '(]'),
        'targets': Setting('attention/|mlp/', doc='a regular expression on paths of linear layers')}

STOPS = {'name': Setting('auto', doc="a rule on held-out training labels chooses the step; auto: `calibrated` for "
                                     "probes, none for others; '': the last step"),
         'holdout': HOLDOUT}

# Dotted section -> its fixed fields. What is registered adds its own (`NAMED`, `LISTED`).
SECTIONS: dict[str, dict[str, Setting]] = {
    '': {'seeds': Setting((0, 1, 2), traced=True, doc='each a run: its halves, its new parameters, its order of rows'),
         'plugins': Setting((), doc='modules to import first: they register losses, tasks, methods ...')},
    'task': {'name': Setting('chess'),
             'train_size': Setting(0, 0, MANY, doc='rows of the pool, both halves together; 0: all'),
             'test_size': Setting(0, 0, MANY, doc='0: a fifth'),
             'seed': Setting(0, 0, 2**32, '[)', doc='of the cut and of synthetic data')},
    'teacher': _model('chess-xs'),
    'teacher.loss': {'name': Setting('xent')},
    'teacher.lora': LORA,
    'teacher.stopping': STOPS,
    'student': _model('chess-m'),
    'student.loss': {'name': Setting('xent')},
    'student.lora': LORA,
    'student.stopping': STOPS,
    'method': {'name': Setting('naive'),
               'baselines': Setting(('xent',), doc='losses trained on the same labels beside student.loss, to compare'),
               'labels': Setting('soft', choices=('soft', 'hard'), doc="the teacher's probabilities, or its answer"),
               'share': Setting(.5, 0, 1, '()', doc='of the pool, for the teacher; the rest is for the student'),
               'temperature': Setting(1., 0, 1e3, '(]', traced=True, doc='T of soft labels p^(1/T)'),
               'label_noise': Setting(0., 0, 1, traced=True, doc="share of the teacher's labels replaced at random")},
    'labels': {'source': Setting('teacher', doc='teacher, or column: weak labels that come with the data'),
               'transforms': Setting((), doc='what is done to the labels before the student learns them, in order')},
    'optimizer': {'name': Setting('adamw'),
                  'schedule': Setting('cosine', choices=tuple(SCHEDULES)),
                  'learning_rate': Setting(None, **RATE, doc="None: the model's own (models/defaults.py)"),
                  'weight_decay': Setting(0., 0, 1e3, traced=True),
                  'clip': Setting(1., 0, 1e9, traced=True, doc="the gradient's norm; 0: not"),
                  'warmup': Setting(.05, 0, 1, traced=True, doc='fraction of training')},
    'train': {'epochs': Setting(2, 1, MANY), 'batch_size': Setting(32, 1, MANY),
              'accumulate': _how(1, low=1, high=MANY, doc='microbatches a step: memory, not results'),
              'eval_batch_size': _how(64, low=1, high=MANY),
              'evaluations': Setting(0, 0, 10**6, doc='points of the learning curves, and steps that a stopping rule '
                                                      'chooses from; 0: 4, or 20 where there is a rule'),
              'watch': Setting(0, 0, MANY, doc='test rows that the curves are measured on; 0: 256, of probes all'),
              'checkpoint_every': _how(100, low=0, high=MANY, doc='steps'),
              'keep': _how('all', choices=('all', 'teacher'), doc='whose parameters are stored: all, or those needed'),
              'shapes': _how(4, low=1, high=64, doc='lengths that texts are padded to; one program each'),
              'window': Setting(8, 1, 10**6, doc='batches of texts dealt out by length together'),
              'runs': _how('auto', choices=('auto', 'vmap', 'map'), doc='runs of a program: side by side, or in turn'),
              'driver': _how('jit', choices=('jit', 'pmap'), doc='of training steps: a mesh, or the devices of a host'),
              'remat': _how('auto', choices=('auto', *REMATS), doc='what is kept for the backward pass'),
              'attention': _how('auto', choices=tuple(ATTENTIONS), doc='xla, cudnn (NVIDIA, bfloat16), splash (TPU)'),
              'memory': _how(None, low=0, high=1e6, ends='(]', doc='gigabytes for the runs of a program; None: most')},
    'mesh': {'data': _how(-1, doc='-1: all the devices that are left'), 'fsdp': _how(1), 'tensor': _how(1)},
    'attack': attacks.SETTINGS,
    'report': {'html': _how(True), 'examples': Setting(6, 0, 10**6), 'resamples': Setting(2000, 100, 10**6),
               'sinks': _how(('tensorboard',), choices=tuple(SINKS), doc='where numbers go beside metrics.jsonl'),
               'diagnostics': Setting((), doc='what else is measured on stored predictions'),
               'accept': _how((), choices=tuple(ALARMS), doc='codes of alarms that do not mark a PGR any more')},
}


@dataclasses.dataclass(frozen=True)
class Named:
    """A section whose field names something registered, with whose settings it is filled up.

    loose: whether another name than those is something else (a model: a folder or hub id; a stopping rule: none).
    """
    section: str
    field: str
    registry: Mapping[str, Entry]
    loose: bool = False


class _Both(Mapping):
    """Two registries as one."""

    def __init__(self, *parts: Mapping):
        self.parts = parts

    def __getitem__(self, name: str) -> Entry:
        for part in self.parts:
            if name in part:
                return part[name]
        raise KeyError(name)

    def __iter__(self):
        return (name for part in self.parts for name in part)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __contains__(self, name) -> bool:
        return any(name in part for part in self.parts)


AIMS = _Both(LOSSES, OBJECTIVES)
NAMED = (Named('task', 'name', TASKS), Named('method', 'name', METHODS), Named('optimizer', 'name', OPTIMIZERS),
         Named('teacher', 'model', zoo.MODELS, loose=True), Named('student', 'model', zoo.MODELS, loose=True),
         Named('teacher.loss', 'name', AIMS), Named('student.loss', 'name', AIMS),
         *(Named(f'{role}.stopping', 'name', STOPPING, loose=True) for role in ('teacher', 'student')))
# Fields that name several: each has a section of its own below, as `labels.knn.k`.
LISTED = (Named('labels', 'source', SOURCES), Named('labels', 'transforms', TRANSFORMS),
          Named('report', 'diagnostics', DIAGNOSTICS))


def default_config() -> ml_collections.ConfigDict:
    """Every field with its default. Configs start from this and change what they must."""
    return compose(ml_collections.ConfigDict())


def settings(config) -> dict[str, Setting]:
    """Dotted field -> what may stand there, of all fields that this config has. Raises ConfigError for a name that is
    not registered."""
    found = {_dotted(part, name): s for part, fields in SECTIONS.items() for name, s in fields.items()}
    for named in NAMED:
        name = _value(config, _dotted(named.section, named.field), found)
        if not named.loose or (isinstance(name, str) and name in named.registry):
            known(_dotted(named.section, named.field), name, named.registry)
            more = {_dotted(named.section, k): s for k, s in named.registry[name].settings.items()}
            for field in more.keys() & found.keys():
                raise ConfigError(f'{name!r}: has a setting of the name of the field {field}, expected another')
            found |= more
    for named in LISTED:
        field = _dotted(named.section, named.field)
        value = _value(config, field, found)
        for name in value if isinstance(value, tuple | list) else (value,):
            known(field, name, named.registry)
            found |= {f'{named.section}.{name}.{k}': s for k, s in named.registry[name].settings.items()}
    return found


def check_kind(config) -> None:
    """Raises ConfigError for what is no config at all."""
    if not isinstance(config, ConfigSection):
        raise ConfigError(f'config: {str(config)[:60]!r}, a {type(config).__name__}; expected a ConfigDict, as '
                          'w2s_jax.default_config() gives')


def compose(config) -> ml_collections.ConfigDict:
    """A config with exactly the fields that what it names has: those that are missing at their defaults, and without
    those of what it does not name any more. Raises ConfigError for a field that is nobody's."""
    wanted, given = settings(config), _leaves(config)
    for field in given.keys() - wanted.keys():
        if given[field] not in _defaults(field):
            raise ConfigError(no_such_field(field, wanted))
    out = ml_collections.ConfigDict()
    for field, setting in wanted.items():
        value = given.get(field, setting.default)
        node = out
        *path, name = field.split('.')
        for part in path:
            if part not in node:
                node[part] = ml_collections.ConfigDict()
            node = node[part]
        # An optional field keeps its type, so that a flag can set it.
        node[name] = config_dict.placeholder(setting.type) if setting.default is None else _typed(value, setting)
        if setting.default is None and value is not None:
            try:
                node[name] = plain(value)
            except (TypeError, ValueError):
                raise ConfigError(f'{field}: {value!r}, expected a {setting.type.__name__}') from None
    return out


def _typed(value, setting: Setting):
    """Lists as tuples, whole numbers where there may be others as such, several words as one text."""
    value = plain(value)
    if setting.several and isinstance(value, tuple | list) and all(isinstance(v, str) for v in value):
        return ','.join(value)
    if setting.type is tuple and isinstance(value, list):
        return tuple(value)
    return float(value) if setting.type is float and type(value) is int else value


def _dotted(part: str, name: str) -> str:
    return f'{part}.{name}' if part else name


def _value(config, field: str, found: dict[str, Setting]):
    node = config
    for part in field.split('.'):
        if isinstance(node, ConfigSection) and part not in node:
            return found[field].default
        if not isinstance(node, ConfigSection):
            raise ConfigError(f'{field.rpartition(".")[0]}: {str(node)[:60]!r}, expected a section with fields')
        node = node[part]
    return node


def _leaves(config) -> dict:
    """Dotted field -> value, tuples as they are."""
    out: dict = {}

    def visit(node, prefix):
        for name in node:
            value = node[name]
            if not isinstance(name, str):
                raise ConfigError(f'{prefix}{name!r}: expected a name of a field')
            if isinstance(value, ConfigSection):
                visit(value, f'{prefix}{name}.')
            else:
                out[prefix + name] = value
    visit(config, '')
    return out


def _defaults(field: str) -> list:
    """The defaults of a field under every name that its section could have."""
    part, _, name = field.rpartition('.')
    of = [n.registry for n in NAMED if n.section == part]
    above, _, entry = part.rpartition('.')
    listed = [n.registry[entry] for n in LISTED if n.section == above and entry in n.registry]
    entries = [e for registry in of for e in registry.values()] + listed
    return [e.settings[name].default for e in entries if name in e.settings]


def no_such_field(field: str, wanted) -> str:
    """What to say of a field that is not there, with the nearest names."""
    words = field.split('.')
    sections = {'', *('.'.join(f.split('.')[:i]) for f in wanted for i in range(1, f.count('.') + 1))}
    depth = max(i for i in range(len(words)) if '.'.join(words[:i]) in sections)
    part, name = '.'.join(words[:depth]), words[depth]
    here = {f.split('.')[depth] for f in wanted if f.split('.')[:depth] == words[:depth]}
    entries = {e.name: (n, e.settings) for n in NAMED if n.section == part for e in n.registry.values()}
    owners = [owner for owner, (_, fields) in entries.items() if name in fields]
    if owners and name not in here:
        named = entries[owners[0]][0]
        return f'{field}: no such field here, expected {_dotted(part, named.field)} to be {" or ".join(owners[:4])}'
    near = difflib.get_close_matches(name, sorted(here.union(*(fields for _, fields in entries.values()))), 2)
    hint = f'; did you mean {" or ".join(_dotted(part, n) for n in near)}?' if near else ''
    return f'{field}: no such field' if name in here else f'{_dotted(part, name)}: no such field{hint}'


def validate(config) -> ml_collections.ConfigDict:
    """The config as `compose` has it. Raises ConfigError, naming the field and what was expected, at the first thing
    that cannot be run."""
    config = compose(config)
    given = _leaves(config)
    for field, setting in settings(config).items():
        setting.check(field, given[field])
    for prefix in ('teacher', 'student') if SOURCES[config.labels.source].options.get('teacher') else ('student',):
        zoo.check_name(f'{prefix}.model', config[prefix].model)
    for name in config.method.baselines:
        known('method.baselines', name, AIMS)
    for field in ('teacher.stopping', 'student.stopping'):
        if (name := config[field.partition('.')[0]].stopping.name) not in ('', 'auto'):
            known(f'{field}.name', name, STOPPING)
    _labels(config)
    for role, name in method_models(config).items():
        zoo.check_name(f'method.{role.partition("/")[0]}', name)
    if config.train.batch_size % config.train.accumulate:
        raise ConfigError(f'train.accumulate: {config.train.accumulate} does not divide '
                          f'train.batch_size {config.train.batch_size}')
    seeds = tuple(config.seeds)
    if not seeds or not all(type(s) is int and 0 <= s < 2**32 for s in seeds) or len(set(seeds)) < len(seeds):
        raise ConfigError(f'seeds: {seeds}, expected one or more distinct integers from 0 up')
    return config


def _labels(config) -> None:
    names = tuple(config.labels.transforms)
    if len(set(names)) < len(names):  # with the same settings and the same random numbers
        raise ConfigError(f'labels.transforms: {names}, expected each once')
    if SOURCES[config.labels.source].options.get('teacher'):
        return
    for name, neutral in (('temperature', 1), ('label_noise', 0)):
        if config.method[name] != neutral:
            raise ConfigError(f"method.{name}: {config.method[name]:g}, but labels.source {config.labels.source!r} has "
                              f'labels of its own, expected {neutral}')


def method_models(config) -> dict[str, str]:
    """Role -> model of those that the method has beside teacher and student; a role `FIELD/K` is of a setting FIELD."""
    entry = METHODS[config.method.name]
    make = entry.options.get('models')
    return make(chosen(config, 'method')[1]) if make else {}


def chosen(config, part: str) -> tuple[Entry, Settings]:
    """What a section names, and its settings as the section has them."""
    named = next(n for n in NAMED if n.section == part)
    node = config
    for name in part.split('.'):
        node = node[name]
    entry = named.registry[node[named.field]]
    return entry, Settings({k: node[k] for k in entry.settings})


def chosen_among(config, part: str, field: str) -> list[tuple[Entry, Settings]]:
    """What a field that names one or several names, each with its settings."""
    named, value = next(n for n in LISTED if (n.section, n.field) == (part, field)), config[part][field]
    names = (value,) if isinstance(value, str) else value
    return [(named.registry[n], Settings({k: config[part][n][k] for k in named.registry[n].settings})) for n in names]


def stopping(config, role: str, probe: bool | None = None) -> tuple[Entry, Settings] | None:
    """The rule that chooses the step of a teacher's or a student's training, and its settings; None for the last
    step. probe: whether it is one; None: as its mode says."""
    name = config[role].stopping.name
    if name == 'auto':
        probe = config[role].mode == 'probe' if probe is None else probe
        return (STOPPING['calibrated'], Settings()) if probe else None
    return chosen(config, f'{role}.stopping') if name else None


def holdout(config, role: str, probe: bool | None = None) -> float:
    """The share of a role's rows that its stopping rule holds out of training. probe: as `stopping` has it."""
    rule = stopping(config, role, probe)
    return config[role].stopping.holdout if rule and not rule[0].options.get('learned') else 0.0


def check_name(field: str, config=None) -> None:
    """Raises ConfigError, with the nearest names, unless dotted `field`, or a section, is in a config."""
    wanted = settings(config if config is not None else default_config())
    if field not in wanted and not any(f.startswith(f'{field}.') for f in wanted):
        raise ConfigError(no_such_field(field, wanted))


def check_text(field: str, text: str | None, config) -> None:
    """Raises ConfigError if the text of a flag is one number where several values are expected: `seeds=3` is neither
    three seeds nor one."""
    setting = settings(config).get(field)
    if setting and setting.type is tuple and re.fullmatch(r'[-+]?\d+', (text or '').strip()):
        hint = f", as '{setting.default}'" if setting.default else ''
        raise ConfigError(f'{field}: {text}, expected a tuple{hint}; for one value {field}=({text},)')


def decides(config, field: str) -> bool:
    """Whether a field changes results, and not only how they are computed."""
    found = settings(config).get(field)
    return found is None or found.decides


def naming(field: str) -> bool:
    """Whether a field decides which other fields there are; such are set first."""
    return field == 'plugins' or any(field == _dotted(n.section, n.field) for n in (*NAMED, *LISTED))


def flat(config) -> dict:
    """Dotted field -> plain JSON value."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in _leaves(config).items()}
