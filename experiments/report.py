"""Makes W/report.html, W/plots and the tables (results.csv, runs.csv, results.tex) again, from artifacts alone, and
prints what was found. W is the work directory of an experiment or of a grid.

  python -m experiments.report --workdir=W
"""
from absl import flags

from w2s_jax import cli, paths
from w2s_jax.errors import ConfigError
from w2s_jax.report import page, shape, tables

WORKDIR = flags.DEFINE_string('workdir', None, 'folder of a finished experiment or grid')


def main() -> None:
    """Reports on the work directory that the flag names."""
    if WORKDIR.value is None:
        raise ConfigError('--workdir: missing, expected for example --workdir=runs/quickstart')
    workdir = paths.folder(WORKDIR.value, '--workdir')
    with shape.doubting(workdir):
        path = page.write(workdir)
        said = page.terminal_table(tables.load(workdir))
    print(said)
    print(f'report: {path}')


if __name__ == '__main__':
    cli.run(main)
