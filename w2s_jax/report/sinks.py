"""SINKS: name -> where numbers go beside metrics.jsonl, and how a person looks at them there.

A sink is a function of the work directory. It returns a function that opens one place for each group of runs, by
its label: an object with `scalars(step, {tag: value})` and `close()`. Nothing is imported, and nothing is sent
anywhere, that the config does not name.
"""
import contextvars
import hashlib
import importlib
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from w2s_jax.errors import ConfigError
from w2s_jax.registry import known

PROJECT = 'w2s_jax'
FLUSH = 5.0  # seconds between two looks that a reader of event files can have


class Sink(Protocol):
    """One group's place."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """What was measured at a step."""

    def close(self) -> None:
        """After the last step."""


Opener = Callable[[str], Sink]


def openers(names: Iterable[str], workdir: pathlib.Path) -> list[Opener]:
    """Functions of a group's label. Raises ConfigError for what is unknown or not installed."""
    return [SINKS[known('report.sinks', name, SINKS)](workdir) for name in dict.fromkeys(names)]


def tensorboard(workdir: pathlib.Path) -> Opener:
    """Event files in `workdir/tensorboard/LABEL`: look with `tensorboard --logdir=workdir/tensorboard`."""
    _package('tensorboardX')
    return lambda label: Events(workdir / 'tensorboard' / folder_name(label))


class Events:
    """An event file, by tensorboardX's writer of event files.

    Not by its SummaryWriter, whose thread dies of a full disk with a traceback, after which the twelfth `add_scalar`
    waits without end (tensorboardX 2.6.5); here the step that finds no space raises OSError.
    """

    opened = 0

    def __init__(self, folder: pathlib.Path):
        from tensorboardX.event_file_writer import EventsWriter
        folder.mkdir(parents=True, exist_ok=True)
        Events.opened += 1
        self.writer = EventsWriter(str(folder / 'events'), f'.{os.getpid()}.{Events.opened}')
        self.flushed = time.monotonic()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One event with all values."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self.writer.write_event(Event(step=step, wall_time=time.time(), summary=Summary(value=found)))
        if time.monotonic() - self.flushed > FLUSH:
            self.writer.flush()
            self.flushed = time.monotonic()

    def close(self) -> None:
        """Everything is on disk after it."""
        self.writer.close()


def wandb(workdir: pathlib.Path) -> Opener:
    """Weights & Biases, a run for each label, grouped by work directory; as WANDB_MODE says (offline, disabled)."""
    package = _package('wandb')

    def open_run(label: str) -> Sink:
        return Run(package.init(
            project=PROJECT, group=workdir.name, name=label, id=_identity(workdir, label), resume='allow',
            dir=str(workdir), mode=os.environ.get('WANDB_MODE'), reinit='create_new',
            settings={'console': 'off', 'silent': True}))
    return open_run


def trackio(workdir: pathlib.Path) -> Opener:
    """trackio, on this machine: look with `trackio show`."""
    package = _package('trackio')

    def open_run(label: str) -> Sink:
        # it ends the run before, of the same context, which may still be at work
        return Run(contextvars.copy_context().run(
            package.init, project=PROJECT, group=workdir.name, name=f'{label} {_identity(workdir, label)[:6]}',
            resume='allow', embed=False, auto_log_gpu=False, auto_log_cpu=False))
    return open_run


class Run:
    """A run of wandb, or of trackio, which has the same interface."""

    def __init__(self, run):
        self.run = run

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One entry of the run's history."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """Waits until everything is where it goes."""
        self.run.finish()


SINKS: dict[str, Callable[[pathlib.Path], Opener]] = {
    'tensorboard': tensorboard,
    'trackio': trackio,
    'wandb': wandb,
}


def _package(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as e:
        reason = 'is not installed' if e.name == name else f'cannot be imported ({" ".join(str(e).split())})'
        raise ConfigError(f'report.sinks: {name} {reason}; pip install {name}') from None


def _identity(workdir: pathlib.Path, label: str) -> str:
    """The same for a killed run that is resumed; wandb takes up to 64 letters and digits."""
    return hashlib.sha256(f'{workdir} {label}'.encode()).hexdigest()[:16]


def folder_name(label: str) -> str:
    """A label as the name of one folder; labels that differ have names that differ."""
    plain = re.sub(r'[^\w :.,=+-]+', '_', label, flags=re.ASCII).strip('. ')
    if plain == label and 0 < len(label) <= 100:
        return label
    return f'{plain[:80].strip(". ")}-{_identity(pathlib.Path(), label)[:6]}'
