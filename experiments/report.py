"""Makes W/report.html, W/plots and the tables (results.csv, runs.csv, results.tex) again, from artifacts alone, and
prints what was found. W is the work directory of an experiment or of a grid.

  python -m experiments.report --workdir=W
"""
import pathlib

from absl import flags

from w2s_jax import cli
from w2s_jax.errors import ConfigError
from w2s_jax.report import grid_page, tables
from w2s_jax.report import page as report

WORKDIR = flags.DEFINE_string('workdir', None, 'folder of a finished experiment or grid')


def main() -> None:
    """Reports on the work directory that the flag names."""
    if WORKDIR.value is None:
        raise ConfigError('--workdir: missing, expected for example --workdir=runs/quickstart')
    workdir = pathlib.Path(WORKDIR.value)
    if (workdir / 'grid.json').exists():
        page = grid_page.write(workdir)
        print(grid_page.terminal_table(tables.load(workdir)))
    else:
        page = report.write(workdir)
        print(report.terminal_table(report.load(workdir)[0]))
    tables.write(workdir)
    print(f'report: {page}')


if __name__ == '__main__':
    cli.run(main)
