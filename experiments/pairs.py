"""Preference pairs out of labelled texts, for reward models where nobody has asked for preferences.

  python -m experiments.pairs --data=FILE_OR_FOLDER --out=pairs.jsonl [--text=text] [--label=label] [--seed=0]

Each text of class 1 is preferred to one of class 0 that is drawn for it; no text is in two pairs. The pairs are a file
of the task `preference` (`configs/reward.py:preference`); made of another source they are a set that shifted
(`--config.task.shifted="('NAME=pairs.jsonl',)"`).
"""
import json
import pathlib

import numpy as np
from absl import flags

from w2s_jax import cli, paths
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks.text import tables


def pairs(rows: list[dict], text: str, label: str, seed: int) -> list[dict]:
    """`{chosen, rejected}` of rows with two classes, as many as the smaller class has rows, in an order drawn by seed.
    Raises DataError for classes that are not two."""
    rows = [row for row in rows if row[text] and row[label] is not None]
    classes = sorted({str(row[label]) for row in rows})
    if len(classes) != 2:
        raise DataError(f'column {label!r}: {len(classes)} classes, expected 2: {", ".join(classes[:5])}')
    texts = [[row[text] for row in rows if str(row[label]) == one] for one in classes]
    rng = np.random.default_rng(seed)
    low, high = ([part[i] for i in rng.permutation(len(part))] for part in texts)
    return [{'chosen': good, 'rejected': poor} for good, poor in zip(high, low, strict=False)]


def main() -> None:
    """Reads, pairs, writes."""
    given = flags.FLAGS
    if pathlib.Path(given.out).suffix != '.jsonl':
        raise ConfigError(f'--out: {given.out!r}, expected a file NAME.jsonl')
    found, _ = tables.files_of(given.data, '--data', 'train', ())
    parts = [tables.read(file) for file in found]
    for table in parts:
        tables.check_columns(table, {given.text: '--text', given.label: '--label'})
    made = pairs([row for table in parts for row in table.rows], given.text, given.label, given.seed)
    out = paths.folder(pathlib.Path(given.out).parent, '--out') / pathlib.Path(given.out).name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(''.join(json.dumps(pair, ensure_ascii=False) + '\n' for pair in made))
    print(f'{out}: {len(made)} pairs')


if __name__ == '__main__':
    for name, default in (('data', ''), ('out', ''), ('text', 'text'), ('label', 'label')):
        flags.DEFINE_string(name, default, 'see above')
    flags.DEFINE_integer('seed', 0, 'of the order')
    cli.run(main)
