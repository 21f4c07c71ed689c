"""Theorems against simulations: what each predicts, what thousands of small students measure, and the controls in which
it must fail; a table, and theory.csv and theory.json in the work directory.

  python -m experiments.theory [--only=misfit,dimension] [--seeds=N] [--set=misfit.rows=2000] [--workdir=runs/theory]

Exit status 1 if a check does not hold or a control does.
"""
import ast
import json
import pathlib
import sys
import time

import pandas as pd
from absl import flags

from experiments import published
from w2s_jax import cli
from w2s_jax.errors import ConfigError
from w2s_jax.registry import Entry, Settings, known
from w2s_jax.theory import TESTBEDS

COLUMNS = ['testbed', 'cell', 'predicted', 'measured', 'error', 'limit', 'holds', 'how', 'control', 'students', 'seeds']


def main() -> None:
    """Runs the testbeds that are named, writes and prints what they found."""
    given, start = flags.FLAGS, time.monotonic()
    names, changed = [known('--only', name, TESTBEDS) for name in given.only] or list(TESTBEDS), settings(given.set)
    parts = [run(TESTBEDS[name], given.seeds, changed.get(name, {})) for name in names]
    found = pd.concat(parts, ignore_index=True)
    seconds = time.monotonic() - start
    if given.workdir:
        write(found, seconds, pathlib.Path(given.workdir).expanduser())
    count, failed = found['students'].sum(), found[found['holds'] == 'no']
    print(published.markdown(COLUMNS[:8], [said(row) for _, row in found.iterrows()]))
    print(f'{count} students in {seconds:.1f} s, compiling included: {count / seconds:.0f} a second; '
          f'{len(found)} rows, {len(failed)} not as they must be')
    if len(failed):
        sys.exit(1)


def settings(texts: list[str]) -> dict[str, dict]:
    """Testbed -> what is set, of TESTBED.SETTING=VALUE. Raises ConfigError."""
    found: dict[str, dict] = {}
    for text in texts:
        field, given, value = text.partition('=')
        testbed, _, name = field.partition('.')
        if not given or not name:
            raise ConfigError(f'--set: {text!r}, expected TESTBED.SETTING=VALUE')
        setting = TESTBEDS.get_entry(testbed, '--set').settings
        known(f'--set: {testbed}', name, setting)
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise ConfigError(f'--set: {field}: {value!r}, expected a number, as {setting[name].default}') from None
        setting[name].check(f'--set: {field}', value)
        found.setdefault(testbed, {})[name] = value
    return found


def run(testbed: Entry, seeds: int | None, changed: dict) -> pd.DataFrame:
    """A row for each of a testbed's; `holds`: yes, no, or nothing where no limit is set."""
    values = Settings({k: s.default for k, s in testbed.settings.items()} | changed)
    seeds = seeds or testbed.options['seeds']
    rows = [row._asdict() | {'testbed': testbed.name, 'seeds': seeds,
                             'holds': {True: 'yes', False: 'no', None: ''}[row.holds]}
            for row in testbed.fn(seeds, values)]
    return pd.DataFrame(rows, columns=COLUMNS)


def said(row: pd.Series) -> list[str]:
    """The cells of a printed line; of a control the limit is what the error has to exceed."""
    limit = '' if pd.isna(row['limit']) else f'{"> " if row["control"] else ""}{row["limit"]:g}'
    cell = f'{"control: " * row["control"]}{row["cell"]}'.replace('|', '\\|')
    return [row['testbed'], cell, *(f'{row[k]:.4g}' for k in ('predicted', 'measured', 'error')), limit, row['holds'],
            row['how'].replace('|', '\\|')]


def write(found: pd.DataFrame, seconds: float, workdir: pathlib.Path) -> None:
    """theory.csv, and theory.json with how long it took."""
    workdir.mkdir(parents=True, exist_ok=True)
    found.to_csv(workdir / 'theory.csv', index=False)
    rows = json.loads(found.to_json(orient='records'))
    (workdir / 'theory.json').write_text(json.dumps({'seconds': seconds, 'rows': rows}, indent=1) + '\n')


def define_flags() -> None:
    """Those of the command."""
    flags.DEFINE_list('only', [], f'names of testbeds, of {", ".join(TESTBEDS)}; none: all')
    flags.DEFINE_integer('seeds', None, 'independent draws of each cell; none: those that thresholds are made for', 1)
    flags.DEFINE_list('set', [], 'settings of testbeds, TESTBED.SETTING=VALUE')
    flags.DEFINE_string('workdir', None, 'where theory.csv and theory.json go')


if __name__ == '__main__':
    define_flags()
    cli.run(main)
