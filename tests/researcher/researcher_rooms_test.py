"""Who imports whom, the commands' manners, and that documents say what the code does."""
import ast
import pathlib
import re
import subprocess
import sys

import pytest

from researcher import commands, idea
from w2s_jax.engine import commands as w2s

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / 'researcher').glob('*.py'))


def imports(path):
    """Modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            whole = node.module == 'w2s_jax'
            yield from [f'w2s_jax.{alias.name}' for alias in node.names] if whole else [node.module]


def test_the_researcher_imports_only_the_api():
    mine = {path.name: [m for m in imports(path) if m.startswith('w2s_jax') and m != 'w2s_jax.api'] for path in FILES}
    assert not any(mine.values()), mine
    assert any('w2s_jax.api' in set(imports(path)) for path in FILES)


def test_w2s_jax_does_not_import_the_researcher():
    for path in (ROOT / 'w2s_jax').rglob('*.py'):
        assert not any(str(name).startswith('researcher') for name in imports(path)), path


def test_the_judge_never_imports_an_idea():
    """Only the worker loads plug-ins."""
    for path in FILES:
        text = path.read_text()
        assert ('load_plugins' in text) == (path.name == 'worker.py'), path
        assert path.name in ('jail.py',) or not re.search(r'\b(exec|eval|run_path|import_module)\(', text), path


def test_files_are_short():
    assert all(len(path.read_text().splitlines()) < 400 for path in FILES)


@pytest.mark.parametrize('words', [['score', 'x.py'], ['nothing'], ['score', '--workdir', 'x'], ['check', 'none.py'],
                                   ['check', 'x.py', '--what'], ['verify', 'x', '--workdir', '/none'],
                                   ['score', 'none.py', '--workdir', 'x', '--track', 't9']])
def test_what_the_user_can_mend_is_one_line(words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, 'prepare', lambda: None)
    assert commands.main(words) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('error: ') and err.count('\n') == 1
    assert not (tmp_path / 'x' / 'private').exists()


def test_output_is_terse_and_plain(capsys):
    commands.say({'a': [f'line {i}\x1b[31m' for i in range(99)], 'b': 'x' * 999}, True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 40 and lines[0] == 'a: line 0[31m' and '61 lines more' in lines[-1]
    commands.say({'b': 'x\ny'}, True)
    assert capsys.readouterr().out == 'b: x y\n'


def test_w2s_idea_is_the_same_command(capsys):
    assert w2s.main(['idea', 'tracks', '--plain']) == 0
    assert capsys.readouterr().out.startswith('t2: ')


def test_python_m_researcher(tmp_path):
    found = subprocess.run([sys.executable, '-m', 'researcher'], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'check FILE' in found.stdout and len(found.stdout.splitlines()) <= 40


def test_the_example_of_the_guide_is_an_idea():
    text = (ROOT / 'researcher' / 'IDEA.md').read_text()
    example, = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert idea.parse('late.py', example).delta == {'student.loss.name': 'late'}
    assert len(text.splitlines()) < 60
    assert {name for name in idea.CHOSEN if f'@{name}.register' in text} == set(idea.CHOSEN)
