"""Modules of experiments as fixtures."""
import importlib
import sys

from absl import flags


def loaded(name: str):
    """Yields `experiments.NAME`; its flags are gone again afterwards, for other entry points have some of the same
    names."""
    known = set(flags.FLAGS)
    yield importlib.import_module(f'experiments.{name}')
    for flag in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, flag)
    del sys.modules[f'experiments.{name}']
