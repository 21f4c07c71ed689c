"""Simulated CPU devices for every test, one or eight (README.md here), and JAX at its strictest."""

import os
import pathlib
import shutil

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# What one test or process of a command has compiled serves the others.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR',
                      str(pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'compiled'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

import chex
import jax
import pytest

QUICKLY = '--xla_cpu_parallel_codegen_split_count=1'
if jax.__version_info__ < (0, 12):  # XLA ends a process that sets a flag which it does not have any more
    QUICKLY += ' --xla_cpu_use_fusion_emitters=false'
DEVICES = pathlib.Path(__file__).parent / 'devices'
COMPILED = pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'compiled'
jax.config.update('jax_numpy_rank_promotion', 'raise')

from commands import cli  # noqa: E402, F401  (a fixture for all; imports JAX)


def below_devices(path: str) -> bool:
    """Whether an argument of pytest, a path or a test, is in the folder of tests that need eight devices."""
    return DEVICES in (pathlib.Path(path.partition('::')[0]).resolve() / '_').parents


def pytest_configure(config):
    """W2S_TEST_DEVICES says how many devices there are; without it eight where tests/devices is asked for, else one.
    Worker processes have the environment of the first."""
    devices = os.environ.setdefault('W2S_TEST_DEVICES', '8' if any(map(below_devices, config.args)) else '1')
    jax.config.update('jax_num_cpu_devices', int(devices))
    if devices == '1':  # most of the time goes into compiling: a third of it with these
        jax.config.update('jax_disable_most_optimizations', True)
        os.environ.setdefault('XLA_FLAGS', QUICKLY)


def pytest_sessionstart(session):
    """What was compiled is thrown away when it has become too much; JAX's own limit would make every write slow."""
    first = not hasattr(session.config, 'workerinput')
    if first and sum(f.stat().st_size for f in COMPILED.glob('*')) > 2 ** 30:
        shutil.rmtree(COMPILED)


def pytest_ignore_collect(collection_path):
    """Left out where devices are too few for them."""
    return True if os.environ['W2S_TEST_DEVICES'] != '8' and below_devices(str(collection_path)) else None


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    """chex counts traces per function name, so one test's compilations would count against the next test's limit."""
    chex.clear_trace_counter()
