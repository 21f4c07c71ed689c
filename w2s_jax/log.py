"""What a run says: a bar on a terminal, plain lines elsewhere, and every number in `metrics.jsonl`."""
import json
import math
import pathlib
import sys
import time

import numpy as np
from tqdm import tqdm


class Log:
    """Writes lines, progress and metrics. A line a `period` seconds where there is no terminal."""

    def __init__(self, path: pathlib.Path | None = None, stream=None, period: float = 10.0):
        self.stream = stream or sys.stderr
        self.path = path
        self.period, self.last = period, 0.0
        self.bar: tqdm | None = None

    def line(self, text: str) -> None:
        """One line for people."""
        self._close_bar()
        print(text, file=self.stream, flush=True)

    def progress(self, label: str, step: int, steps: int, metrics: dict[str, np.ndarray]) -> None:
        """The metrics of a step, each `[R]`, one a run; null in the file where not finite."""
        values = {k: [x if math.isfinite(x) else None for x in np.ravel(v).tolist()] for k, v in metrics.items()}
        self._write({'phase': label, 'step': step, **values})
        text = f'loss {np.mean(metrics["loss"]):.4f}' if 'loss' in metrics else ''
        if self.stream.isatty():
            if self.bar is None:
                self.bar = tqdm(total=steps, initial=0, desc=f'  {label}', file=self.stream, leave=False)
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(step - self.bar.n)
        elif time.monotonic() - self.last > self.period or step == steps:
            self.last = time.monotonic()
            print(f'  {label}: step {step}/{steps} {text}', file=self.stream, flush=True)
        if step == steps:
            self._close_bar()

    def _write(self, record: dict) -> None:
        if self.path:
            with open(self.path, 'a') as file:
                file.write(json.dumps(record) + '\n')

    def _close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
