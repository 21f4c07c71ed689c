"""A graph whose phases sleep, checkpoint and compute a number that depends on all that they need, for tests that kill.

As a program it runs the graph on a store: `python toy_graph.py FOLDER SECONDS_A_STEP`.
"""
import hashlib
import json
import os
import pathlib
import sys
import time

import numpy as np

from w2s_jax.engine.execute import execute
from w2s_jax.errors import TakenOver, UserError
from w2s_jax.graph import Phase, Source
from w2s_jax.store.artifacts import Artifact, Store, write_json

STEPS = 8


def toy_graph(seeds=(0, 1), models=('s', 'm', 'l'), kind='student') -> Phase:
    """Per seed and model a teacher, its labels and a student of each size above; then the evaluation."""
    pool, needs = Source('pool', 'pool'), {}
    for seed in seeds:
        teachers = {m: Phase('teacher', section(seed, m), {'inputs': pool}, f'teacher {m}') for m in models}
        labels = {m: Phase('label', section(seed, m), {'inputs': pool, 'teacher': t}, f'labels {m}')
                  for m, t in teachers.items()}
        for i, weak in enumerate(models):
            for strong in models[i:]:
                given = {'inputs': pool, 'targets': labels[weak]}
                needs[f'{weak}/{strong}/{seed}'] = Phase(kind, section(seed, strong), given, f'student {strong}')
    return Phase('evaluate', {'seeds': list(seeds)}, needs, 'evaluation')


def section(seed: int, model: str) -> dict:
    return {'model': {'model': model}, 'hyper': {'seed': seed}}


class Toy:
    """A `run` of execute.execute.

    It writes a line into `events` for each phase that is begun, also where the store has it, and for each step.
    """

    def __init__(self, store: Store, seconds: float, log=None):
        self.store, self.seconds, self.log = store, seconds, log
        self.events = pathlib.Path(store.place) / 'events'

    def write(self, *words) -> None:
        with open(self.events, 'a') as file:
            file.write(' '.join(map(str, (*words, os.getpid()))) + '\n')

    def __call__(self, phases, inputs, folder):
        again = all(self.store.find(p.kind, p.id) for p in phases)  # a part: it is run again as a whole
        for phase in phases:
            self.write('again' if again else 'begin', phase.id)
        if phases[0].kind == 'broken':
            raise UserError(f'{phases[0].label}: broken, expected whole')
        path = folder / 'state.json'
        step, values = json.loads(path.read_text()) if path.exists() else (0, [begin(p, i) for p, i in zip(
            phases, inputs, strict=True)])
        while step < STEPS:
            time.sleep(self.seconds)
            values, step = [mix(step, v) for v in values], step + 1
            write_json(path, [step, values])
            for phase in phases:
                self.write('step', phase.id, step)
            if self.log is not None:
                self.log.progress(phases[0].label, step, STEPS, {'loss': np.full(len(phases), 1 / step)})
        return [({'value': v, 'company': len(phases)}, {'value': np.frombuffer(bytes.fromhex(v), np.uint8)}, None)
                for v in values]


def mix(*values) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


def begin(phase: Phase, needs: dict) -> str:
    return mix(phase.id, sorted((k, n.metrics['value'] if isinstance(n, Artifact) else n) for k, n in needs.items()))


def outcome(store: Store) -> dict[str, tuple]:
    """Every number that is stored, by artifact."""
    found = {p.parent.name: Artifact(p.parent) for p in store.folder.glob('[!.]*/DONE')}
    return {name: (a.metrics['value'], a.metrics['company'], a.arrays['value'].tobytes()) for name, a in found.items()}


def events(store: Store) -> list[list[str]]:
    return [line.split() for line in (store.folder / 'events').read_text().splitlines()]


def twice(store: Store) -> list:
    """Phases that were begun although the store had them."""
    return [e for e in events(store) if e[0] == 'again']


def repeated(store: Store) -> int:
    """How many steps were done more than once: a killed process may lose the one that it was at, a phase."""
    steps = [tuple(e[1:3]) for e in events(store) if e[0] == 'step']
    return len(steps) - len(set(steps))


if __name__ == '__main__':
    place = Store(pathlib.Path(sys.argv[1]))
    place.clear_parts()
    try:
        execute([toy_graph()], place, Toy(place, float(sys.argv[2])), report=lambda text: None)
    except TakenOver:
        sys.exit(75)
