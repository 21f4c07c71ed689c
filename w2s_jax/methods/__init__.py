"""METHODS: name -> a function from (config, dataset, models) to the evaluate phase of a graph of phases."""
from collections.abc import Callable

from w2s_jax.methods import bootstrap, naive

METHODS: dict[str, Callable] = {
    'bootstrap': bootstrap.graph,
    'naive': naive.graph,
}
