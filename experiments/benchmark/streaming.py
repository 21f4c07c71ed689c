"""Does the device wait for its input, and does memory grow with the data? An experiment, watched phase by phase.

  python -m experiments.benchmark.streaming --config=configs/nlp.py:sciq --workdir=W --config.teacher.model=FOLDER ...
  python -m experiments.benchmark.streaming --rows=25000,50000,100000,200000

With --config, any that experiments.run takes: for each phase the time in which the device had no program although the
phase had more of them (compilation left out), and the anonymous memory of the process (Linux). With --rows: the memory
while that many short texts are loaded and labelled by a small random model, each number in a process of its own.
Every number goes to --out as JSON.
"""
import contextlib
import csv
import json
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
import safetensors.numpy
import tokenizers
from absl import flags
from ml_collections import config_flags

from experiments.benchmark.experiment import changed
from w2s_jax import cli, graph
from w2s_jax import config as configs
from w2s_jax.engine import execute
from w2s_jax.engine import plan as plans
from w2s_jax.engine import runner as runners
from w2s_jax.errors import ConfigError
from w2s_jax.phases import kinds
from w2s_jax.report.log import Log
from w2s_jax.store.artifacts import Store
from w2s_jax.train import program

CONFIG = config_flags.DEFINE_config_file('config', None, 'configs/F.py or configs/F.py:argument')
WORKDIR = flags.DEFINE_string('workdir', None, 'where artifacts go (default: a temporary folder)')
UNTIL = flags.DEFINE_string('until', 'evaluate', 'with --config: the kind of phase to run, with what it needs')
ROWS = flags.DEFINE_list('rows', None, 'numbers of rows to label')
WORDS = flags.DEFINE_integer('words', 20, 'with --rows: words, and tokens, of a text', 1)
FILE = flags.DEFINE_enum('file', 'csv', ['csv', 'jsonl', 'parquet'], 'with --rows: the kind of file they are in')
OUT = flags.DEFINE_string('out', 'streaming.json', 'JSON file of every number')

PERIOD = .02  # seconds between two looks at the memory
VOCABULARY = 1000  # words of the synthetic texts


class Device:
    """When the device had work: every call of a `train.Program`, from the call to the end of what it computes.

    A thread waits for each result, so an end is seen late by what the host does at that moment without letting go of
    the interpreter: `switch`, in seconds, bounds how long Python does so.
    """

    def __init__(self, switch: float = 1e-5):
        self.calls: list[tuple[float, float, bool]] = []  # began, ended, whether it was compiled for
        self.queue: queue.SimpleQueue = queue.SimpleQueue()
        self.switch = switch
        self.begun = self.ended = 0  # calls, of which the thread has seen the end

    @contextlib.contextmanager
    def watched(self) -> Iterator['Device']:
        """While this lasts, calls are noted."""
        call, interval, watch = program.Program.__call__, sys.getswitchinterval(), threading.Thread(target=self._watch)

        def noted(program, *args):
            known, began = program.traces, time.perf_counter()
            out = call(program, *args)
            self.begun += 1
            self.queue.put((began, program.traces > known, jax.tree.leaves(out)[-1]))
            return out
        watch.start()
        sys.setswitchinterval(self.switch)
        program.Program.__call__ = noted  # type: ignore[method-assign]
        try:
            yield self
        finally:
            program.Program.__call__ = call  # type: ignore[method-assign]
            sys.setswitchinterval(interval)
            self.queue.put(None)
            watch.join()

    def _watch(self) -> None:
        while (call := self.queue.get()) is not None:
            began, compiled, out = call
            out.block_until_ready()
            self.calls.append((began, time.perf_counter(), compiled))
            self.ended += 1

    def taken(self) -> dict[str, float]:
        """What was noted since the last time: number of calls, seconds busy, seconds idle between them."""
        while self.ended < self.begun:
            time.sleep(.01)
        calls, self.calls = self.calls, []
        busy, idle, longest, last = 0.0, 0.0, 0.0, None
        for began, ended, compiled in calls:
            if last is not None and not compiled:
                gap = max(began - last, 0.0)
                busy, idle, longest = busy + ended - max(began, last), idle + gap, max(longest, gap)
            last = ended
        return {'calls': len(calls), 'busy': busy, 'idle': idle, 'longest_gap': longest}


class Memory:
    """Anonymous memory of this process in bytes (what is mapped from files does not count), and its peaks."""

    def __init__(self) -> None:
        self.peak, self.over = resident(), threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator['Memory']:
        """While this lasts, peaks are seen."""
        watch = threading.Thread(target=self._watch)
        watch.start()
        try:
            yield self
        finally:
            self.over.set()
            watch.join()

    def _watch(self) -> None:
        while not self.over.wait(PERIOD):
            self.peak = max(self.peak, resident())

    def taken(self) -> dict[str, int]:
        """The peak since the last time, and what is resident now."""
        now = resident()
        peak, self.peak = max(self.peak, now), now
        return {'peak': peak, 'after': now}


def resident() -> int:
    """Bytes of this process that no file backs: RssAnon and RssShmem of /proc/self/status."""
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    found = {k: int(v.split()[0]) for k, v in (x.split(':') for x in lines) if k in ('RssAnon', 'RssShmem')}
    return sum(found.values()) * 1024


def watch(config, workdir: pathlib.Path, until: str) -> list[dict]:
    """Runs the phases of a kind, and what they need; a row for the loading, one a group of phases that ran."""
    rows: list[dict] = []
    with Memory().watched() as memory, Device().watched() as device, contextlib.closing(Log()) as log:
        def note(what: str, began: float) -> None:
            rows.append({'phase': what, 'seconds': time.perf_counter() - began, **device.taken(), **memory.taken()})
            log.line('  '.join(table(rows[-1:])[1]))
        workdir.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        plan = plans.prepare(config, log.line)
        note('loading', began)
        runner = runners.Runner([plan], log.progress)

        def run(unit, inputs, folder):
            memory.taken()
            began = time.perf_counter()
            out = runner.run(unit, inputs, folder)
            note(graph.describe(unit), began)
            return out
        targets = [p for p in plan.phases if until in (p.kind, p.role)]
        if not targets:
            raise ConfigError(f'--until={until}: no such phase, expected one of {", ".join(kinds.KINDS)}')
        execute.execute(targets, Store(workdir / 'store'), run, log.line, runner.choose)
    return rows


def table(rows: list[dict]) -> list[list[str]]:
    """The rows of `watch`, to print."""
    def line(row):
        device = row['busy'] + row['idle']
        share = f'{100 * row["idle"] / device:.2f}' if device else '-'
        return [row['phase'], f'{row["seconds"]:.1f}', f'{row["calls"]}', f'{device:.1f}', share,
                f'{1000 * row["longest_gap"]:.1f}', f'{row["peak"] / 1e6:.1f}', f'{row["after"] / 1e6:.1f}']
    return [['phase', 'seconds', 'programs', 'their seconds', 'idle, %', 'longest gap, ms', 'peak, MB', 'after, MB'],
            *map(line, rows)]


# --rows


def small_config(folder: pathlib.Path, path: pathlib.Path):
    """A few of the rows of a file of texts teach a small model, which labels the others."""
    c = configs.default_config()
    c.task.update(name='files', path=str(path), text='text', label='label', test_size=200)
    c.teacher.model = c.student.model = str(folder)
    c.method.share = .02
    c.train.update(epochs=1, batch_size=16, watch=64, evaluations=1, eval_batch_size=256)
    c.seeds = (0,)
    return configs.compose(c)


def write_rows(path: pathlib.Path, rows: int, words: int) -> None:
    """A file of texts, random words each, with a label that says whether the first is of the first half."""
    names, rng = np.array([f'w{i}' for i in range(VOCABULARY)]), np.random.default_rng(0)
    drawn = rng.integers(0, VOCABULARY, (rows, words))
    made = ({'text': ' '.join(names[row]), 'label': str(int(row[0] < VOCABULARY // 2))} for row in drawn)
    if path.suffix == '.parquet':
        import pyarrow as pa
        import pyarrow.parquet as pq
        pq.write_table(pa.Table.from_pylist(list(made)), path)
        return
    with open(path, 'w', newline='') as file:
        if path.suffix == '.jsonl':
            file.writelines(json.dumps(row) + '\n' for row in made)
            return
        writer = csv.DictWriter(file, ['text', 'label'])
        writer.writeheader()
        writer.writerows(made)


def write_model(folder: pathlib.Path, width: int = 32, layers: int = 2) -> None:
    """A small random model of the Llama family, and a tokenizer of the words of `write_rows`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    shapes = {'embed_tokens.weight': (VOCABULARY + 1, width), 'norm.weight': (width,)}
    for i in range(layers):
        shapes |= {f'layers.{i}.self_attn.{x}_proj.weight': (width, width) for x in 'qkvo'}
        shapes |= {f'layers.{i}.mlp.{x}_proj.weight': (2 * width, width) for x in ('gate', 'up')}
        shapes |= {f'layers.{i}.mlp.down_proj.weight': (width, 2 * width)}
        shapes |= {f'layers.{i}.{x}.weight': (width,) for x in ('input_layernorm', 'post_attention_layernorm')}
    safetensors.numpy.save_file({
        f'model.{k}': (rng.normal(size=s) * width ** -.5 if len(s) > 1 else np.ones(s)).astype(np.float32)
        for k, s in shapes.items()}, folder / 'model.safetensors')
    (folder / 'config.json').write_text(json.dumps({
        'model_type': 'llama', 'architectures': ['LlamaForCausalLM'], 'vocab_size': VOCABULARY + 1,
        'hidden_size': width, 'intermediate_size': 2 * width, 'num_hidden_layers': layers, 'num_attention_heads': 2,
        'num_key_value_heads': 2, 'max_position_embeddings': 512, 'rms_norm_eps': 1e-6, 'tie_word_embeddings': True,
        'hidden_act': 'silu'}))
    names = {'?': 0} | {f'w{i}': i + 1 for i in range(VOCABULARY)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token='?'))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def label_rows(rows: int, words: int, kind: str, scratch: pathlib.Path) -> list[dict]:
    """`watch` of the labelling of so many rows, in a new process."""
    folder, path, out = scratch / 'model', scratch / f'{rows}.{kind}', scratch / f'{rows}.json'
    if not folder.exists():
        write_model(folder)
    write_rows(path, rows, words)
    shutil.rmtree(scratch / str(rows), ignore_errors=True)  # what is done already would not be done, or watched, again
    (scratch / 'plain.py').write_text('from w2s_jax.config import default_config as get_config  # noqa: F401\n')
    done = subprocess.run(
        [sys.executable, '-m', 'experiments.benchmark.streaming', f'--config={scratch / "plain.py"}',
         *(f'--config.{k}={v}' for k, v in changed(small_config(folder, path)).items()),
         '--until=label', f'--workdir={scratch / str(rows)}', f'--out={out}'],
        capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f'--rows={rows}: status {done.returncode}: {done.stderr.strip().splitlines()[-1]}')
    return json.loads(out.read_text())['rows']


def growth(found: dict[int, list[dict]]) -> list[list[str]]:
    """A line a number of rows: peaks of loading, tokens and labelling, and what a row adds to each."""
    numbers = sorted(found)
    def of(n, word, field='peak'):
        return next(r[field] for r in found[n] if word in r['phase'])
    columns = {'loading, peak': ('loading', 'peak'), 'after': ('loading', 'after'), 'tokens, peak': ('pool', 'peak'),
               'labelling, peak': ('labels', 'peak'), 'labelling, after': ('labels', 'after')}
    values = {name: [of(n, *where) for n in numbers] for name, where in columns.items()}
    out = [['rows', *(f'{c}, MB' for c in columns)],
           *([str(n), *(f'{v[i] / 1e6:.1f}' for v in values.values())] for i, n in enumerate(numbers))]
    if len(numbers) > 1:
        out.append(['bytes a row', *(f'{np.polyfit(numbers, v, 1)[0]:.0f}' for v in values.values())])
    return out


def of_config(config, workdir: pathlib.Path) -> dict:
    """What main does with --config."""
    config = plans.ready(config)
    configs.validate(config)
    rows = watch(config, workdir, UNTIL.value)
    print_table(table(rows))
    return {'config': configs.flat(config), 'rows': rows}


def of_rows(numbers: list[str], scratch: pathlib.Path) -> dict:
    """What main does with --rows."""
    if not all(n.isdecimal() and int(n) >= 1000 for n in numbers):
        raise ConfigError(f'--rows={",".join(numbers)}: expected numbers of 1000 or more')
    found = {int(n): label_rows(int(n), WORDS.value, FILE.value, scratch) for n in numbers}
    print_table(growth(found))
    return {'words': WORDS.value, 'file': FILE.value, 'rows': found}


def print_table(found: list[list[str]]) -> None:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    for row in found:
        print('  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main() -> None:
    """Watches what the flags say, prints a table and writes the numbers. Raises ConfigError."""
    if (ROWS.value is None) == (CONFIG.value is None):
        raise ConfigError('--rows and --config: expected one of them')
    with tempfile.TemporaryDirectory() as name:
        workdir = pathlib.Path(WORKDIR.value or name).expanduser().absolute()
        found = of_config(CONFIG.value, workdir) if CONFIG.value is not None else of_rows(ROWS.value or [], workdir)
    pathlib.Path(OUT.value).write_text(json.dumps(found, indent=1) + '\n')
    print(f'every number: {OUT.value}')


if __name__ == '__main__':
    cli.run(main)
