"""Makes W/report.html and W/plots again, from artifacts alone, and prints the table.

COMMAND: python -m experiments.report --workdir=W
"""

import sys

from absl import app, flags

from w2s_jax import report
from w2s_jax.errors import UserError

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a finished experiment.', required=True)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument: {argv[1]}')
    try:
        page = report.write(_WORKDIR.value)
        print(report.terminal_table(report.load(_WORKDIR.value)[0]))
        print(f'report: {page}')
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    app.run(main)
