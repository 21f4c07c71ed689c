"""`w2s list` and the console script that it is a command of."""
import os
import pathlib
import subprocess
import sys

import pytest

from w2s_jax.engine import commands, listing
from w2s_jax.errors import ConfigError
from w2s_jax.registry import Registry, Setting

ROOT = pathlib.Path(__file__).parents[2]
PLUGIN = '''
"""A loss from outside."""
from w2s_jax.losses import LOSSES
from w2s_jax.registry import Setting


@LOSSES.register('listed_window', radius=Setting(.15, 0, .5, traced=True, doc='half width of the window'))
def window(logits, targets, *, progress, settings, state):
    """Looks through a window."""
'''


def w2s(*arguments, cwd=ROOT):
    """The console script in a process of its own."""
    return subprocess.run([sys.executable, '-m', 'w2s_jax.engine.commands', *arguments], cwd=cwd, capture_output=True,
                          text=True, timeout=300, env=os.environ | {'PYTHONPATH': str(ROOT)})


@pytest.mark.parametrize('name', listing.REGISTRIES)
def test_everything_that_is_registered_is_listed_with_all_its_settings(name):
    text, entries = listing.listing(name), listing.registry(name)
    assert text.startswith(name)
    for one, entry in entries.items():
        assert one in text
        for field, setting in getattr(entry, 'settings', {}).items():
            assert f'{field} = {setting.default!r}' in text and setting.doc in text


def test_without_a_name_all_are_listed():
    assert listing.listing() == '\n\n'.join(map(listing.listing, listing.REGISTRIES))


def test_a_setting_says_its_default_its_range_whether_it_is_traced_and_what_it_is():
    table = Registry('thing', traces=True)
    table.register('one', a=Setting(.5, 0, 1, '(]', traced=True, doc='how much'), long_name=Setting(3, 1, doc='many'),
                   word=Setting('x', choices=('x', 'y')), plain=Setting(True))(test_without_a_name_all_are_listed)
    assert listing.describe('things', table).splitlines() == [
        'things', '  one',
        '      a = 0.5        float in (0, 1]  traced  how much',
        '      long_name = 3  int in [1, inf)          many',
        "      word = 'x'     'x' | 'y'",
        '      plain = True   bool']
    assert listing.describe('things', Registry('thing')) == 'things: none'


def test_what_says_the_same_stands_together():
    assert '  chess-xs, chess-s, chess-m, chess-l, chess-s-1, chess-s-2, chess-s-3: ' in listing.listing('models')


def test_a_wrong_name_is_an_error_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"unknown 'loses', expected one of .*; did you mean 'losses'"):
        listing.listing('loses')


@pytest.mark.parametrize('arguments', [
    [], ['nothing'], ['list', 'loses'], ['list', 'losses', 'tasks'], ['list', '--plugin=x'],
    ['list', '--plugins=no_such_module'], ['store', 'ls']])
def test_what_the_user_can_mend_is_one_line_and_status_2(arguments, capsys):
    assert commands.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('error: ') and err.count('\n') == 1


@pytest.mark.long
def test_plugins_are_listed(tmp_path):
    (tmp_path / 'listed_plugin.py').write_text(PLUGIN)
    done = w2s('list', 'losses', '--plugins=listed_plugin', cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    assert '  listed_window: Looks through a window.\n' in done.stdout
    assert 'radius = 0.15  float in [0, 0.5]  traced  half width of the window' in done.stdout


def test_help_and_wrong_names_do_not_start_jax(capsys):
    code = ('import sys; from w2s_jax.engine import commands; a = commands.main(["list", "--help"]); '
            'b = commands.main(["list", "loses"]); c = commands.main(["--help"]); '
            'sys.exit(0 if (a, b, c, "jax" in sys.modules) == (0, 2, 0, False) else 1)')
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, timeout=60).returncode == 0


@pytest.mark.long
def test_entry_points_run_in_a_checkout_and_elsewhere_say_so(tmp_path):
    here, elsewhere = w2s('report'), w2s('report', cwd=tmp_path)
    assert here.returncode == 2 and here.stderr.startswith('error: --workdir: missing')
    # PYTHONPATH holds the checkout here; an installed package does not bring experiments along.
    assert elsewhere.returncode == 2 and elsewhere.stderr.count('\n') == 1


def test_without_a_checkout_entry_points_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(commands.importlib.util, 'find_spec', lambda name: None)
    assert commands.main(['run', '--config=x']) == 2
    assert capsys.readouterr().err.startswith('error: w2s run: no experiments/run.py here')


@pytest.mark.long
def test_the_page_of_all_fields_is_up_to_date():
    path = pathlib.Path(__file__).parents[2] / 'docs' / 'config.md'
    code = 'from w2s_jax.engine import listing; print(listing.page(), end="")'
    made = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)  # without plug-ins
    assert path.read_text() == made.stdout, 'docs/config.md is old: make docs'
