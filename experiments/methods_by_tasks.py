"""Losses and transforms of labels on several tasks, each with its defaults, against plain cross-entropy; by one command
that goes on where it was stopped; then its part of docs/results.md is written anew.

  python -m experiments.methods_by_tasks --workdir=runs/methods --models=FOLDER --data=FOLDER [--rows=sst2] [--page]

The tasks, models and probes are those of experiments/sign_map.py; `--store=runs/sign_map` takes features from there.
"""
import functools
import pathlib

import pandas as pd
from absl import flags

from experiments import published, sign_map
from w2s_jax import cli, metrics
from w2s_jax.engine import grid, sweep
from w2s_jax.errors import ConfigError
from w2s_jax.report import tables
from w2s_jax.report.reading import Grid

TASKS = {name.partition('-')[0]: name for name, (mode, _, _) in sign_map.ROWS.items() if name.endswith('-probe')}
CSV = published.DOCS.parent / 'methods_by_tasks.csv'
MARKS = '<!-- made by experiments/methods_by_tasks.py -->\n', '<!-- end of the methods -->\n'
LOSSES = ('confidence', 'window', 'entropy', 'adaptive_confidence', 'smoothing', 'generalized_xent', 'reverse_xent')
TRANSFORMS = ('harden', 'confident', 'knn', 'probe', 'small_loss', 'noisy_channel', 'elicited')


def cells() -> sweep.Sweep:
    """Every loss on the labels as they are, and cross-entropy on each transform of them."""
    return [*sweep.values('student.loss.name', LOSSES), *({'labels.transforms': (name,)} for name in TRANSFORMS)]


def run(names: list[str], workdir: pathlib.Path, given) -> None:
    """Runs tasks by name, each a grid in a folder of its own."""
    for name in names:
        if name not in TASKS:
            raise ConfigError(f'--rows: unknown {name!r}, expected some of {", ".join(TASKS)}')
        row = TASKS[name]
        c = sign_map.ROWS[row][2](given.models, given.data)
        c.student.loss.name = 'xent'
        store = str(pathlib.Path(given.store).expanduser() / row / 'store') if given.store else None
        grid.run(c, cells(), workdir / name, store=store)


def differences(name: str, one: Grid) -> list[dict]:
    """A row for each method: its accuracy and PGR, and its paired difference from plain cross-entropy in points."""
    table, out = tables.students(one), []
    plain = table[(table['loss'] == 'xent') & (table['labels.transforms'] == 'none')].iloc[0]
    for c in one.comparisons:
        transforms = c['settings'].get('labels.transforms', ())
        out.append({'task': name, 'method': ', '.join(transforms) or c['loss'],
                    **{k: 100 * plain[k] for k in ('weak', 'accuracy', 'ceiling')}, 'pgr': published.pgr(plain),
                    **{k: 100 * c[k] for k in ('mean', 'low', 'high')}, 'p': c['p']})
    return out


def whole(workdir: pathlib.Path) -> pd.DataFrame:
    """All tasks that are there; `holm`: p values adjusted for all of their comparisons."""
    rows = [row for name in TASKS if (workdir / name / 'grid.json').exists()
            for row in differences(name, tables.load(workdir / name))]
    found = pd.DataFrame(rows)
    return found.assign(holm=metrics.holm(found['p'].tolist()))


def page(found: pd.DataFrame) -> str:
    """Methods by tasks as Markdown, in points above plain cross-entropy; what holds is bold."""
    names = list(dict.fromkeys(found['task']))
    first = {name: found[found['task'] == name].iloc[0] for name in names}
    lines = [['weak, ceiling', *(f'{first[n]["weak"]:.1f}, {first[n]["ceiling"]:.1f}' for n in names)],
             ['`xent`', *(f'{first[n]["accuracy"]:.1f}, PGR {first[n]["pgr"]}' for n in names)]]
    for method, part in found.groupby('method', sort=False):
        by = part.set_index('task')
        lines.append([f'`{method}`', *(sign_map.difference(by.loc[n]) if n in by.index else '' for n in names)])
    return published.markdown(['', *(sign_map.TITLES[n] for n in names)], lines)


def write(workdir: pathlib.Path) -> str:
    """docs/results.md between its two marks, and docs/methods_by_tasks.csv. Returns the table."""
    found = whole(workdir)
    return published.put(found, page(found), CSV, MARKS)


if __name__ == '__main__':
    published.define_flags()
    flags.DEFINE_string('store', '', 'a work directory of experiments/sign_map.py')
    cli.run(functools.partial(published.command, TASKS, run, write))
