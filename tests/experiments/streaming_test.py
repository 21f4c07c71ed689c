"""What `experiments.benchmark.streaming` sees: idle devices, memory, and the phases of an experiment."""
import json
import sys
import time

import entry_points
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from w2s_jax import cli
from w2s_jax.engine import plan as plans
from w2s_jax.train import program


@pytest.fixture
def streaming():
    yield from entry_points.loaded('benchmark.streaming')


def some_work(x):
    return jax.lax.fori_loop(0, 20, lambda i, y: jnp.tanh(y @ y), x)


def test_a_host_that_dawdles_between_programs_is_seen(streaming):
    found, x = {}, jnp.ones((256, 256))
    for pause in (0, .03):
        with streaming.Device().watched() as device:
            compiled, pending = program.Program(some_work), []
            for _ in range(12):
                time.sleep(pause if not pending else max(pause, 0))
                pending.append(compiled(x))
                if pause:  # as a loop does that reads each result before it makes the next batch
                    pending[-1].block_until_ready()
            jax.block_until_ready(pending)
        found[pause] = device.taken()
    assert found[0]['calls'] == found[.03]['calls'] == 12
    assert found[.03]['idle'] > 9 * .03  # the first call is compiled for and counts as nothing
    assert found[.03]['longest_gap'] > .03 and found[0]['idle'] < found[.03]['idle'] / 3
    assert program.Program.__call__.__name__ == '__call__'


def test_memory_that_was_held_for_a_moment_is_seen(streaming):
    with streaming.Memory().watched() as memory:
        before = memory.taken()['after']
        held = np.ones(40 * 2**20 // 8)
        time.sleep(5 * streaming.PERIOD)
        del held
        found = memory.taken()
    assert found['peak'] - before > 35 * 2**20


@pytest.mark.long
@pytest.mark.parametrize('kind', ['csv', 'jsonl', 'parquet'])
def test_the_labelling_of_rows_is_watched_phase_by_phase(streaming, tmp_path, kind):
    streaming.write_model(tmp_path / 'model')
    streaming.write_rows(tmp_path / f'rows.{kind}', 1500, 5)
    config = streaming.small_config(tmp_path / 'model', tmp_path / f'rows.{kind}')
    if kind != 'csv':  # the rest of the way is the same
        assert len(plans.prepare(config, lambda line: None).dataset.pool) == 1300
        return
    rows = streaming.watch(config, tmp_path / 'w', 'label')
    assert [r['phase'].split(':')[0] for r in rows] == [
        'loading', 'tokens of the pool', 'tokens of the test set', 'model teacher', 'model labels']
    assert all(0 < r['after'] <= r['peak'] for r in rows) and rows[-1]['calls'] == -(-1274 // 256)
    [labels] = (tmp_path / 'w' / 'store').glob('predict-*')
    assert json.loads((labels / 'metrics.json').read_text())['examples'] == 1274
    table = streaming.growth({1500: rows, 3000: [r | {'peak': r['peak'] + 150_000} for r in rows]})
    assert table[-1][:2] == ['bytes a row', '100'] and len(table) == 4


def test_flags_that_contradict_each_other_are_refused(streaming, monkeypatch, capsys):
    def leave(status):
        raise SystemExit(status)
    monkeypatch.setattr(cli.os, '_exit', leave)
    monkeypatch.setattr(cli.process, 'keep_freed_memory', lambda: None)
    for args, message in (([], 'error: --rows and --config: expected one of them'),
                          (['--rows=1000,x'], 'error: --rows=1000,x: expected numbers of 1000 or more')):
        monkeypatch.setattr(sys, 'argv', ['streaming', *args])
        flags.FLAGS.unparse_flags()
        with pytest.raises(SystemExit) as e:
            cli.run(streaming.main)
        assert e.value.code == 2 and capsys.readouterr().err.strip() == message
