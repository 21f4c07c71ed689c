"""Every config that ships: it is complete, its sweep fits it, and its head says how to run it."""
import ast
import importlib
import pathlib
import re

import pytest

from experiments import sign_map
from w2s_jax import config as configs
from w2s_jax.engine import grid

ROOT = pathlib.Path(__file__).parents[2] / 'configs'
FILES = sorted(path.relative_to(ROOT.parent).with_suffix('') for path in ROOT.rglob('*.py'))
ARGUMENTS = {'configs/paper/scaling': ['sciq,a/s,a/m,a/l', 'anthropic_hh,a/s,a/m,a/l'],
             'configs/paper/error_structures': ['sst2'], 'configs/paper/vision': ['given'],
             'configs/paper/vision_images': ['scratch'], 'configs/paper/generative': ['salient', 'anthropic_hh'],
             'configs/paper/saliency': ['lora', 'full,files'], 'configs/paper/early_stopping': ['sst2'],
             'configs/paper/easy_to_hard_chess': ['rating'], 'configs/checkpoints': ['sst2'],
             'configs/chess': ['chess-xs,chess-l'], 'configs/chess_grid': ['rates'], 'configs/probe': ['anthropic_hh'],
             'configs/bootstrap': ['equal', 'chess'], 'configs/salient_concept': ['long'],
             'configs/own_data': ['probe', 'full'], 'configs/reward': ['preference'], 'configs/shift': ['teachers'],
             'configs/raven': ['cosupervised']}
CASES = [(str(file), args) for file in FILES for args in ((), *((a,) for a in ARGUMENTS.get(str(file), ())))]


@pytest.mark.parametrize(('file', 'args'), CASES)
def test_a_config_is_complete(file, args):
    module = importlib.import_module(file.replace('/', '.'))
    c = configs.compose(module.get_config(*args))
    configs.validate(c)
    if hasattr(module, 'get_sweep'):
        assert len(grid.configured(c, module.get_sweep(*args))) > 1
    assert f'--config={file}.py' in module.__doc__ and '--workdir=' in module.__doc__


def test_the_index_of_figures_names_every_config_beside_it():
    said = (ROOT / 'paper' / 'README.md').read_text()
    assert [path.name for path in sorted((ROOT / 'paper').glob('*.py')) if f'`{path.name}`' not in said] == []


@pytest.mark.parametrize('name', sorted(path.name for path in (ROOT / 'paper').glob('*.py')))
def test_the_head_of_a_figure_says_what_it_needs_and_how_long_it_takes(name):
    head = ast.get_docstring(ast.parse((ROOT / 'paper' / name).read_text())) or ''
    assert re.search(r'\bneeds\b', head, re.IGNORECASE) and re.search(r'\b(second|minute|hour)s?\b', head)


@pytest.mark.parametrize('name', sign_map.ROWS)
def test_a_row_of_the_map_is_complete(name):
    mode, epochs, make = sign_map.ROWS[name]
    c = configs.compose(make('models', 'data'))
    cells = grid.configured(c, sign_map.cells(epochs))
    assert c.student.mode == mode and len(cells) == 12
    assert sorted({one.student.loss.alpha for _, one in cells}) == list(sign_map.ALPHAS)
