"""Preference pairs out of labelled texts, by the command."""
import json
import subprocess
import sys

import pytest

from experiments.pairs import pairs
from w2s_jax.errors import DataError

ROWS = [{'text': f'{"good" if i % 3 else "poor"} {i}', 'label': int(i % 3 > 0)} for i in range(30)]


def test_every_text_of_the_smaller_class_is_in_one_pair():
    made = pairs([*ROWS, {'text': None, 'label': 1}], 'text', 'label', 0)
    assert len(made) == 10 and all('good' in p['chosen'] and 'poor' in p['rejected'] for p in made)
    assert len({p['chosen'] for p in made} | {p['rejected'] for p in made}) == 20
    assert made != pairs(ROWS, 'text', 'label', 1)
    with pytest.raises(DataError, match="column 'label': 1 classes, expected 2"):
        pairs(ROWS[1:3], 'text', 'label', 0)


@pytest.mark.long
def test_the_command(tmp_path):
    (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, ROWS)))

    def command(*args):
        return subprocess.run([sys.executable, '-m', 'experiments.pairs', *args], capture_output=True, text=True)
    done = command(f'--data={tmp_path}/rows.jsonl', f'--out={tmp_path}/new/pairs.jsonl')
    assert done.stdout.endswith('pairs.jsonl: 10 pairs\n'), done.stderr
    assert len((tmp_path / 'new' / 'pairs.jsonl').read_text().splitlines()) == 10
    for args, said in ((['--out=pairs.txt'], "error: --out: 'pairs.txt', expected a file NAME.jsonl"),
                       (['--out=a.jsonl', f'--data={tmp_path}/none'], 'no such file or folder'),
                       (['--out=a.jsonl', f'--data={tmp_path}/rows.jsonl', '--label=x'], "no column 'x'")):
        done = command(*args)
        assert (done.returncode, done.stderr.count('\n')) == (2, 1) and said in done.stderr
