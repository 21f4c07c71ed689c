"""The idea contract: what is an idea, what is not, each in one line."""
import json

import pytest

from researcher import idea
from w2s_jax.errors import ConfigError

GOOD = '''"""A loss."""
import jax.numpy as jnp
from w2s_jax.losses import LOSSES

CONFIG = {'train.epochs': 8}


@LOSSES.register('mine')
def mine(logits, targets, *, progress, settings, state):
    """Nothing."""
    return (logits ** 2).sum(-1), {}, state  # a comment
'''


def test_a_loss_is_chosen_and_config_is_read():
    found = idea.parse('a.py', GOOD)
    assert found.delta == {'student.loss.name': 'mine', 'train.epochs': 8}
    assert found.code and len(found.hash) == 16
    assert idea.parse('a.py', GOOD + '\n').hash != found.hash


@pytest.mark.parametrize('registry, field, value', [
    ('OBJECTIVES', 'student.loss.name', 'x'), ('TRANSFORMS', 'labels.transforms', ['x']),
    ('METHODS', 'method.name', 'x'), ('STOPPING', 'student.stopping.name', 'x')])
def test_each_registry_has_its_field(registry, field, value):
    assert idea.parse('a.py', f"@{registry}.register('x')\ndef x(): pass").delta == {field: value}


def test_lines_of_code_are_counted_without_comments_docstrings_and_empty_ones():
    body = '\n'.join(f'x{i} = 1' for i in range(23))
    filler = '# comment\n\n' * 50 + '"""Text\n\n\nthat is long."""\n'
    assert idea.parse('a.py', filler + GOOD + body).code
    with pytest.raises(ConfigError, match='31 lines of code, expected at most 30'):
        idea.parse('a.py', filler + GOOD + body + '\ny = (1,\n 2)')
    with pytest.raises(ConfigError, match='lines of code'):  # a text that is used is code
        idea.parse('a.py', GOOD + 'x = """' + '\n' * 40 + '"""')


BAD = {
    'no Python': ('def (', 'line 1: no Python'), 'nothing': ('x = 1', 'registers nothing'),
    'os': (GOOD + 'import os', 'imports os'), 'from os': (GOOD + 'from os import path', 'imports os'),
    'the engine': (GOOD + 'import w2s_jax.engine.truth', 'imports w2s_jax.engine.truth'),
    'the task': (GOOD + 'from w2s_jax.tasks import synthetic', 'imports w2s_jax.tasks'),
    'by the package': (GOOD + 'from w2s_jax import api', 'imports w2s_jax.api'),
    'relative': (GOOD + 'from . import x', 'relative'), 'open': (GOOD + "open('x')", 'open is not'),
    'eval': (GOOD + "eval('1')", 'eval is not'), 'dunder': (GOOD + 'x = mine.__globals__', '__globals__ is not'),
    'two of a kind': (GOOD + GOOD.replace("'mine'", "'other'"), 'second student.loss.name'),
    'a task': (GOOD.replace('LOSSES.reg', 'TASKS.reg'), 'TASKS is not for ideas'),
    'a name that is computed': (GOOD.replace("'mine')", "'mi' + 'ne')"), 'expected a name in quotes'),
    'seeds': (GOOD.replace('train.epochs', 'seeds'), "'seeds' is not for ideas"),
    'CONFIG that is computed': (GOOD.replace("{'train.epochs': 8}", 'dict(a=1)'), 'CONFIG, expected one dict'),
    'a null byte': (GOOD + '\0', 'no Python'), 'deep': ('(' * 5000, 'no Python'),
    'deeper': ('x = ' + '-' * 19_000 + '1', 'no Python'),
    'two CONFIGs': (GOOD + 'CONFIG = {}', 'expected one dict'),
    'a deep CONFIG': (GOOD.replace('epochs\': 8', 'epochs\': ' + '-' * 900 + '8'), 'CONFIG, expected'),
    'large': ('#' * 30_000, 'bytes'),
    'unhashable': (GOOD.replace("'train.epochs'", '[]'), 'CONFIG, expected'),
}


@pytest.mark.parametrize('what', BAD)
def test_what_is_no_idea_is_refused_in_one_line(what):
    text, said = BAD[what]
    with pytest.raises(ConfigError) as e:
        idea.parse('a.py', text)
    assert said in str(e.value) and '\n' not in str(e.value) and str(e.value).startswith('a.py')


@pytest.mark.parametrize('field, value', [
    ('task.seed', 1), ('seeds', [1]), ('labels.source', 'teacher'), ('method.share', .1), ('method.baselines', []),
    ('report.html', False), ('plugins', ['os']), ('student.model', 'mlp-4'), ('teacher.model', 'mlp-4'),
    ('train.driver', 'pmap'), ('method.chain', ['owner/name']), ('method.chain', ['../x']), ('optimizer.name', '/x'),
    ('student.loss.alpha', {'a': 1}), ('labels.transforms', ['x'] * 99), ('mesh.data', 1),
    ('train.epochs', float('nan')), ('train.epochs', float('inf')),
    ('train.epochs', 10 ** 400), ('method.label_noise', .1)])
def test_fields_of_data_seeds_paths_and_reports_are_not_for_ideas(field, value):
    with pytest.raises(ConfigError) as e:
        idea.parse('a.json', json.dumps({field: value}))
    assert field in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize('delta', [{}, {'student.loss.name': 'confidence', 'student.loss.alpha': .5},
                                   {'method.name': 'bootstrap', 'method.chain': ['mlp-4', 'mlp-32']},
                                   {'labels.transforms': ['most_sure'], 'labels.most_sure.share': .5},
                                   {'train.epochs': 3, 'student.learning_rate': None}])
def test_deltas_that_may_be(delta):
    assert idea.from_delta(delta).delta == delta


@pytest.mark.parametrize('text', ['[]', '{', 'NaN', '[' * 10**4, '1'])
def test_json_that_is_no_delta(text):
    with pytest.raises(ConfigError) as e:
        idea.parse('a.json', text)
    assert '\n' not in str(e.value)


def test_files(tmp_path):
    for name, content in (('a.txt', b''), ('b.py', b'\xff')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError):
            idea.load(tmp_path / name)
    (tmp_path / 'folder.py').mkdir()
    for name in ('none.py', 'folder.py'):
        with pytest.raises(ConfigError, match='no such file'):
            idea.load(tmp_path / name)
