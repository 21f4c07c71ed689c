"""Makes W/report.html and W/plots again, from artifacts alone, and prints the table.

  python -m experiments.report --workdir=W
"""
from absl import flags

from w2s_jax import command, report
from w2s_jax.errors import ConfigError

WORKDIR = flags.DEFINE_string('workdir', None, 'folder of a finished experiment')


def main() -> None:
    """Reports on the work directory that the flag names."""
    if WORKDIR.value is None:
        raise ConfigError('--workdir: missing, expected for example --workdir=runs/quickstart')
    page = report.write(WORKDIR.value)
    results, _ = report.load(WORKDIR.value)
    print(report.terminal_table(results))
    print(f'report: {page}')


if __name__ == '__main__':
    command.run(main)
