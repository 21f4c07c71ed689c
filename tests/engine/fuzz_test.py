"""Bad inputs at random, from seeds: whatever comes in, it is taken, or refused in one line; and never slowly."""
import collections
import io
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time
import traceback

import numpy as np
import pytest
import rows
import sections
import synthetic_grid
import tiny
from commands import error

import w2s_jax
from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax.data import Dataset, Examples
from w2s_jax.engine import commands, export
from w2s_jax.errors import UserError
from w2s_jax.models import hf, language, tokens, zoo
from w2s_jax.report import page, shape, tables
from w2s_jax.tasks import TASKS

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f'--config={ROOT}/configs/salient_concept.py'
SECONDS = 60  # that no input may take
WRONG = (None, True, -1, 0, 3.7, -1e30, 1e400, float('nan'), 10**30, '', 'x', 'nonsense/x', '\n', 'é' * 300, 'a\0b', [],
         [3], ['x'], {}, {'a': 1}, (), ((),), (None,), b'bytes', object(), np.float32(2), np.arange(3),
         pathlib.Path('x'))
WORDS = (1, 2, 7, .3, 1e-300, 1e3, 'lora', 'probe', 'bfloat16', 'hard', 'map', 'pmap', 'full', 'last', 'confidence',
         'auto', 'agreement', 'bootstrap', 'knn', 'teacher', 'mlp-4', 'chess-xs', 'sgd', 'exact',
         ('confidence', 'xent'), ('knn',))
TEXTS = ('', 'x', '-1', '1e400', 'nan', '(', "('x',)", '{}', 'None', '[[', 'é' * 300, '3.7', "{'a': 1}", '--', '\t\n')
GOLDENS = sorted(path.parent for path in tiny.GOLDENS.glob('*/model.safetensors'))


class Fuzz:
    """What all kinds of inputs share. cli: `experiments.run` in this process.  folder: for files."""

    def __init__(self, seed: int, cli, folder: pathlib.Path):
        self.rng, self.cli, self.folder = random.Random(seed), cli, folder
        self.number = 0
        self.finished = folder / 'finished'
        self.config = salient_concept.get_config()
        self.config.seeds, self.config.report.html, self.config.report.sinks = (0,), False, ()
        self.config.task.train_size, self.config.task.test_size = 80, 40
        self.config.train.epochs, self.config.train.batch_size = 1, 20
        self.small = [CONFIG, *(f'--config.{k}={v}' for k, v in {
            'seeds': '(0,)', 'report.html': False, 'task.train_size': 80, 'task.test_size': 40, 'train.epochs': 1,
            'train.batch_size': 20}.items())]

    def place(self) -> pathlib.Path:
        """A folder of its own."""
        self.number += 1
        found = self.folder / f'{self.number}'
        found.mkdir()
        return found

    # Kinds of inputs: each returns None if it was taken, else what was said. A UserError says it as well.

    def value(self) -> None:
        """A field of the config with a value of another kind, from Python."""
        config = self.config.copy_and_resolve_references().unlock()
        with config.ignore_type():
            for _ in range(self.rng.choice([1, 1, 1, 2])):
                *path, name = self.rng.choice(sorted(configs.settings(self.config))).split('.')
                node = config
                for part in path:
                    node = node[part] if part in node and hasattr(node, '__getitem__') else {}
                if hasattr(node, 'ignore_type'):
                    node[name] = self.rng.choice(self.rng.choice([WRONG, WORDS]))
        self._run(config)

    def _run(self, config) -> None:
        if self.rng.random() < .5:
            w2s_jax.run(config, self.place(), stream=io.StringIO())
        else:
            w2s_jax.grid(config, [{'task.seed': 1}], self.place(), stream=io.StringIO())

    def field(self) -> None:
        """A field that is not there, or a section in place of a field, from Python."""
        config = self.config.copy_and_resolve_references().unlock()
        name = self._misspelt(self.rng.choice(sorted(configs.settings(self.config))).rpartition('.')[2])
        config[self.rng.choice(['task', 'student', 'train', 'loss'])] = {name.replace('.', ''): self.rng.choice(WRONG)}
        self._run(config)

    def sweep(self) -> None:
        """A cell with something wrong in it."""
        names = sorted(configs.settings(self.config))
        name = self.rng.choice([self.rng.choice(names), self._misspelt(self.rng.choice(names))])
        cell = {name: self.rng.choice(self.rng.choice([WRONG, WORDS]))}
        shapes = [[cell]] * 6 + [cell, [cell, cell], w2s_jax.chain([cell], [{}]), [[cell]]]
        w2s_jax.grid(self.config, self.rng.choice(shapes),
                     self.place(), stream=io.StringIO())

    def _misspelt(self, name: str) -> str:
        i = self.rng.randrange(len(name))
        return name[:i] + self.rng.choice(['', 'x', '.', '..', '\0', '-']) + name[i + self.rng.randrange(3):]

    def flag(self) -> str | None:
        """A flag with a wrong text, or a wrong flag."""
        names = sorted(configs.settings(self.config))
        name = self.rng.choice([*names, self._misspelt(self.rng.choice(names))])
        workdir = self.rng.choice([self.place()] * 8 + ['', '/dev/null', 'x' * 400])
        return self._status(self.cli(*self.small, f'--workdir={workdir}',
                                     f'--{"no" * (self.rng.random() < .1)}config.{name}={self._text()}'))

    def _text(self) -> str:
        return str(self.rng.choice(self.rng.choice([TEXTS, WORDS])))

    def program(self) -> str | None:
        """A config file that is none."""
        path = self.place() / 'mine.py'
        good = pathlib.Path(f'{ROOT}/configs/salient_concept.py').read_bytes()
        path.write_bytes(self.rng.choice([self._damaged(good), b'raise SystemExit', b'def get_config(): pass', b'']))
        return self._status(self.cli(f'--config={path}', f'--workdir={self.place()}', *self.small[1:]))

    @staticmethod
    def _status(result) -> str | None:
        return error(result) if result[0] else None

    def _damaged(self, content: bytes) -> bytes:
        """A file as something broke it."""
        i = self.rng.randrange(len(content))
        how = self.rng.randrange(8)
        if how < 3:
            return content[:i] + bytes([self.rng.randrange(256)]) + content[i + self.rng.randrange(1, 4):]
        return [content[:i], content[:i] + b'\0' + content[i:], content.decode('latin-1').encode('utf-16'),
                content[:i] + b'x' * 200_000 + content[i:], content[i:]][how - 3]

    def data(self) -> None:
        """A damaged file of rows."""
        kind = self.rng.choice(['csv', 'tsv', 'json', 'jsonl', 'parquet', 'npz'])
        path = self.place() / f'mine.{kind}'
        if kind == 'npz':
            arrays = {'tokens': np.zeros((4, 64), int), 'move': np.ones(4, int), 'game': np.arange(4),
                      'legal_flat': np.ones(4, int), 'legal_count': np.ones(4, int)}
            arrays[self.rng.choice(list(arrays))].ravel()[self.rng.randrange(4)] = self.rng.choice([-1, 5, 10**9])
            np.savez(path, **arrays)
        else:
            rows.write(path, rows.reviews(40))
        if kind != 'npz' or self.rng.random() < .5:
            path.write_bytes(self._damaged(path.read_bytes()))
        name = 'chess' if kind == 'npz' else 'files'
        more = {} if kind == 'npz' else {'text': 'body', 'label': 'grade'}
        TASKS[name].fn(sections.task(name, path=str(path), **more), lambda line: None)

    def cells(self) -> None:
        """Rows whose cells are of other kinds, and fields that name other columns."""
        kind = self.rng.choice(['json', 'jsonl', 'parquet'])
        made = rows.reviews(40)
        plain = [v for v in WRONG if kind != 'parquet' and isinstance(v, str | int | float | list | dict | None)]
        for _ in range(self.rng.choice([1, 40])):
            self.rng.choice(made)[self.rng.choice(['body', 'grade', 'new'])] = self.rng.choice([*plain, 'x', ''])
        columns = [*['body', 'grade', 'by'] * 3, 'body,by', 'body,grade', 'x', '', '(', '{body} {by}']
        more = self.rng.choice(['weak', 'group', 'classes', 'question', 'template', 'test_path'])
        fields = {'text': 'body', 'label': 'grade'} | {k: self.rng.choice(columns) for k in self.rng.choice(
            [(), ('text',), ('label',), (more,)])} | {'max_bad_rows': self.rng.choice([.01, .5, .9])}
        path = rows.write(self.place() / f'mine.{kind}', made)
        TASKS['files'].fn(sections.task('files', path=path, **fields), lambda line: None)

    def model(self) -> None:
        """A model folder with a damaged file, or an absurd number in its config."""
        folder = self.place() / 'model'
        shutil.copytree(self.rng.choice(GOLDENS), folder, ignore=shutil.ignore_patterns('expected.npz'))
        tiny.tokenizer(folder)
        name = self.rng.choice([*['config.json'] * 4, 'tokenizer.json', 'model.safetensors'])
        if not (folder / name).exists():
            return  # of several files
        if name == 'config.json' and self.rng.random() < .85:
            raw = json.loads((folder / name).read_text())
            for _ in range(self.rng.choice([1, 1, 2])):
                self._absurd(raw)
            (folder / name).write_text(json.dumps(raw))
        elif name == 'model.safetensors':
            whole = (folder / name).read_bytes()
            header = 8 + int.from_bytes(whole[:8], 'little')
            (folder / name).write_bytes(self._damaged(whole[:header]) + whole[header:])
        else:
            (folder / name).write_bytes(self._damaged((folder / name).read_bytes()))
        self._use(folder)

    @staticmethod
    def _use(folder: pathlib.Path) -> None:
        texts = np.array([['abc'], ['de']], object)
        dataset = Dataset('mine', 2, *[Examples({'text': texts}, np.arange(2), np.arange(2))] * 1, tests={
            'test': Examples({'text': texts}, np.arange(2), np.arange(2))})
        part = configs.default_config().student
        part.model, part.mode = str(language.find(str(folder), 'student.model')), 'probe'
        found = zoo.get(part, 'student', dataset)
        tokens.encode(found.tokenizer, texts, 16, 'end')
        hf.load(folder)

    def _absurd(self, raw: dict) -> None:
        """Another value somewhere in a tree."""
        key = self.rng.choice(list(raw))
        if isinstance(raw[key], dict) and raw[key] and self.rng.random() < .7:
            self._absurd(raw[key])
        elif self.rng.random() < .2:
            del raw[key]
        elif type(raw[key]) in (int, float) and self.rng.random() < .5:
            raw[key] = self.rng.choice([raw[key] * 2, raw[key] * 3, raw[key] + 1, raw[key] // 2, -raw[key]])
        else:
            raw[key] = self.rng.choice([None, [], {}, 'x', -1, 0, .5, 10**9, 10**400, float('nan'), True, [[1]], 1e300])

    def report(self) -> None:
        """A damaged file of a finished experiment or grid."""
        folder = self.place() / 'w'
        shutil.copytree(self.finished, folder)
        path = self.rng.choice(sorted(folder.rglob('*.json')))
        if self.rng.random() < .2:
            path.write_bytes(self._damaged(path.read_bytes()))
        else:
            raw = json.loads(path.read_text())
            for _ in range(self.rng.choice([1, 1, 3])):
                self._somewhere(raw)
            path.write_text(json.dumps(raw))
        with shape.doubting(folder):
            page.write(folder)
            page.terminal_table(tables.load(folder))
        export.find(folder, 'student', 'xent', 0)

    def _somewhere(self, raw) -> None:
        keys = list(raw) if isinstance(raw, dict) else list(range(len(raw)))
        if not keys:
            return
        key = self.rng.choice(keys)
        if isinstance(raw[key], dict | list) and raw[key] and self.rng.random() < .8:
            self._somewhere(raw[key])
        elif self.rng.random() < .2:
            del raw[key]
        else:
            raw[key] = self.rng.choice([None, [], {}, 'x', '', -1, 10**400, 1e300, float('nan'), True, [None],
                                        {'a': []}])

    def command(self) -> str | None:
        """Arguments of `w2s list` and `w2s store` that are wrong."""
        words = ['', 'losses', 'verify', 'ls', 'gc', '--workdir=/dev/null', f'--workdir={self.place()}', '--store=no://x',
                 '--plugins=nonsense', '--older_than_hours=x', '--older_than_hours=nan', '--forget=x', '-', '--', '\0']
        said, before = io.StringIO(), sys.stderr
        sys.stderr = said
        try:
            status = commands.main([self.rng.choice(['list', 'store', 'store', 'x', '']),
                                    *self.rng.choices(words, k=self.rng.randrange(4))])
        finally:
            sys.stderr = before
        return None if not status else error((status, '', said.getvalue()))

    def process(self) -> str | None:
        """A command in a process of its own."""
        name, flag = self.rng.choice([
            ('report', '--workdir=/dev/null'), ('export', '--workdir=/nowhere'), ('grid', CONFIG),
            ('run', '--config=/'), ('store', '--workdir='), ('run', f'--workdir={self.place()}')])
        done = subprocess.run([sys.executable, '-m', f'experiments.{name}', flag], cwd=ROOT, capture_output=True,
                              text=True, timeout=SECONDS)
        return self._status((done.returncode, done.stdout, done.stderr))


SHARES = {'value': 38, 'field': 8, 'sweep': 12, 'flag': 22, 'program': 6, 'data': 24, 'cells': 12, 'model': 14,
          'report': 10, 'command': 12, 'process': 1}


def once(fuzz: Fuzz, kind: str) -> tuple[str | None, str]:
    """(what was said, None if the input was taken; where it broke, '' if it did not)."""
    try:
        return getattr(fuzz, kind)(), ''
    except UserError as e:
        return str(e), ''
    except (Exception, SystemExit) as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        return '', f'{type(e).__name__}: {e} ({where.filename}:{where.lineno})'


def check(number: int, seed: int, cli, folder, capsys) -> None:
    """So many inputs, in the shares above. Prints how many were tried, refused and taken."""
    fuzz = Fuzz(seed, cli, folder)
    synthetic_grid.write(fuzz.finished, axes={'optimizer.learning_rate': [1e-3, 1e-2]}, seeds=(0, 1), test=40)
    counts: dict[str, collections.Counter] = {kind: collections.Counter() for kind in SHARES}
    wrong: list[str] = []
    scale = number / sum(SHARES.values())
    for kind, share in SHARES.items():
        for i in range(round(share * scale)):
            fuzz.rng.seed(f'{seed} {kind} {i}')
            began = time.monotonic()
            said, broke = once(fuzz, kind)
            took = time.monotonic() - began
            if broke or took > SECONDS or (said is not None and len(said.splitlines()) != 1):
                wrong.append(f'{kind} {i} of seed {seed}, {took:.0f} s: {broke or said!r}')
            counts[kind].update(['tried', 'taken' if said is None else 'refused'])
            counts[kind]['seconds'] += took
    capsys.readouterr()
    assert not wrong, '\n'.join(wrong[:20])
    for kind, found in counts.items():
        print(f'{kind}: tried {found["tried"]}, refused {found["refused"]}, taken {found["taken"]}, '
              f'{found["seconds"]:.1f} s')
    total = sum(counts.values(), collections.Counter())
    print(f'all: tried {total["tried"]}, refused {total["refused"]}, taken {total["taken"]}')
    assert total['refused'] > total['tried'] / 2 and total['taken']


@pytest.mark.long
def test_bad_inputs_end_in_one_line(cli, tmp_path, capsys):
    check(150, 0, cli, tmp_path, capsys)


@pytest.mark.slow
def test_a_thousand_bad_inputs_end_in_one_line(cli, tmp_path, capsys):
    check(1000, 1, cli, tmp_path, capsys)
