"""Eight simulated CPU devices for every test, and JAX at its strictest. Runs before any test module imports JAX."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import chex
import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    """chex counts traces per function name, so one test's compilations would count against the next test's limit."""
    chex.clear_trace_counter()
