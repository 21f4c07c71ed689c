"""Commands run in the process of the tests."""
import importlib
import sys

import pytest
from absl import flags


@pytest.fixture
def cli(monkeypatch, capsys):
    """`experiments.run` in this process: (arguments) -> (exit status, stdout, stderr)."""
    command = importlib.import_module('w2s_jax.cli')
    known, loaded = set(flags.FLAGS), 'experiments.run' in sys.modules
    def leave(status):
        raise SystemExit(status)
    monkeypatch.setattr(command.os, '_exit', leave)
    monkeypatch.setattr(command.process, 'keep_freed_memory', lambda: None)
    main = importlib.import_module('experiments.run').main

    def forget(names):
        for name in names:
            delattr(flags.FLAGS, name)

    def run(*args):
        for name in ('config', 'workdir'):
            flags.FLAGS[name].unparse()
        before = set(flags.FLAGS)
        monkeypatch.setattr(sys, 'argv', ['run', *map(str, args)])
        try:
            command.run(main)
            code = 0
        except SystemExit as e:
            code = e.code
        forget(set(flags.FLAGS) - before)  # absl would have the overrides defined twice
        sys.modules.pop('config_config', None)  # and load the next config file on top of this one
        return code, *capsys.readouterr()
    yield run
    forget(set(flags.FLAGS) - known)
    if not loaded:
        del sys.modules['experiments.run']


def error(result) -> str:
    """The line that an unsuccessful command ends with."""
    code, out, err = result
    assert code == 2, err
    assert 'Traceback' not in out + err
    lines = [line for line in err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and err.endswith(lines[0] + '\n')
    return lines[0].removeprefix('error: ')
