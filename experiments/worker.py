"""The processes that `experiments.benchmark` measures: `python -m experiments.worker KIND SPEC`, SPEC being JSON.

Those of PyTorch import nothing of ours, and this module imports nothing that takes time.
"""
import json
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np


def command(kind: str, spec: dict) -> list[str]:
    """What starts such a process."""
    return [sys.executable, '-m', 'experiments.worker', kind, json.dumps(spec)]


class Worker:
    """The parent's end of a process that `serve`s."""

    def __init__(self, kind: str, spec: dict):
        self.kind = kind
        self.process = subprocess.Popen(command(kind, spec), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def block(self, steps: int) -> dict:
        """Runs so many steps there. Raises RuntimeError where the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            print(steps, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise RuntimeError(f'the process of {self.kind} ended with status {self.process.wait()}') from None

    def close(self) -> None:
        """Lets the process end."""
        self.process.communicate()


def serve(step: Callable[[int], Any], source: IO[str] = sys.stdin, sink: IO[str] = sys.stdout) -> None:
    """Reads lines with a number of steps, runs them, and answers each with what the block cost, as JSON; else waits.

    step: number -> a loss that may still be computed. As in `Trainer.fit` at most one step waits for another.
    """
    done = 0
    for line in source:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        losses: list[float] = []
        pending = []
        for number in range(done, done + int(line)):
            pending.append(step(number))
            losses += [_number(x) for x in pending[:-1]]
            pending = pending[-1:]
        losses += [_number(x) for x in pending]
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        done += len(losses)
        print(json.dumps({'seconds': seconds, 'losses': losses, 'steps': len(losses),
                          'cpu_seconds': after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                          'faults': after.ru_minflt - before.ru_minflt}), file=sink, flush=True)


def _number(loss) -> float:
    """The loss of one run, whichever side it comes from."""
    return float(np.asarray(loss).ravel()[0])


def jax_stepper(spec: dict, arrays) -> Callable[[int], Any]:
    """step number -> its loss, still to be read: the very step of `Trainer.fit`."""
    import jax

    from w2s_jax import data, parallel, train
    from w2s_jax.models import language, modes
    nothing = data.Examples({'text': np.array([['']], object)}, np.zeros(1, np.int32), np.zeros(1, np.int64))
    parts = language.parts(spec['model'], 'model', data.Dataset('benchmark', 2, nothing, nothing), 'float32')
    hyper = train.Hyper(*(np.array([x], np.float32) for x in (spec['rate'], 0, .999, 1, spec['warmup'], 0, 0)))
    runs = train.Runs({k: arrays[k][:, None] for k in ('tokens', 'length')}, np.arange(len(arrays['tokens']))[None],
                      arrays['truth'][None], np.zeros(1, np.int64), hyper, {}, 0, 2)
    batch = arrays['order'].shape[1]
    trainer = train.Trainer(modes.bind(parts, 'full', ()), train.Static('xent', spec['steps'], batch, 2),
                            parallel.make_mesh(), shapes=(arrays['tokens'].shape[1],))
    state = trainer.init(runs)
    head = jax.tree.map(lambda x: np.asarray(arrays['head'])[None], state.params['head'])
    state.params['head'] = jax.device_put(head, parallel.replicated(trainer.mesh))

    def step(number: int):
        nonlocal state
        inputs, supervision = runs.batch(number, batch)
        placed = trainer.place(inputs), parallel.place_batch(supervision, trainer.mesh)
        state, metrics = trainer.step(state, *placed, runs.hyper, trainer.frozen)
        return metrics['loss']
    return step


def measure_load(folder: pathlib.Path) -> dict[str, int]:
    """Bytes of a model's parameters, and how far loading them raised this process's memory at its peak (Linux)."""
    import jax

    from w2s_jax.models import hf
    hf.expected(hf.read(folder).config)  # what runs once in a process is no part of it
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is now what is resident
    before = _status('VmRSS')
    params = hf.load(folder)
    return {'parameters': sum(x.nbytes for x in jax.tree.leaves(params)), 'peak': _status('VmHWM') - before}


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    return int(next(x for x in lines if x.startswith(field)).split()[1]) * 1024


def main(kind: str, spec: dict) -> None:
    """Does what the process is for."""
    if kind.startswith('torch'):
        from experiments import torch_loop
        if kind == 'torch_experiment':
            print(json.dumps(torch_loop.experiment(json.loads(pathlib.Path(spec['spec']).read_text()))))
        else:
            serve(torch_loop.stepper(spec, np.load(spec['arrays'])))
        return
    from w2s_jax import runtime
    runtime.keep_freed_memory()
    if kind == 'load':
        print(json.dumps(measure_load(pathlib.Path(spec['model']))))
    else:
        serve(jax_stepper(spec, np.load(spec['arrays'])))


if __name__ == '__main__':
    main(sys.argv[1], json.loads(sys.argv[2]))
