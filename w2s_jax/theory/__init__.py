"""Theorems as checks: formulas, and testbeds that hold what they predict against simulated students.

A file a topic, each with pure functions and a testbed (registry.py says what that is); markov.py is the language
of two of them. The command is `python -m experiments.theory`; a topic is added by a file here that registers a testbed,
and its import below.
"""
from w2s_jax.theory import (
    algorithms,
    amplification,
    bounds,
    bregman,
    contrast,
    dimension,
    markov,
    misfit,
    overlap,
    reward,
    sandwich,
    self_critique,
    sparse_pixels,
    variance,
    warm_start,
)
from w2s_jax.theory.registry import TESTBEDS

__all__ = ['TESTBEDS', 'algorithms', 'amplification', 'bounds', 'bregman', 'contrast', 'dimension', 'markov', 'misfit',
           'overlap', 'reward', 'sandwich', 'self_critique', 'sparse_pixels', 'variance', 'warm_start']
