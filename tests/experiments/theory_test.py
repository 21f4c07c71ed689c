"""The command that holds theorems against simulations."""
import json

import pandas as pd
import pytest
from absl import flags

from experiments import theory
from w2s_jax.errors import ConfigError
from w2s_jax.registry import Setting
from w2s_jax.theory import TESTBEDS
from w2s_jax.theory.registry import Row


@pytest.fixture
def testbed():
    """`toy`, whose only check holds where its setting is small."""
    @TESTBEDS.register('toy', seeds=5, size=Setting(.1, 0, 1, doc='of the error'))
    def toy(seeds, settings):
        return [Row('a cell', 1, 1.1, settings.size, '|off|', .2, seeds), Row('reported', 0, 0, 0, 'off', None, 0)]
    yield toy
    TESTBEDS.entries.pop('toy')


@pytest.fixture
def command(testbed):
    """The command with arguments."""
    before = set(flags.FLAGS)
    theory.define_flags()
    yield lambda *arguments: (flags.FLAGS(['theory', '--only=toy', *arguments]), theory.main())
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def test_it_prints_and_writes_what_was_found(command, tmp_path, capsys):
    command('--seeds=7', f'--workdir={tmp_path}/w')
    printed = capsys.readouterr().out
    assert '| toy | a cell | 1 | 1.1 | 0.1 | 0.2 | yes | \\|off\\| |' in printed and '7 students' in printed
    rows = json.loads((tmp_path / 'w' / 'theory.json').read_text())['rows']
    assert [(r['testbed'], r['seeds'], r['holds']) for r in rows] == [('toy', 7, 'yes'), ('toy', 7, '')]
    assert pd.read_csv(tmp_path / 'w' / 'theory.csv')['error'].tolist() == [.1, 0]


def test_it_ends_with_1_if_a_check_does_not_hold(command, capsys):
    with pytest.raises(SystemExit) as left:
        command('--set=toy.size=.5')
    assert left.value.code == 1 and '1 not as they must be' in capsys.readouterr().out


@pytest.mark.parametrize(('text', 'said'), [
    ('toy.size', 'expected TESTBED.SETTING=VALUE'), ('toi.size=1', "did you mean 'toy'"),
    ('toy.sise=1', "did you mean 'size'"), ('toy.size=2', 'expected a number in'), ('toy.size=x', 'expected a number')])
def test_a_setting_that_is_none_is_said(testbed, text, said):
    with pytest.raises(ConfigError, match=said):
        theory.settings([text])
