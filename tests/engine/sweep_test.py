"""Sweeps: their algebra, and what is refused."""
import pytest

from w2s_jax import config as configs
from w2s_jax.engine import sweep
from w2s_jax.errors import ConfigError

TEACHERS = sweep.values('teacher.model', ['chess-xs', 'chess-s'])
RATES = sweep.values('student.learning_rate', [1e-3, 1e-4])


def test_product_zip_and_chain():
    assert sweep.product(TEACHERS, RATES) == [
        {'teacher.model': t, 'student.learning_rate': r} for t in ('chess-xs', 'chess-s') for r in (1e-3, 1e-4)]
    assert sweep.zipped(TEACHERS, RATES) == [{'teacher.model': 'chess-xs', 'student.learning_rate': 1e-3},
                                             {'teacher.model': 'chess-s', 'student.learning_rate': 1e-4}]
    assert sweep.chain(TEACHERS, RATES) == [*TEACHERS, *RATES]
    both = sweep.zipped(RATES, sweep.values('train.epochs', [1, 2]))
    assert len(sweep.product(sweep.chain(TEACHERS, [{}]), both)) == 6


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(ConfigError, match=r'teacher\.model is set twice'):
        sweep.product(TEACHERS, TEACHERS)
    with pytest.raises(ConfigError, match='2, 1 cells'):
        sweep.zipped(TEACHERS, RATES[:1])


def test_overrides_change_a_copy():
    config = configs.default_config()
    out = sweep.apply(config, {'student.learning_rate': 1e-3, 'seeds': [4, 5], 'teacher.model': 'chess-s'})
    assert (out.student.learning_rate, out.seeds, out.teacher.model) == (1e-3, (4, 5), 'chess-s')
    assert (config.student.learning_rate, config.seeds, config.teacher.model) == (None, (0, 1, 2), 'chess-xs')


@pytest.mark.parametrize(('overrides', 'message'), [
    ({'student.learning_rat': 1}, r'student\.learning_rat: no such field; did you mean student\.learning_rate'),
    ({'student.los.name': 'xent'}, r'student\.los\.name: no such field; did you mean student\.loss'),
    ({'train.runs': 'map'}, r'train\.runs does not change results'),
    ({'mesh.data': 1}, r'mesh\.data does not change results'),
    ({'train.epochs': 'two'}, r"train\.epochs: 'two'"),
    ({'teacher.model': 3}, r'teacher\.model: 3'),
])
def test_an_override_that_makes_no_sense_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        sweep.apply(configs.default_config(), overrides)


@pytest.mark.parametrize('cells', [[], None, {}, ['a'], [{1: 2}], [{'seeds': (0,)}, {'seeds': [0]}]])
def test_what_is_no_sweep_is_refused(cells):
    with pytest.raises(ConfigError, match=r'^sweep: '):
        sweep.check(cells)


def test_traced_fields():
    config = sweep.apply(configs.default_config(), {'student.loss.name': 'confidence'})
    assert sweep.traced(config, 'seeds') and sweep.traced(config, 'student.loss.alpha')
    assert not sweep.traced(config, 'train.epochs') and not sweep.traced(config, 'student.loss.beta')


def test_what_is_named_is_set_before_its_settings():
    config = sweep.apply(configs.default_config(), {'student.loss.alpha': .3, 'student.loss.name': 'confidence'})
    assert config.student.loss.alpha == .3
    with pytest.raises(ConfigError, match=r'student\.loss\.alpha: no such field here, expected student\.loss\.name'):
        sweep.apply(configs.default_config(), {'student.loss.alpha': .3})


def test_names_are_folders_and_differ():
    cells = sweep.product(sweep.values('teacher.model', ['/a/b c/../x', 'org/x']),
                          sweep.values('seeds', [(0, 1), (2,)]), sweep.values('train.epochs', [1]))
    names = sweep.names(cells)
    assert len(set(names)) == 4 and all('/' not in n and n == n.strip() for n in names)
    assert names[0] == '000-x-0-1' and sweep.names([{}]) == ['000']
