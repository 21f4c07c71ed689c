"""The processes that the benchmark measures: `python -m experiments.benchmark.worker KIND SPEC`, SPEC being JSON.

Those of PyTorch import nothing of ours, and this module imports nothing that takes time.
"""
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np

PAUSE = 1.0  # seconds before a block: threads of the other side may spin for a while after theirs


def command(kind: str, spec: dict) -> list[str]:
    """What starts such a process."""
    return [sys.executable, '-m', 'experiments.benchmark.worker', kind, json.dumps(spec)]


class Worker:
    """The parent's end of a process that `serve`s. Both sides may be on one accelerator: ours takes what it needs."""

    def __init__(self, kind: str, spec: dict):
        self.kind = kind
        environment = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} | dict(os.environ)
        self.process = subprocess.Popen(command(kind, spec), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)

    def __enter__(self) -> 'Worker':
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def block(self, steps: int) -> dict:
        """Runs so many steps there. Raises RuntimeError where the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        time.sleep(PAUSE)
        try:
            print(steps, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise RuntimeError(f'the process of {self.kind} ended with status {self.process.wait()}') from None

    def close(self) -> None:
        """Lets the process end."""
        self.process.communicate()


def timed(argv: list[str]) -> dict:
    """Seconds from the start of a process to its end, and the last line it printed. Raises RuntimeError."""
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{" ".join(argv[:4])}: status {done.returncode}\n{done.stderr}')
    return {'seconds': time.perf_counter() - began, 'output': done.stdout.strip().rpartition('\n')[2]}


def serve(step: Callable[[int], Any], about: Callable[[], dict] = dict, source: IO[str] = sys.stdin,
          sink: IO[str] = sys.stdout) -> None:
    """Reads lines with a number of steps, runs them, and answers each with what the block cost, as JSON; else waits.

    step: number -> a loss that may still be computed. As in `Trainer.fit` at most one step waits for another.
    about: () -> what else to answer. `first_call` is how long the block's first call took to return: of the very first
    block, how long tracing and compiling took.
    """
    done = 0
    for line in source:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        losses: list[float] = []
        pending = []
        first = 0.0
        for number in range(done, done + int(line)):
            pending.append(step(number))
            first = first or time.perf_counter() - began
            losses += [_number(x) for x in pending[:-1]]
            pending = pending[-1:]
        losses += [_number(x) for x in pending]
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        done += len(losses)
        print(json.dumps({'seconds': seconds, 'losses': losses, 'steps': len(losses), 'first_call': first,
                          'cpu_seconds': after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                          'faults': after.ru_minflt - before.ru_minflt} | about()), file=sink, flush=True)


def _number(loss) -> float:
    """The first number of an array, whichever side it comes from and wherever it lies."""
    return float(np.asarray(getattr(loss, 'cpu', lambda: loss)()).ravel()[0])


def measure_load(folder: pathlib.Path) -> dict[str, int]:
    """Bytes of a model's parameters, and how far loading them raised this process's memory at its peak (Linux)."""
    import jax

    from w2s_jax.models import hf
    hf.expected(hf.read(folder).config)  # what runs once in a process is no part of it
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is now what is resident
    before = status('VmRSS')
    params = hf.load(folder)
    return {'parameters': sum(x.nbytes for x in jax.tree.leaves(params)), 'peak': status('VmHWM') - before}


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes; 0 where there is no such file."""
    path = pathlib.Path('/proc/self/status')
    if not path.exists():
        return 0
    return int(next(x for x in path.read_text().splitlines() if x.startswith(field)).split()[1]) * 1024


def main(kind: str, spec: dict) -> None:
    """Does what the process is for."""
    if kind.startswith('torch'):
        from experiments.benchmark import torch_loop
        if kind == 'torch_experiment':
            print(json.dumps(torch_loop.experiment(json.loads(pathlib.Path(spec['spec']).read_text()))))
        else:
            make = {'torch': torch_loop.stepper, 'torch_label': torch_loop.labeller,
                    'torch_generate': torch_loop.generator}[kind]
            serve(make(spec, np.load(spec['arrays'])), torch_loop.memory_peak)
        return
    from w2s_jax.runtime import process
    process.keep_freed_memory()
    if kind == 'load':
        print(json.dumps(measure_load(pathlib.Path(spec['model']))))
    elif kind == 'machine':
        from experiments.benchmark import machine
        print(json.dumps(machine.facts()))
    else:
        ours(kind, spec)


def ours(kind: str, spec: dict) -> None:
    """Serves one of our loops; a CPU is so many devices as `spec` says."""
    import jax
    if spec.get('devices'):
        jax.config.update('jax_num_cpu_devices', spec['devices'])
    from experiments.benchmark import jax_loop, sampling
    if kind == 'peak':
        serve(jax_loop.products(spec))
        return
    loop = {'jax': jax_loop.stepper, 'jax_label': jax_loop.labeller, 'predict': jax_loop.predictor,
            'jax_generate': sampling.generator}[kind]
    serve(*loop(spec, np.load(spec['arrays'])))


if __name__ == '__main__':
    main(sys.argv[1], json.loads(sys.argv[2]))
