"""METHODS: name -> a function of the parts of an experiment (parts.py) that wires its phases."""
from w2s_jax.methods import (
    adversarial,
    bootstrap,
    conflict,
    cong,
    cosupervised,
    ensemble,
    generative,
    hint,
    naive,
    on_policy,
    oversight,
    prompted,
    saliency,
    sandbagging,
    simulated,
)
from w2s_jax.methods.registry import METHODS

__all__ = ['METHODS', 'adversarial', 'bootstrap', 'conflict', 'cong', 'cosupervised', 'ensemble', 'generative',
           'hint', 'naive', 'on_policy', 'oversight', 'prompted', 'saliency', 'sandbagging', 'simulated']
