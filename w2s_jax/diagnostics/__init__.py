"""What is measured on stored predictions beside accuracy (registry.py), and what makes numbers doubtful (alarms.py)."""
from w2s_jax.diagnostics import bounds, calibration, deception, dynamics, errors, misfit, variance
from w2s_jax.diagnostics.registry import DIAGNOSTICS

__all__ = ['DIAGNOSTICS', 'bounds', 'calibration', 'deception', 'dynamics', 'errors', 'misfit', 'variance']
