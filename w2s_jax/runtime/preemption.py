"""SIGTERM, which clouds send some seconds before they take a machine away: stop so that nothing is lost.

On several hosts the notice reaches whichever of them; JAX's coordination service then picks a step that all of them
stop at.
"""
import contextlib
import itertools
import signal
import sys

import jax
from jax.experimental import multihost_utils

from w2s_jax.errors import Preempted

_points = itertools.count()
_at_steps = 0  # loops that ask `due()` after each of their steps
_asked = False


def heed() -> None:
    """Makes SIGTERM stop this process by `Preempted`: at the next `due()` in a loop that asks, at once elsewhere. Where
    that gets lost (see `_on_signal`) nothing is printed of it."""
    signal.signal(signal.SIGTERM, _on_signal)
    said = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, Preempted) else said(lost)


def _on_signal(number, frame) -> None:
    global _asked
    again, _asked = _asked, True  # also where the exception gets lost: in a destructor, or while garbage is collected
    if again or not _at_steps:
        raise Preempted('between steps')


def check() -> None:
    """Raises Preempted if this process was asked to stop and has not: between phases, and while it waits."""
    if _asked and not jax.distributed.is_initialized():
        raise Preempted('between phases')


@contextlib.contextmanager
def at_steps():
    """A block that calls `due()` after each step, so that a signal need not break off one."""
    global _at_steps
    _at_steps += 1
    try:
        yield
    finally:
        _at_steps -= 1


def due() -> bool:
    """Whether to stop now. All hosts ask equally often, and get the same answer."""
    global _asked
    if jax.distributed.is_initialized():
        _asked = multihost_utils.reached_preemption_sync_point(next(_points)) or _asked
    return _asked
