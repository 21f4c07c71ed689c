"""For tests of programs that run a few times: these are compiled in a hurry, without most optimisations."""
import jax
import pytest


@pytest.fixture(scope='module', autouse=True)
def hurried():
    before = jax.config.values['jax_disable_most_optimizations']
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', before)
