"""Losses and objectives from outside that break their contract say so in one line, before anything is trained."""
import functools
import io
import os
import pathlib
import subprocess
import sys

import pytest
from extending_test import base, plugin  # noqa: F401  (a fixture)

from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
HEAD = '''import jax.numpy as jnp
from w2s_jax.losses import LOSSES, xent
from w2s_jax.objectives import OBJECTIVES, Objective


@LOSSES.register('mine', init_state=lambda k: {'seen': jnp.zeros(())})
def mine(logits, targets, *, progress, settings, state):
    losses = xent(logits, targets, progress=progress, settings=settings, state=())[0]
'''
BAD = {
    'return losses.mean(), {}, state': r'losses float32\[\], expected one float for each example, float32\[32\]',
    'return losses[:, None], {}, state': r'returns losses float32\[32, 1\], expected one float',
    'return losses[::2], {}, state': r'returns losses float32\[16\], expected one float',
    'return jnp.ones(len(losses), int), {}, state': r'returns losses int32\[32\], expected one float',
    'return losses': r'returns float32\[32\], expected \(losses \[B\], a dict of scalars to log, the next state\)',
    'return losses, state': r'returns \(float32\[32\], \{seen: float32\[\]\}\), expected \(losses',
    'return losses, losses, state': 'expected (losses'.replace('(', r'\('),
    "return losses, {'all': losses}, state": r"logs 'all' of shape \(32,\), expected a scalar",
    'return losses, {}, ()': r'its state was \{seen: float32\[\]\} and is \(\) after a step',
    "return losses, {}, {'seen': losses}": r'its state was \{seen: float32\[\]\} and is \{seen: float32\[32\]\}',
    "return losses, {}, {'seen': jnp.int32(1)}": r'and is \{seen: int32\[\]\} after a step',
}


@pytest.mark.parametrize('last', BAD)
def test_a_loss_that_breaks_its_contract_is_refused(plugin, tmp_path, last):  # noqa: F811
    c = base(plugin('my_loss', HEAD + f'    {last}\n'))
    c.student.loss.name = 'mine'
    with pytest.raises(ConfigError, match=rf"^loss 'mine': .*{BAD[last]}") as e:
        experiment.run(c, tmp_path / 'w', io.StringIO())
    assert '\n' not in str(e.value)


def test_an_objective_that_breaks_its_contract_is_refused(plugin, tmp_path):  # noqa: F811
    c = base(plugin('my_objective', HEAD + '''    return losses, {}, state


@OBJECTIVES.register('whole')
def whole():
    def losses(forward, params, batch, state, settings, progress, key):
        return jnp.square(forward(params, batch['inputs'])).mean(), {}
    return Objective(losses)
'''))
    c.student.loss.name = 'whole'
    with pytest.raises(ConfigError, match=r"^objective 'whole': returns losses float32\[\], expected one float"):
        experiment.run(c, tmp_path / 'w', io.StringIO())


RAISES = HEAD + '''    return losses / undefined, {}, state
'''


def test_the_last_line_is_that_of_the_plug_in_that_raised(tmp_path):
    (tmp_path / 'my_loss.py').write_text(RAISES)
    command = ['-m', 'experiments.run', '--config=configs/salient_concept.py', f'--workdir={tmp_path}/w',
               "--config.plugins=('my_loss',)", '--config.student.loss.name=mine', '--config.task.train_size=400']
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {'PYTHONPATH': f'{tmp_path}:{ROOT}'})
    line = RAISES[:RAISES.index('undefined')].count('\n') + 1
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (f"error: {tmp_path}/my_loss.py, line {line}, in mine: NameError: name "
                                            "'undefined' is not defined")


def test_an_error_of_this_package_is_not_blamed_on_a_plug_in(plugin):  # noqa: F811
    plan.load_plugins(base(plugin('harmless', 'X = 1\n')))
    with pytest.raises(ZeroDivisionError) as e:
        functools.reduce(lambda a, b: a / b, [1, 0])
    assert plan.blamed(e.value) is None
