"""METHODS alone: a config knows it and parts know a config, whichever is imported first."""
from w2s_jax.registry import Registry

METHODS = Registry('method', options=('models',))  # models: (settings) -> role -> name of further models
