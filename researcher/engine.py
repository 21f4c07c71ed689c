"""The judge: trains an idea's students in the sandbox, predicts from their parameters itself, and signs the numbers.

Truth is made from the vault's secret in this process's memory; no file has it. The idea's code is never imported here.
"""
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from typing import Any

import numpy as np

from researcher import record, sandbox, scoring, tracks
from researcher.idea import Idea
from researcher.record import Record
from researcher.vault import Vault, canonical
from w2s_jax import api
from w2s_jax.api import ConfigError, StoreError, UserError, WeightsError

SUSPICIOUS = 1.2  # a PGR above it is not believed before somebody has looked
SMALL = {'train.epochs': 1, 'train.batch_size': 32}
FEW, SECONDS = 2, 90


@dataclasses.dataclass(frozen=True)
class Judged:
    """Half -> whether each row is answered right, bool: by the weak labels `[1, N]`, and by what the judge has trained
    itself, naive students and ceilings, `[S, N]`."""
    weak: dict[str, np.ndarray]
    naive: dict[str, np.ndarray]
    ceiling: dict[str, np.ndarray]


class Engine:
    """Scores ideas on a track.

    Args:
      workdir: records go to `records`; `private` is the judge's.  trust: run ideas also where nothing can shut them in.
      seeds: which, or how many; None: the track's.  limits: of the process that trains.  hidden: records go to
        `private/records`, since even their rounded numbers are not for agents that have a ladder's answers.
    Raises ConfigError where ideas cannot be shut in and are not trusted.
    """

    def __init__(self, track: str, workdir: str | pathlib.Path, trust: bool = False,
                 seeds: int | tuple[int, ...] | None = None, limits: sandbox.Limits = sandbox.USUAL,
                 small: bool = False, hidden: bool = False):
        sandbox.check(trust)
        self.track, self.workdir, self.trust = tracks.get(track), pathlib.Path(workdir).absolute(), trust
        self.limits, self.small, self.code = limits, small, record.code_hash()
        self.seeds = seeds if isinstance(seeds, tuple) else tuple(range(seeds or self.track.seeds))
        self.vault = Vault(self.workdir / 'private')
        self.records = self.vault.folder / 'records' if hidden else self.workdir / 'records'
        self.materials: dict[bool, tuple[tracks.Material, api.Forward]] = {}
        clear(self.workdir / 'jobs')

    def config(self):
        """The track's, with these seeds."""
        config = self.track.config()
        config.seeds = self.seeds
        return api.apply(config, SMALL) if self.small else config

    def material(self, final: bool = False) -> tuple[tracks.Material, api.Forward]:
        """The data, and the forward pass of the student's model; made once a process."""
        if final not in self.materials:
            made = self.track.make(self.vault.secret, final, self.small, self.seeds)
            self.materials[final] = made, api.Forward(self.config(), made.dataset())
        return self.materials[final]

    def identity(self, idea: Idea, final: bool = False) -> str:
        """Of a score: idea, track, seeds and code. The same idea has the same score: asking again is no new draw."""
        parts = [idea.hash, self.track.name, self.seeds, self.small, final, self.code, self.trust]
        return self.vault.seal(canonical({'score': parts}))[:16]

    def score(self, idea: Idea, again: bool = False) -> Record:
        """The record of an idea; one that is there already is read, unless `again`. Raises StoreError for a record
        that was changed. An idea that cannot be scored has a record that says why."""
        path = self.records / f'{self.identity(idea)}.json'
        if path.exists() and not again:
            return record.read(path, self.vault)
        value = self.measure(idea)
        self.vault.write(f'scores/{value["public"]["id"]}', value['private'])
        found = record.write(self.records, self.vault, value['public'])
        self.note({'event': 'score', 'id': found.id, 'idea': found.idea, 'status': found.status, 'reason': found.reason,
                   'alarms': list(found.alarms)})
        return found

    def measure(self, idea: Idea, final: bool = False) -> dict[str, Any]:
        """{'public', 'private'}: what a score's record holds, and what only the judge reads."""
        began, outcome, private = time.time(), sandbox.Outcome('', '', [], []), {}
        reason = ''
        try:
            params, digest, outcome = self.students(idea, final)
            private = self.judged(params, final) | {'parameters': digest}
        except UserError as e:
            reason = str(e)
            outcome = getattr(e, 'outcome', outcome)
        public = {'pgr': None, 'pgr_seeds': [], 'naive': None} if reason else shown(private)
        material, _ = self.material(final)
        found = {'id': self.identity(idea, final), 'status': 'failed' if reason else 'scored', 'reason': reason[:400],
                 'idea': {'hash': idea.hash, 'name': idea.name, 'text': idea.text, 'delta': idea.delta},
                 'track': self.track.name, 'seeds': list(self.seeds), 'code': self.code,
                 'data': {k: self.fingerprint(getattr(material, k)) for k in ('pool', *scoring.HALVES)},
                 'config': api.flat(self.config()), 'public': public, 'guards': outcome.guards,
                 'alarms': self.alarms(outcome, public), 'parameters': private.get('parameters', ''),
                 'seconds': round(time.time() - began, 1)}
        return {'public': found, 'private': private | {'id': found['id']}}

    def judged(self, params: list[dict], final: bool = False) -> dict[str, Any]:
        """Exact numbers of trained parameters: PGR by half and seed, of students and of naive ones."""
        material, forward = self.material(final)
        base, mine = self.baseline(final), scoring.right(forward, params, material)
        found = {half: {name: scoring.recovered(base.weak[half], rows[half], base.ceiling[half])
                        for name, rows in (('pgr', mine), ('naive', base.naive))} for half in scoring.HALVES}
        return found | {'rows': scoring.packed(mine)}

    def students(self, idea: Idea, final: bool = False) -> tuple[list[dict], str, sandbox.Outcome]:
        """Parameters by seed, checked, their digest, and how the sandbox ended. Raises UserError with its `outcome`."""
        _, forward = self.material(final)
        if not idea.code:
            api.apply(self.config(), idea.delta)  # what is wrong with its fields is known before anything runs
        with self.job(idea, final) as folder:
            cell = sandbox.Cell(sandbox.HERE / 'worker.py', (str(folder),), folder, (self.vault.folder,),
                                limits=self.limits, sealed=self.track.sealed())
            outcome = sandbox.run(cell, self.trust)
            try:
                if outcome.reason:
                    raise ConfigError(outcome.reason)
                flat = [scoring.parameters(folder / 'work' / f'{seed}.safetensors') for seed in self.seeds]
                trees = []
                for seed, one in zip(self.seeds, flat, strict=True):
                    try:
                        trees.append(forward.check(one))
                    except WeightsError as e:
                        raise WeightsError(f'seed {seed}: {e}') from None
            except UserError as e:
                e.outcome = outcome  # type: ignore[attr-defined]
                raise
        return trees, digest_of(flat), outcome

    def job(self, idea: Idea, final: bool) -> 'Job':
        """A folder with what the sandbox may see, gone when the block ends."""
        material, _ = self.material(final)
        told = {'num_classes': material.num_classes, 'config': api.flat(self.config()), 'delta': idea.delta,
                'code': idea.code, 'sealed': list(self.track.sealed())}
        return Job(self.workdir / 'jobs', told, material, idea.text if idea.code else '')

    def baseline(self, final: bool = False) -> Judged:
        """Naive students and ceilings, trained here, once for data, seeds and code."""
        material, forward = self.material(final)
        data = [self.fingerprint(getattr(material, k)) for k in ('pool', *scoring.HALVES)]
        name = f'baseline-{self.vault.seal(canonical({"of": [data, self.code, self.seeds, self.small]}))[:16]}'
        found = self.vault.read(name)
        if found is None:
            with tempfile.TemporaryDirectory(dir=self.vault.folder) as folder:
                trained = api.train(self.config(), material.dataset(), folder, ('student', 'ceiling'))
            both = {role: scoring.right(forward, [t.params for t in sorted(trained, key=lambda t: t.seed)
                                                       if t.role == role], material) for role in ('student', 'ceiling')}
            found = {'weak': scoring.packed(scoring.weak(material)), 'naive': scoring.packed(both['student']),
                     'ceiling': scoring.packed(both['ceiling'])}
            self.vault.write(name, found)
        return Judged(*(scoring.unpacked(found[k]) for k in ('weak', 'naive', 'ceiling')))

    def fingerprint(self, rows: api.Examples) -> str:
        """Of rows with their truth: keyed, so that nobody can try labels against it."""
        digest = hashlib.sha256()
        for array in (*(rows.inputs[k] for k in sorted(rows.inputs)), rows.truth, rows.given, rows.group):
            digest.update(b'none' if array is None else np.ascontiguousarray(array).data)
        return self.vault.seal(digest.digest())[:16]

    def alarms(self, outcome: sandbox.Outcome, public: dict) -> list[str]:
        """Why an entry has no rank until somebody has looked."""
        found = [f'tried: {attempt}' for attempt in outcome.attempts]
        if self.trust and sandbox.missing():
            found.append('unconfined: ran without a sandbox (--trust)')
        if public['pgr'] is not None and public['pgr'] > SUSPICIOUS:
            found.append(f'PGR {public["pgr"]:.2f} above {SUSPICIOUS}: better than the truth teaches')
        return found

    def private(self, found: Record) -> dict[str, Any]:
        """The exact numbers of a record: half -> {'pgr', 'naive'}, a list over seeds each; 'rows': see `rows`. For the
        judge alone. Raises StoreError."""
        value = self.vault.read(f'scores/{found.id}')
        if value is None or value['id'] != found.id:
            raise StoreError(f'{found.path}: its private numbers are gone; score it again')
        return value

    def rows(self, found: Record) -> dict[str, np.ndarray]:
        """Half -> `[S, N]` bool, which rows the students of a record answer right; beside `baseline()`. For the judge
        alone. Raises StoreError."""
        return scoring.unpacked(self.private(found)['rows'])

    def final(self, idea: Idea) -> dict[str, Any]:
        """Exact numbers on the third data set, as `private`; for the judge alone, at the end. Raises UserError."""
        params, _, _ = self.students(idea, final=True)
        return self.judged(params, final=True)

    def replay(self, found: Record) -> list[str]:
        """Scores the idea of a record again; what differs, to the bit: nothing, if all is well. Raises UserError."""
        from researcher.idea import parse
        if found.all['code'] != self.code:
            raise StoreError(f'{found.path}: was scored by code {found.all["code"]}, this is {self.code}; expected the '
                             'same')
        idea = parse(found.name, found.all['idea']['text'])
        new, old = self.measure(idea), self.private(found)
        same = [(k, new['public'][k] == found.all[k]) for k in ('id', 'status', 'data', 'public', 'parameters')]
        same += [(k, new['private'].get(k) == old.get(k)) for k in (*scoring.HALVES, 'rows')]
        return [name for name, equal in same if not equal]

    def note(self, event: dict[str, Any]) -> None:
        """A line in log.jsonl."""
        line = json.dumps({'time': round(time.time(), 1), **event}) + '\n'
        with open(self.workdir / 'log.jsonl', 'a') as file:
            file.write(line)


def shown(private: dict[str, Any]) -> dict[str, Any]:
    """What an agent may know of exact numbers: of the public half, to .01."""
    public = private['public']
    return {'pgr': round(float(np.mean(public['pgr'])), 2), 'pgr_seeds': [round(x, 2) for x in public['pgr']],
            'naive': round(float(np.mean(public['naive'])), 2)}


def digest_of(params: list[dict[str, np.ndarray]]) -> str:
    """16 hex digits over parameters."""
    digest = hashlib.sha256()
    for one in params:
        for key in sorted(one):
            digest.update(f'{key}{one[key].dtype}{one[key].shape}'.encode() + np.ascontiguousarray(one[key]).tobytes())
    return digest.hexdigest()[:16]


class Job:
    """A folder `in` with inputs, weak labels and the idea, and an empty one `work`; with `with`, gone afterwards."""

    def __init__(self, place: pathlib.Path, told: dict, material: tracks.Material, text: str):
        self.place, self.told, self.pool, self.text = place, told, material.pool, text

    def __enter__(self) -> pathlib.Path:
        self.place.mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f'{os.getpid()}-', dir=self.place))
        inside = self.folder / 'in'
        inside.mkdir()
        (self.folder / 'work').mkdir()
        read = {os.path.realpath(str(p)) for p in (*sandbox.readable(), inside)} | {str(inside), *sandbox.SYSTEM}
        (inside / 'job.json').write_text(json.dumps(self.told | {'read': sorted(read)}))
        np.savez(inside / 'pool.npz', **self.pool.inputs, group=self.pool.group, given=self.pool.given)
        if self.text:
            (inside / 'idea_of_agent.py').write_text(self.text, encoding='utf-8')
        return self.folder

    def __exit__(self, *error) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def clear(place: pathlib.Path) -> None:
    """Removes jobs that killed processes have left."""
    for folder in place.glob('*-*'):
        number = folder.name.partition('-')[0]
        if number.isdecimal() and not os.path.exists(f'/proc/{number}'):
            shutil.rmtree(folder, ignore_errors=True)
