"""The tables of judges and agents by rung, from verdicts that are given."""
import numpy as np
import pandas as pd
import pytest

from experiments import chess_oversight as oversight

RUNGS = ['chess-s-1', 'chess-xs']


def found():
    """Every agent is right where debate is; the judge alone on fewer questions, the first rung on fewest."""
    rng, out = np.random.default_rng(0), {}
    right = (rng.random((3, 200)) < .9).astype(float)
    for i, judge in enumerate(RUNGS):
        alone = right * (rng.random(right.shape) < .7 + .1 * i)
        out[judge, None] = {'answers_only': alone, 'direct': alone}
        for agent in RUNGS:
            out[judge, agent] = dict.fromkeys(oversight.TOLD, right)
    return out


def test_a_table_has_gains_audits_and_what_is_recovered():
    table = oversight.table(found(), RUNGS)
    assert len(table) == 4 * len(oversight.TOLD) and isinstance(table, pd.DataFrame)
    one = table[(table['judge'] == RUNGS[0]) & (table['agents'] == RUNGS[1]) & (table['protocol'] == 'debate')].iloc[0]
    assert one['audit'] > 0 and one['low direct'] > 0
    gain = one['accuracy'] - one['direct']
    assert one['mean direct'] == pytest.approx(gain) and one['recovered'] == pytest.approx(gain / (1 - one['direct']))
    text = oversight.square(table, 'debate', RUNGS)
    assert text.count('\n') == 6 and f'{100 * one["accuracy"]:.1f} ({100 * one["mean answers_only"]:+.1f}' in text


def test_the_audit_counts_cells_of_two_rungs():
    # Debate gains in both cells; the agents know better in one of them.
    assert 'in 1 of 2 cells' in oversight.audited(oversight.table(found(), RUNGS))


def test_files_are_made_once(tmp_path):
    calls = []
    make = lambda: calls.append(1) or {'x': np.arange(3)}
    for _ in range(2):
        np.testing.assert_array_equal(oversight.once(tmp_path / 'a.npz', make)['x'], np.arange(3))
    assert len(calls) == 1 and [p.name for p in tmp_path.iterdir()] == ['a.npz']
