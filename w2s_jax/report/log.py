"""What a run says: a bar for each running group on a terminal, plain lines elsewhere, and every number in
`metrics.jsonl` and in the sinks (sinks.py)."""
import contextlib
import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np
from tqdm import tqdm

from w2s_jax.errors import StoreError
from w2s_jax.report.sinks import Opener, Sink


@dataclasses.dataclass
class Running:
    """A group that is at work.  step, began: where and when it was first heard of.  at: its last step."""
    step: int
    began: float
    sinks: list[Sink]
    at: int = 0
    said: float = -math.inf
    bar: tqdm | None = None

    def close(self) -> None:
        """Takes its bar off the terminal, and its numbers to their places."""
        if self.bar is not None:
            self.bar.close()
        for sink in self.sinks:
            sink.close()


class Log:
    """Writes lines, progress and metrics; several groups may run at once.

    If there is no terminal each group has a line every `period` seconds.
    """

    def __init__(self, path: pathlib.Path | None = None, stream=None, period: float = 10.0,
                 sinks: Iterable[Opener] = (), clock: Callable[[], float] = time.monotonic):
        self.path, self.stream = path, stream or sys.stderr
        self.period, self.sinks, self.clock = period, list(sinks), clock
        self.running: dict[str, Running] = {}

    def line(self, text: str) -> None:
        """One line for people, above the bars."""
        with tqdm.external_write_mode(file=self.stream):
            print(text, file=self.stream, flush=True)

    def progress(self, label: str, step: int, steps: int, metrics: dict[str, np.ndarray]) -> None:
        """The metrics of a step of a group, each `[R]`, one a run; null in the file where not finite.

        Raises StoreError if they cannot be written.
        """
        runs = {k: np.ravel(v).tolist() for k, v in metrics.items()}
        with self._writing():
            group = self._group(label, step)
            self._write({'phase': label, 'step': step,
                         **{k: [x if math.isfinite(x) else None for x in v] for k, v in runs.items()}})
            for sink in group.sinks:
                sink.scalars(step, tags(runs))
        self._show(group, label, step, steps, loss_text(runs.get('loss', [])))
        if step == steps:
            with self._writing():
                self.running.pop(label).close()

    def close(self) -> None:
        """Ends what is still open: groups that broke off."""
        while self.running:
            with self._writing():
                self.running.popitem()[1].close()

    def _group(self, label: str, step: int) -> Running:
        group = self.running.get(label)
        if group is not None and step < group.at:  # it broke off and was begun again
            self.running.pop(label).close()
            group = None
        if group is None:
            group = self.running[label] = Running(step, self.clock(), [open_(label) for open_ in self.sinks])
        group.at = step
        return group

    def _show(self, group: Running, label: str, step: int, steps: int, text: str) -> None:
        if self.stream.isatty():
            if group.bar is None:
                group.bar = tqdm(total=steps, initial=step, desc=f'  {label}', file=self.stream, leave=False,
                                 dynamic_ncols=True)
            group.bar.set_postfix_str(text, refresh=False)
            group.bar.update(step - group.bar.n)
        elif self.clock() - group.said > self.period or step == steps:
            group.said = self.clock()
            print(f'  {label}: step {step}/{steps} {text}{self._left(group, steps)}', file=self.stream, flush=True)

    def _left(self, group: Running, steps: int) -> str:
        """The time that is left, from how long the steps since the first one heard of took; that one compiles."""
        if group.step == group.at or group.at == steps:
            return ''
        return f', {duration((self.clock() - group.began) / (group.at - group.step) * (steps - group.at))} left'

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except OSError as e:
            raise StoreError(f'{e.filename or self.path}: cannot be written ({e.strerror or e})') from None

    def _write(self, record: dict) -> None:
        if self.path:
            with open(self.path, 'a') as file:
                file.write(json.dumps(record) + '\n')


def tags(runs: dict[str, list[float]]) -> dict[str, float]:
    """Name -> one number a run, to tag -> number: the mean, and `name/0` ... if there are several runs.

    What is not finite is left out.
    """
    found = {}
    for name, values in runs.items():
        finite = {i: x for i, x in enumerate(values) if math.isfinite(x)}
        if finite:
            found[name] = sum(finite.values()) / len(finite)
        if len(values) > 1:
            found |= {f'{name}/{i}': x for i, x in finite.items()}
    return found


def loss_text(losses: list[float]) -> str:
    """`loss 0.5312`, the mean over runs, and how many of them have none."""
    if not losses:
        return ''
    finite = [x for x in losses if math.isfinite(x)]
    text = f'loss {sum(finite) / len(finite):.4f}' if finite else 'no finite loss'
    diverged = len(losses) - len(finite)
    return f'{text} ({diverged} of {len(losses)} runs diverged)' if diverged else text


def duration(seconds: float) -> str:
    """`45s`, `1m 20s`, `2h 5m`, `3d 4h`."""
    whole = round(seconds)
    for large, small, size, part in (('d', 'h', 86400, 3600), ('h', 'm', 3600, 60), ('m', 's', 60, 1)):
        if whole >= size:
            return f'{whole // size}{large} {whole % size // part}{small}'
    return f'{whole}s'
