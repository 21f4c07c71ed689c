"""Eight simulated CPU devices for every test, and JAX at its strictest. Runs before any test module imports JAX."""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# What one test or process of a command has compiled serves the others.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR',
                      str(pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'compiled'))
os.environ.setdefault('JAX_COMPILATION_CACHE_MAX_SIZE', str(2 ** 30))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')

import chex
import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')

from commands import cli  # noqa: E402, F401  (a fixture for all; imports JAX)


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    """chex counts traces per function name, so one test's compilations would count against the next test's limit."""
    chex.clear_trace_counter()
