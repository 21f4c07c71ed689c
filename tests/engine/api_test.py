"""What a library call must not do to the process of its caller."""
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# In a process of its own, after all imports: what other packages do when they are imported is not ours.
CODE = """
import io, json, logging, os, pathlib, signal, sys, threading, warnings
import absl.flags, absl.logging, jax, matplotlib, tensorboardX
import w2s_jax
from configs import salient_concept
from w2s_jax.engine import experiment, grid
from w2s_jax.report import page
from w2s_jax.runtime import process

asked = []
process.keep_freed_memory = lambda: asked.append('malloc')


def state():
    ours = ('absl', 'jax', 'orbax', 'w2s', 'asyncio')
    names = ['', *(name for name in logging.root.manager.loggerDict if name.startswith(ours))]
    return {
        'hooks': [str(h) for h in (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook)],
        'absl': [absl.logging.get_verbosity(), absl.flags.FLAGS['stderrthreshold'].value],
        'warnings': [str(f) for f in warnings.filters],
        'signals': {str(s): str(signal.getsignal(s)) for s in signal.valid_signals()},
        'levels': {n: [logging.getLogger(n).level, len(logging.getLogger(n).handlers), logging.getLogger(n).disabled]
                   for n in names},
        'jax': {k: str(v) for k, v in jax.config.values.items()},
        'environment': dict(os.environ),
        'matplotlib': {k: str(v) for k, v in matplotlib.rcParams.items()},
        'directory': os.getcwd(),
        'malloc': list(asked),
    }


def changed(before, after):
    if not isinstance(before, dict):
        return [before, after]
    return {k: [before.get(k), after.get(k)] for k in before | after if before.get(k) != after.get(k)}


c = salient_concept.get_config()
c.seeds = (0,)
c.task.train_size, c.task.test_size, c.train.epochs = 400, 200, 1
logging.getLogger("asyncio"), logging.getLogger("absl")  # so that they are there before
before = state()
"""
CALLS = {
    'run': "results = w2s_jax.run(c, sys.argv[1], stream=io.StringIO())",
    'grid': "results = w2s_jax.grid(c, w2s_jax.values('optimizer.learning_rate', [1e-3, 2e-3]), sys.argv[1], "
            "stream=io.StringIO())",
}
END = """
assert len(results.students) >= 1
after = state()
print(json.dumps({k: changed(before[k], after[k]) for k in before if before[k] != after[k]}))
"""


@pytest.mark.long
@pytest.mark.parametrize('call', CALLS)
def test_a_library_call_changes_nothing_of_its_process(tmp_path, call):
    done = subprocess.run([sys.executable, '-c', CODE + CALLS[call] + END, str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}
    assert done.stderr == ''  # and what other packages log of their workings is no noise either
