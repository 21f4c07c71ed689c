"""Every row of docs/results.md again, by one command that goes on where it was stopped; then the page is written anew.

  python -m experiments.published --workdir=runs/published --models=FOLDER --data=FOLDER [--rows=sst2,sciq] [--page]

models: a folder with SmolLM2-135M-Instruct in Hugging Face's layout.  data: one with sst2, sciq ... as parquet.
"""
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable

import pandas as pd
from absl import flags

from configs import probe
from w2s_jax import cli
from w2s_jax.engine import grid, sweep
from w2s_jax.errors import ConfigError
from w2s_jax.report import comparisons, page, tables

DOCS = pathlib.Path(__file__).parents[1] / 'docs' / 'results.md'
LENGTHS = (1, 2, 3, 5, 10, 20, 60)  # epochs, each a training of its own
RULES, MOST = ('calibrated', 'likelihood', 'agreement'), 60
TITLES = {'sst2': 'SST-2', 'rotten_tomatoes': 'Rotten Tomatoes', 'sciq': 'SciQ', 'cola': 'CoLA'}


def probes(task: str, place: str, models: str, data: str):
    """SmolLM2-135M-Instruct's first 6 layers teach its first 18, by probes that read the `place` token, ten seeds."""
    c = probe.get_config(task)
    c.task.path = f'{data}/{task}'
    c.seeds = tuple(range(10))
    ladder(c, models, place)
    return c


def ladder(c, models: str, place: str) -> None:
    """Sets teacher and student: 6 and 18 layers of one model, read at the `place` token."""
    for role, layers in ((c.teacher, 6), (c.student, 18)):
        role.model, role.layers, role.read_out = f'{models}/SmolLM2-135M-Instruct', layers, place


def lengths() -> sweep.Sweep:
    """Rules that choose the length of training, and fixed lengths."""
    return [*({'student.stopping.name': rule, 'student.epochs': MOST} for rule in RULES),
            *({'student.stopping.name': '', 'student.epochs': epochs} for epochs in LENGTHS)]


# Name -> (folder of models, folder of data) -> config. In the order of the page.
ROWS: dict[str, Callable] = {f'{task}-{place}': lambda models, data, task=task, place=place: probes(
    task, place, models, data) for task, place in (
        ('sst2', 'last'), ('sst2', 'mean'), ('rotten_tomatoes', 'last'), ('rotten_tomatoes', 'mean'), ('cola', 'mean'),
        ('sciq', 'mean'))}


def run(names: list[str], workdir: pathlib.Path, models: str, data: str) -> None:
    """Runs rows by name, each a grid in a folder of its own."""
    for name in names:
        if name not in ROWS:
            raise ConfigError(f'--rows: unknown {name!r}, expected some of {", ".join(ROWS)}')
        grid.run(ROWS[name](models, data), lengths(), workdir / name)


def write(workdir: pathlib.Path) -> None:
    """docs/results.md between its two marks, and docs/results/ROW.csv, from the rows that are in a work directory; what
    the page says of other rows stays."""
    text, begin, end = DOCS.read_text(), '<!-- made by experiments/published.py -->\n', '<!-- end -->\n'
    before, _, rest = text.partition(begin)
    made, _, after = rest.partition(end)
    lines, sections = said(made)
    for name in ROWS:
        if (workdir / name / 'grid.json').exists():
            found = tables.load(workdir / name)
            lines[title(name)], sections[title(name)] = main_row(name, found), by_length(found)
            shutil.copy(workdir / name / 'results.csv', DOCS.parent / 'results' / f'{name}.csv')
    names = [title(name) for name in ROWS if title(name) in lines]
    parts = [f'\n**{name}**\n\n{sections[name]}' for name in names]
    DOCS.write_text(before + begin + markdown(HEAD, [lines[n] for n in names]) + ''.join(parts) + end + after)


def put(found: pd.DataFrame, made: str, csv: pathlib.Path, marks: tuple[str, str]) -> str:
    """Writes a table as csv, and its Markdown between two marks of docs/results.md. Returns the Markdown."""
    found.round(4).to_csv(csv, index=False)
    text, (begin, end) = DOCS.read_text(), marks
    DOCS.write_text(f'{text.partition(begin)[0]}{begin}{made}{end}{text.partition(end)[2]}')
    return made


def command(names: Iterable[str], run: Callable, write: Callable) -> None:
    """What a command that writes such a table does: run(names, workdir, flags) what is missing, then write(workdir)."""
    given = flags.FLAGS
    workdir = folder(given)
    if not given.page:
        run(given.rows or list(names), workdir, given)
    print(write(workdir))


def title(name: str) -> str:
    """`SST-2, last token` of `sst2-last`."""
    task, _, place = name.partition('-')
    return f'{TITLES[task]}, {place} token'


def said(made: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What the page has: cells of the main table and sections, by title."""
    main, *parts = re.split(r'\n*\*\*(.+)\*\*\n+', made)
    rows = [line.strip('| ').split(' | ') for line in main.strip().splitlines()[2:]]
    sections = {name: text.strip() + '\n' for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return {f'{r[0]}, {r[1]} token': r for r in rows}, sections


HEAD = ['task', 'token read', 'majority', 'weak', 'naive', 'confidence', 'ceiling', 'PGR naive', 'PGR confidence',
        'confidence − naive, points']


def main_row(name: str, one) -> list[str]:
    """The cells of a row with the length of training chosen by a rule."""
    rows = tables.students(one)
    mine = rows[rows['student.stopping.name'] == 'calibrated'].set_index('loss')
    naive, confident = mine.loc['xent'], mine.loc['confidence']
    task, _, place = name.partition('-')
    return [TITLES[task], place, f'{100 * naive["majority"]:.1f}', accuracy(naive, 'weak'),
            accuracy(naive, 'accuracy'), accuracy(confident, 'accuracy'), accuracy(naive, 'ceiling'),
            pgr(naive), pgr(confident), difference(one)]


def by_length(one) -> str:
    """PGR after so many epochs, each a training of its own, and as rules stop it: Markdown."""
    lines = []
    fields = ['student.stopping.name', 'student.epochs']
    for (rule, epochs), part in tables.students(one).groupby(fields, sort=False):
        naive, confident = (part[part['loss'] == loss].iloc[0] for loss in ('xent', 'confidence'))
        how = f'rule `{rule}`' if rule else str(epochs)
        lines.append([how, accuracy(naive, 'ceiling'), pgr(naive), pgr(confident)])
    return markdown(['epochs', 'ceiling', 'PGR naive', 'PGR confidence'], lines)


def accuracy(row: pd.Series, name: str) -> str:
    """'61.2 [58.9, 63.4]' per cent."""
    return tables.accuracy_text({k: row[f'{name}_{k}'] for k in ('low', 'high')} | {'mean': row[name]})


def pgr(row: pd.Series) -> str:
    """'0.54 [0.40, 0.67]', or that it is undefined."""
    part = {'mean': row['pgr'], 'low': row['pgr_low'], 'high': row['pgr_high'], 'defined': row['pgr_defined']}
    return tables.pgr_text(part).replace(tables.UNDEFINED, 'undefined')


def difference(one) -> str:
    """The paired difference of the losses under the rule, with its p value and what could have been found."""
    for c in comparisons.adjusted(one):
        if c['settings'].get('student.stopping.name') == 'calibrated':
            return f'{tables.interval_text(c, 100, "+.1f")}, p {c["p"]:.2g} (detectable: {100 * c["detectable"]:.1f})'
    return ''


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A table of Markdown."""
    rows = [head, ['---'] * len(head), *lines]
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def define_flags() -> None:
    """Those of the command."""
    flags.DEFINE_string('workdir', None, 'where the grids go, a folder a row')
    flags.DEFINE_string('models', None, 'folder of models')
    flags.DEFINE_string('data', None, 'folder of datasets')
    flags.DEFINE_list('rows', [], 'names of rows; none: all')
    flags.DEFINE_bool('page', False, 'write docs/results.md from what is there, and run nothing')


def folder(given) -> pathlib.Path:
    """The work directory. Raises ConfigError for a folder that is needed and not named."""
    for name in ('workdir', *([] if given.page else ['models', 'data'])):
        if given[name].value is None:
            raise ConfigError(f'--{name}: missing, expected a folder')
    return pathlib.Path(given.workdir).expanduser().absolute()


def main() -> None:
    """Runs what is missing and writes the page."""
    given = flags.FLAGS
    workdir = folder(given)
    if not given.page:
        run(given.rows or list(ROWS), workdir, given.models, given.data)
    write(workdir)
    for name in ROWS:
        if (workdir / name / 'grid.json').exists():
            print(name, page.terminal_table(tables.load(workdir / name)), sep='\n')


if __name__ == '__main__':
    define_flags()
    cli.run(main)
