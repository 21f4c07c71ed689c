"""When does the confidence loss help? Its difference from cross-entropy over tasks, modes of fine-tuning, lengths of
training and weights alpha, by one command that goes on where it was stopped; then its part of docs/results.md is
written anew.

  python -m experiments.sign_map --workdir=runs/sign_map --models=FOLDER --data=FOLDER [--rows=sst2-probe] [--page]

models: a folder with SmolLM2-135M-Instruct and all-MiniLM-L6-v2 in Hugging Face's layout (rows of Gemma: also
gemma-3-270m).  data: one with sst2, sciq ... as parquet.
"""
import functools
import pathlib
from collections.abc import Callable

import pandas as pd

from configs import chess_choice, probe, quickstart, salient_concept
from experiments import published
from w2s_jax import cli, metrics
from w2s_jax.engine import grid, sweep
from w2s_jax.errors import ConfigError
from w2s_jax.report import tables
from w2s_jax.report.reading import Grid

CSV = published.DOCS.parent / 'sign_map.csv'
MARKS = '<!-- made by experiments/sign_map.py -->\n', '<!-- end of the sign map -->\n'
ALPHAS = (.25, .5, .75)
RULE = 'calibrated'


def probes(task: str, models: str, data: str, student: str = 'SmolLM2-135M-Instruct', layers: int = 18):
    """SmolLM2-135M-Instruct's first 6 layers teach a larger model, by probes of the mean token, ten seeds."""
    c = published.probes(task if task != 'amazon' else 'sst2', 'mean', models, data)
    if task == 'amazon':
        c = probe.get_config('files')
        c.task.update(path=f'{data}/amazon_multidomain', text='text', label='label', train_size=3200)  # all of them
        published.ladder(c, models, 'mean')
    c.task.max_length = 64 if task == 'amazon' else 128  # reviews are long: their beginnings
    c.student.model, c.student.layers = f'{models}/{student}', layers
    c.student.loss.name = 'confidence'
    return c


def tuned(mode: str, task: str, models: str, data: str):
    """A probe on SmolLM2-135M-Instruct's first 6 layers teaches all-MiniLM-L6-v2, which is fine-tuned; five seeds."""
    c = probes(task, models, data)
    c.seeds = tuple(range(5))
    c.task.train_size = 1200
    c.student.model, c.student.layers, c.student.mode = f'{models}/all-MiniLM-L6-v2', 0, mode
    return c


def chess(mode: str):
    """The quickstart, its student fine-tuned in `mode`."""
    c = quickstart.get_config()
    c.student.mode = mode
    return c


def choice(mode: str):
    """Two moves to choose from, a student in `mode`; five seeds."""
    c = chess_choice.get_config()
    c.student.mode, c.seeds = mode, tuple(range(5))
    return c


def salient():
    """The task with known answers: a student of features, ten seeds."""
    c = salient_concept.get_config()
    c.student.loss.name, c.seeds = 'confidence', tuple(range(10))
    return c


# Name -> (mode, epochs of a training each, folders -> config). In the order of the page.
PROBES = (3, 10, 60)
ROWS: dict[str, tuple[str, tuple[int, ...], Callable]] = {
    **{f'{task}-probe': ('probe', PROBES, lambda models, data, task=task: probes(task, models, data))
       for task in ('sst2', 'rotten_tomatoes', 'amazon', 'cola', 'sciq', 'arc_easy', 'ethics_justice')},
    'sst2-gemma': ('probe', PROBES, lambda models, data: probes('sst2', models, data, 'gemma-3-270m', 10)),
    'salient_concept': ('full', (4, 12, 25), lambda models, data: salient()),
    **{f'chess-{mode}': (mode, (1, 2, 4), lambda models, data, mode=mode: chess(mode)) for mode in ('full', 'lora')},
    **{f'chess_choice-{mode}': (mode, (1, 2, 4), lambda models, data, mode=mode: choice(mode))
       for mode in ('full', 'lora')},
    **{f'sst2-{mode}': (mode, (1, 3, 10), lambda models, data, mode=mode: tuned(mode, 'sst2', models, data))
       for mode in ('full', 'lora')},
}
TITLES = published.TITLES | {
    'amazon': 'Amazon books and dvd', 'arc_easy': 'ARC-Easy', 'ethics_justice': 'ETHICS justice',
    'salient_concept': 'salient concept', 'chess': 'chess', 'chess_choice': 'two chess moves'}


def cells(epochs: tuple[int, ...]) -> sweep.Sweep:
    """Every alpha with a rule that sees weak labels alone, and with each fixed length."""
    how = [{'student.stopping.name': RULE, 'student.epochs': epochs[-1]},
           *({'student.stopping.name': '', 'student.epochs': n} for n in epochs)]
    return sweep.product(how, sweep.values('student.loss.alpha', ALPHAS))


def run(names: list[str], workdir: pathlib.Path, given) -> None:
    """Runs rows by name, each a grid in a folder of its own."""
    for name in names:
        if name not in ROWS:
            raise ConfigError(f'--rows: unknown {name!r}, expected some of {", ".join(ROWS)}')
        _, epochs, config = ROWS[name]
        grid.run(config(given.models, given.data), cells(epochs), workdir / name)


def differences(name: str, one: Grid) -> pd.DataFrame:
    """A row for each length and alpha: accuracies of plain training per cent, and the paired difference, in points."""
    table, fields = tables.students(one), ['student.stopping.name', 'student.epochs']
    naive = table[table['loss'] == 'xent'].drop_duplicates(fields).set_index(fields)
    rows = []
    for c in one.comparisons:
        rule, epochs = (c['settings'][k] for k in fields)
        plain = naive.loc[(rule, epochs)]
        rows.append({'row': name, 'mode': ROWS[name][0], 'seeds': plain['seeds'], 'length': rule or str(epochs),
                     'alpha': c['settings']['student.loss.alpha'],
                     **{k: 100 * plain[k] for k in ('majority', 'weak', 'accuracy', 'ceiling')},
                     'pgr': published.pgr(plain), **{k: 100 * c[k] for k in ('mean', 'low', 'high')}, 'p': c['p']})
    return pd.DataFrame(rows)


def whole(workdir: pathlib.Path) -> pd.DataFrame:
    """The map of all rows that are in a work directory, and what docs/sign_map.csv says of others; `holm`: p values
    adjusted for all of its comparisons."""
    told = pd.read_csv(CSV, dtype={'length': str}) if CSV.exists() else pd.DataFrame({'row': []})
    parts = []
    for name in ROWS:
        there = (workdir / name / 'grid.json').exists()
        parts.append(differences(name, tables.load(workdir / name)) if there else told[told['row'] == name])
    found = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return found.assign(holm=metrics.holm(found['p'].tolist()))


def page(found: pd.DataFrame) -> str:
    """The map as Markdown: a line for each task, mode and length; differences that hold are bold."""
    lines = []
    for (row, length), part in found.groupby(['row', 'length'], sort=False):
        first, cells = part.iloc[0], part.set_index('alpha')
        task, _, what = row.partition('-')
        student = {'gemma': 'Gemma, probe', '': first['mode']}.get(what, what)
        lines.append([TITLES[task], student, f'{first["weak"]:.1f}, {first["ceiling"]:.1f}',
                      f'`{length}`' if length == RULE else length, first['pgr'],
                      *(difference(cells.loc[alpha]) for alpha in ALPHAS)])
    holds = found[found['holm'] < .05]
    counts = [f'{(mine["mean"] > 0).sum()} above and {(mine["mean"] < 0).sum()} below at alpha {alpha:g}'
              for alpha, mine in ((a, holds[holds['alpha'] == a]) for a in ALPHAS)]
    said = (f'Of {len(found)} differences from cross-entropy {len(holds)} hold after Holm\'s correction over all of '
            f'them (bold): {", ".join(counts)}.\n\n')
    head = ['task', 'student', 'weak, ceiling', 'epochs', 'PGR naive', *(f'alpha {a:g}' for a in ALPHAS)]
    return said + published.markdown(head, lines)


def difference(cell: pd.Series) -> str:
    """'**+1.2** [0.4, 2.0]'."""
    mean = f'{cell["mean"]:+.1f}'
    return f'{f"**{mean}**" if cell["holm"] < .05 else mean} [{cell["low"]:.1f}, {cell["high"]:.1f}]'


def write(workdir: pathlib.Path) -> str:
    """docs/results.md between the map's two marks, and docs/sign_map.csv. Returns the map."""
    found = whole(workdir)
    return published.put(found, page(found), CSV, MARKS)


if __name__ == '__main__':
    published.define_flags()
    cli.run(functools.partial(published.command, ROWS, run, write))
