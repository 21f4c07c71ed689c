"""METHODS: name -> a function from (config, dataset, models) to the evaluate phase of a graph of phases."""
from collections.abc import Callable

from w2s_jax.methods import naive

METHODS: dict[str, Callable] = {
    'naive': naive.graph,
}
