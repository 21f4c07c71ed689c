"""A config is checked before anything is computed, and what is wrong is named by its field."""
import dataclasses
import importlib.util
import json
import pathlib

import ml_collections
import pytest

from w2s_jax import config as configs
from w2s_jax.config import default_config
from w2s_jax.errors import ConfigError
from w2s_jax.methods import METHODS
from w2s_jax.registry import Setting

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / 'configs').rglob('*.py'))
NAN, INF = float('nan'), float('inf')


def home(field: str) -> ml_collections.ConfigDict:
    """The default config, or that which names what brings the field along."""
    config = default_config()
    part, _, name = field.rpartition('.')
    for named in configs.NAMED:
        owner = next((n for n, entry in named.registry.items() if name in entry.settings), '')
        if named.section == part and field not in configs.settings(config) and owner:
            config = configs.compose(put(config, f'{part}.{named.field}', owner))
    for named in configs.LISTED:
        section, _, owner = part.rpartition('.')
        if named.section == section and owner in named.registry:
            config = configs.compose(put(config, f'{section}.{named.field}', (owner,)))
    return config


def put(config, field: str, value) -> ml_collections.ConfigDict:
    """The config with one field set, past the type checks of ConfigDict."""
    config = ml_collections.ConfigDict(config.to_dict())
    *sections, name = field.split('.')
    node = config
    for section in sections:
        node = node[section]
    with node.ignore_type():
        node[name] = value
    return config


def changed(field: str, value) -> ml_collections.ConfigDict:
    return put(home(field), field, value)


def message(config) -> str:
    with pytest.raises(ConfigError) as e:
        configs.validate(config)
    assert '\n' not in str(e.value)
    return str(e.value)


def test_the_default_config_is_valid():
    assert configs.validate(default_config()) == default_config()
    assert configs.validate(ml_collections.FrozenConfigDict(default_config())) == default_config()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_is_valid(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    configs.validate(module.get_config())


def every_setting() -> dict[str, Setting]:
    """Dotted field -> Setting, of all that is fixed or registered."""
    found = {f'{part}.{name}' if part else name: s for part, fields in configs.SECTIONS.items()
             for name, s in fields.items()}
    for named in configs.NAMED:
        for entry in named.registry.values():
            found |= {f'{named.section}.{k}': s for k, s in entry.settings.items()}
    for named in configs.LISTED:
        for name, entry in named.registry.items():
            found |= {f'{named.section}.{name}.{k}': s for k, s in entry.settings.items()}
    return found


SETTINGS = every_setting()
RANGED = sorted(field for field, s in SETTINGS.items() if s.low is not None or s.high is not None)


GOOD = {
    'task.name': 'salient_concept', 'task.path': 'file.csv', 'task.seed': 2**31, 'task.train_size': 100,
    'labels.source': 'column', 'teacher.epochs': 3, 'teacher.learning_rate': 0.0, 'student.learning_rate': 1,
    'student.model': 'mlp-128', 'student.loss.name': 'product', 'student.loss.alpha': 0,
    'student.loss.alpha_warmup': 1.0,
    'method.baselines': (), 'method.labels': 'hard', 'method.share': .01, 'optimizer.name': 'sgd',
    'optimizer.schedule': 'linear', 'optimizer.clip': 0.0, 'train.batch_size': 1, 'train.runs': 'map',
    'train.checkpoint_every': 0, 'seeds': (2**32 - 1, 0), 'report.html': False, 'report.examples': 0,
}


@pytest.mark.parametrize('field', GOOD)
def test_good_values_are_valid(field):
    configs.validate(changed(field, GOOD[field]))


BAD = [
    *((field, value) for field in RANGED for value in (NAN, INF, -INF, min(-1, (SETTINGS[field].low or 0) - 1))),
    *((f'{who}.{field}', value) for who in ('teacher', 'student') for field, value in (
        ('loss.alpha', -.1), ('loss.alpha', 1.1), ('loss.alpha_warmup', 1.5), ('learning_rate', -1e-3), ('epochs', 0),
        ('mode', 'lorra'), ('loss.name', 'xnet'))),
    ('optimizer.learning_rate', 1e4), ('optimizer.beta2', 0.0), ('optimizer.beta2', 1.0), ('optimizer.warmup', 1.01),
    ('train.epochs', 0), ('train.batch_size', 0), ('train.accumulate', 0), ('train.accumulate', 3),
    ('train.accumulate', 64), ('train.evaluations', -1), ('train.watch', -1), ('train.runs', 'pmap'),
    ('report.resamples', 99), ('method.share', 0.0), ('method.share', 1.0), ('method.labels', 'harder'),
    ('method.baselines', ('xent', 'nonsense')), ('task.max_bad_rows', 1.0),
    ('seeds', ()), ('seeds', (1, 1)), ('seeds', (0, -1)), ('seeds', (.5,)), ('seeds', ('a',)), ('seeds', (2**32,)),
    ('seeds', (True,)), ('seeds', ((0, 1),)), ('seeds', 3),
    ('train.epochs', 'two'), ('train.epochs', 2.5), ('task', 'chess'), ('task.name', None), ('student.loss', 'xent'),
    ('student.loss.alpha', 'half'), ('report.html', 'yes'),
]


@pytest.mark.parametrize(('field', 'value'), BAD, ids=lambda x: str(x))
def test_a_bad_value_is_an_error_that_begins_with_the_field(field, value):
    assert message(changed(field, value)).startswith(f'{field}: ')


@pytest.mark.parametrize(('field', 'value', 'near'), [
    ('student.loss.name', 'confidense', 'confidence'), ('teacher.loss.name', 'xentt', 'xent'),
    ('student.model', 'chess-xm', 'chess-m'), ('teacher.model', 'mlp-123', 'mlp-128'),
    ('task.name', 'ches', 'chess'), ('method.name', 'naiv', 'naive'), ('optimizer.name', 'adam', 'adamw'),
    ('optimizer.schedule', 'cosin', 'cosine'), ('method.baselines', ('xnt',), 'xent'),
])
def test_an_unknown_name_is_answered_with_the_nearest(field, value, near):
    text = message(changed(field, value))
    assert text.startswith(f'{field}: ') and f'did you mean {near!r}?' in text
    assert repr(value if isinstance(value, str) else value[0]) in text


def test_a_student_cannot_be_given():
    assert message(changed('student.model', 'given')).startswith("student.model: unknown 'given'")


@pytest.mark.parametrize(('field', 'near'), [
    ('trian', 'did you mean train?'), ('train.epoch', 'did you mean train.epochs?'),
    ('student.modle', 'student.model'), ('student.loss.alfa', 'student.loss.alpha'), ('zzz', 'no such field')])
def test_an_unknown_field_is_answered_with_the_nearest(field, near):
    with pytest.raises(ConfigError) as e:
        configs.check_name(field)
    for text in (message(changed(field, 1)), str(e.value)):
        assert text.startswith(f'{field}: no such field') and near in text


def test_check_name_knows_every_field_and_section():
    for field in [*configs.flat(default_config()), 'train', 'student.loss']:
        configs.check_name(field)
    with pytest.raises(ConfigError, match=r'^train.epochs.more: no such field'):
        configs.check_name('train.epochs.more')


@pytest.mark.parametrize('field', ['train', 'seeds', 'student.loss.alpha', 'train.epochs'])
def test_a_missing_field_has_its_default(field):
    config = home(field)
    whole = config.copy_and_resolve_references()
    node = config
    for name in field.split('.')[:-1]:
        node = node[name]
    del node[field.split('.')[-1]]
    assert configs.flat(configs.validate(config)) == configs.flat(whole)


def test_a_range_for_every_number():
    assert len(RANGED) > 40
    unranged = {k for k, s in SETTINGS.items() if s.type in (int, float)} - set(RANGED)
    assert unranged == {'mesh.data', 'mesh.fsdp', 'mesh.tensor'}  # checked by make_mesh
    for field, setting in SETTINGS.items():
        setting.check(field, setting.default)


def test_every_setting_is_a_field_of_a_config():
    for field in SETTINGS:
        config = home(field)
        configs.check_name(field, config)
        default = configs.settings(config)[field].default
        assert configs.flat(config)[field] == (list(default) if isinstance(default, tuple) else default)


def test_a_field_of_what_is_not_named_is_an_error_unless_it_is_at_its_default():
    config = home('student.loss.alpha')
    config.student.loss.name = 'xent'
    assert 'alpha' not in configs.validate(config).student.loss
    config.student.loss.alpha = .25
    text = message(config)
    assert text.startswith('student.loss.alpha: no such field here, expected student.loss.name to be ')
    assert 'confidence' in text


def test_flat_gives_dotted_plain_values():
    config = home('student.loss.alpha')
    config.student.loss.alpha = .25
    flat = configs.flat(config)
    assert flat['student.loss.alpha'] == .25 and flat['teacher.learning_rate'] is None
    assert flat['seeds'] == [0, 1, 2] and flat['method.baselines'] == ['xent'] and flat['plugins'] == []
    assert flat['train.epochs'] == 2 and 'train' not in flat
    assert json.loads(json.dumps(flat, allow_nan=False)) == flat
    assert configs.flat(ml_collections.FrozenConfigDict(config)) == flat


def test_a_setting_cannot_take_the_name_of_a_field(monkeypatch):
    monkeypatch.setitem(METHODS.entries, 'greedy', dataclasses.replace(
        METHODS['naive'], name='greedy', settings={'share': Setting(.1)}))
    c = configs.default_config()
    c.method.name = 'greedy'
    with pytest.raises(ConfigError, match=r"^'greedy': has a setting of the name of the field method.share"):
        configs.compose(c)
