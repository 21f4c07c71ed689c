"""What `experiments.benchmark` counts and says, and its errors. Needs neither PyTorch nor downloaded models."""
import importlib
import io
import json
import sys
import time
from types import SimpleNamespace

import entry_points
import jax
import numpy as np
import pytest
import tiny

from configs import own_data
from experiments.benchmark import input, probe, scaling, tables, train, worker
from w2s_jax import cli as command
from w2s_jax.errors import ConfigError
from w2s_jax.train.runs import Runs


@pytest.fixture
def benchmark():
    yield from entry_points.loaded('benchmark.__main__')


@pytest.fixture
def cli(benchmark, monkeypatch, capsys):
    """The command in this process: (arguments) -> (exit status, stdout, stderr)."""
    def leave(status):
        raise SystemExit(status)
    monkeypatch.setattr(command.os, '_exit', leave)
    monkeypatch.setattr(command.process, 'keep_freed_memory', lambda: None)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['benchmark', *map(str, args)])
        try:
            command.run(benchmark.main)
            code: str | int | None = 0
        except SystemExit as e:
            code = e.code
        return code, *capsys.readouterr()
    return run


@pytest.fixture
def folder(tmp_path):
    return tiny.folder(tmp_path / 'model')


@pytest.fixture
def known(tmp_path):
    """What a machine can do, as a file."""
    peaks = {p: {'flops': x, 'size': 8, 'by_size': {}} for p, x in (('float32', 1e12), ('bfloat16', 2e12))}
    path = tmp_path / 'machine.json'
    path.write_text(json.dumps({'machine': {'platform': 'cpu', 'device_kind': 'cpu', 'devices': 1, 'peaks': peaks,
                                            'bandwidth': 1e10, 'datasheet': None}}))
    return path


def cells(path) -> list[dict[str, str]]:
    """The lines of a Markdown table by the names of its columns."""
    lines = [line for line in path.read_text().splitlines() if line.startswith('|')]
    head, rule, *rows = ([c.strip() for c in line.strip('|').split('|')] for line in lines)
    assert rule == ['---', *['---:'] * (len(head) - 1)] and all(len(r) == len(head) for r in rows)
    return [dict(zip(head, r, strict=True)) for r in rows]


@pytest.mark.long
def test_training_is_measured_against_the_machine(cli, known, tmp_path):
    out, shown = tmp_path / 'o.json', tmp_path / 't.md'
    code, printed, errors = cli('--what=train', '--model=random:1x64', '--side=jax', '--batch=4', '--length=8',
                                '--rounds=1', '--steps=2', f'--machine={known}', f'--out={out}', f'--markdown={shown}')
    assert code == 0, errors
    found, (row,) = json.loads(out.read_text()), cells(shown)
    block = found['rounds'][0]['jax']
    rate = block['steps'] / block['seconds'] * found['flops']
    assert float(row['GFLOP/s']) == pytest.approx(rate / 1e9, rel=0.01)
    peak, = found['peaks']
    assert float(row['of matmul peak'].rstrip('%')) == pytest.approx(100 * rate / peak, abs=0.06, rel=0.01)
    assert f'measured in turn: {tables.number(peak / 1e9)} GFLOP/s' in printed
    assert row['of datasheet'] == '-' and float(row['compile s']) > 10 * float(row['ms/step']) / 1e3
    assert block['peak_of'] == 'host' and block['peak_bytes'] > 2 ** 20 and 'ms/step' in printed
    state, numbers = block['state_bytes'], 8192 * 64 + 64 * 64 * 4 + 3 * 64 * 192 + 3 * 64 + 2 * 64
    assert state == pytest.approx(12 * numbers, rel=0.001)  # parameters and two moments


@pytest.mark.long
def test_labelling_is_measured_in_both_ways(cli, known, tmp_path):
    out, shown = tmp_path / 'o.json', tmp_path / 't.md'
    code, printed, errors = cli('--what=label', '--model=chess-xs', '--side=jax', '--batch=4', '--rounds=1',
                                '--dtype=bfloat16', '--steps=2', f'--machine={known}', f'--out={out}',
                                f'--markdown={shown}')
    assert code == 0, errors
    found, (alone, predict) = json.loads(out.read_text()), cells(shown)
    line, blocks = found['roofline'], found['rounds'][0]
    assert line['intensity'] == pytest.approx(found['flops'] / line['moved_bytes'])
    assert line['attainable'] == min(found['peaks'][0], 1e10 * line['intensity'])
    assert f'reached {line["reached"]:.1%}' in printed and found['note'] in shown.read_text().splitlines()
    rows = {k: m * 4 * b['steps'] / b['seconds'] for (k, b), m in zip(sorted(blocks.items()), (1, 16), strict=True)}
    for row, (_, rate) in zip((alone, predict), sorted(rows.items()), strict=True):
        assert float(row['tokens/s']) == pytest.approx(64 * rate, rel=0.01)


@pytest.mark.slow
def test_steps_on_several_devices(cli, known, tmp_path):
    out, shown = tmp_path / 'o.json', tmp_path / 't.md'
    code, printed, errors = cli('--what=scaling', '--model=random:1x64', '--batch=4', '--length=8', '--rounds=1',
                                '--devices=2', '--steps=2', f'--machine={known}', f'--out={out}', f'--markdown={shown}')
    assert code == 0, errors
    rows = cells(shown)
    assert [(r['work'], r['mesh'], r['devices'], r['global batch']) for r in rows] == [
        ('same in all', 'data', '1', '4'), ('same in all', 'data', '2', '4'), ('same in all', 'fsdp', '2', '4'),
        ('same a device', 'data', '2', '8'), ('same a device', 'fsdp', '2', '8')]
    one, *_ = runs = json.loads(out.read_text())['runs']
    assert [r['efficiency'] for r in runs] == [r['rows_per_second'] / one['rows_per_second'] for r in runs]
    assert 'share the cores' in printed
    for run in runs:  # only fsdp splits the state: here its table of tokens, and that evenly
        ways = run['devices'] if run['mesh'] == 'fsdp' else 1
        split = 12 * 8192 * 64
        assert run['state_bytes'] <= one['state_bytes'] - split * (1 - 1 / ways)


def test_one_device_comes_first_and_once():
    lines = scaling.cases([4, 1, 2])
    assert lines[0] == ('same in all', 'data', 1) and len(lines) == len(set(lines)) == 1 + 2 * 2 * 2
    assert [n for *_, n in lines[1:]] == [2, 4] * 4


def test_real_devices_are_not_simulated(monkeypatch, known):
    made = []
    monkeypatch.setattr(scaling, 'steps', lambda options, name, scratch, axis, devices, batch: made.append(
        devices) or {'seconds': 1.0, 'rows_per_second': batch, 'blocks': [], 'state_bytes': 1})
    real = json.loads(known.read_text())['machine'] | {'platform': 'gpu', 'devices': 4}
    options = SimpleNamespace(machine=real, devices=[1, 2, 4, 8], batch=8, model='chess-xs', length=64)
    _, found = scaling.scaling(options)
    assert max(made) == 4 and not found['simulated']
    found = {(r['work'], r['mesh'], r['devices']): r['efficiency'] for r in found['runs']}
    assert [x for key, x in found.items() if key[0] == 'same a device'] == [1, 1, 1, 1]
    assert [x for key, x in found.items() if key[:2] == ('same in all', 'data')] == [1, .5, .25]


@pytest.mark.long
def test_growth_has_a_line_for_each_model_and_length(cli, known, tmp_path):
    shown = tmp_path / 't.md'
    code, _, errors = cli('--what=growth', '--models=random:1x64', '--lengths=64,128', '--batch=16', '--rounds=1',
                          '--steps=2', f'--machine={known}', f'--out={tmp_path / "o.json"}', f'--markdown={shown}')
    assert code == 0, errors
    rows = cells(shown)
    wanted = [('random:1x64', '64'), ('random:1x64', '128')]
    assert [(r['model'], r['length']) for r in rows] == wanted
    activations = [float(r['activations by arithmetic, MB']) for r in rows]
    assert activations[1] > 1.5 * activations[0] > 0


@pytest.mark.long
def test_generation_is_measured_at_every_batch(cli, tmp_path):
    out, shown = tmp_path / 'o.json', tmp_path / 't.md'
    code, _, errors = cli('--what=generate', '--model=random:1x64', '--side=jax', '--batches=1,3', '--new=4',
                          '--length=8', '--rounds=1', '--steps=2', f'--out={out}', f'--markdown={shown}')
    assert code == 0, errors
    runs, rows = json.loads(out.read_text())['runs'], cells(shown)
    for run, row, batch in zip(runs, rows, (1, 3), strict=True):
        block = run['rounds'][0]['jax']
        assert run['batch'] == batch and len(set(block['losses'])) == 1  # greedy: the same texts each time
        assert float(row['tokens/s']) == pytest.approx(batch * 4 * block['steps'] / block['seconds'], rel=0.01)


@pytest.mark.long
def test_a_device_that_waits_for_batches_is_idle(folder, tmp_path, monkeypatch):
    rows = [{'text': f'{("bad", "good")[i % 2]} {i}', 'label': i % 2} for i in range(400)]
    (tmp_path / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    config = own_data.get_config()
    config.task.update(path=str(tmp_path / 'rows.jsonl'), text='text', label='label')
    config.student.update(model=str(folder), mode='full')
    config.train.update(shapes=1, batch_size=8, epochs=1)
    options = SimpleNamespace(config=config, rows=264, rounds=1)
    batch = Runs.batch

    def slow(*args):
        time.sleep(.1)
        return batch(*args)
    monkeypatch.setattr(Runs, 'batch', slow)
    table, found = input.starving(options)
    times, = found['rounds']
    assert times['fit'] > times['steps'] * .1 and found['idle'] == [1 - times['alone'] / times['fit']]
    assert .3 < found['idle'][0] < 1 and table[1][3] == f'{found["idle"][0]:.1%}'
    with pytest.raises(ConfigError, match='--rows: 2 steps, too few to measure, expected 48 or more'):
        input.starving(SimpleNamespace(**vars(options) | {'rows': 16}))


def test_tables_are_put_between_their_lines(tmp_path):
    path, table = tmp_path / 'doc.md', [['a', 'b|c'], ['x', '1']]
    path.write_text('before\n<!-- one -->\nold\n<!-- end one -->\nafter\n<!-- two -->\n<!-- end two -->\n')
    for _ in range(2):
        tables.write(f'{path}#one', tables.markdown(table))
    assert path.read_text() == ('before\n<!-- one -->\n| a | b\\|c |\n| --- | ---: |\n| x | 1 |\n<!-- end one -->\n'
                                'after\n<!-- two -->\n<!-- end two -->\n')
    with pytest.raises(ConfigError, match='expected a file with the lines <!-- three -->'):
        tables.write(f'{path}#three', '')
    assert tables.columns(table).splitlines() == ['a  b|c', 'x    1']
    assert [tables.number(x) for x in (0, 0.01234, 1.234, 12.34, 1234.5)] == ['0', '0.0123', '1.23', '12.3', '1234']


def test_serve_answers_each_block_and_lets_one_step_wait_for_another():
    made, read = [], []

    class Loss:
        def __init__(self, number):
            self.number = number
            made.append(number)
            time.sleep(.1 if number % 3 else 0)

        def __array__(self, dtype=None, copy=None):
            read.append(self.number)
            assert len(made) - len(read) <= 1
            return np.array([self.number / 2.0])

    sink = io.StringIO()
    worker.serve(Loss, lambda: {'made': len(made)}, io.StringIO('3\n2\n'), sink)
    blocks = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert [b['losses'] for b in blocks] == [[0.0, 0.5, 1.0], [1.5, 2.0]]
    assert [b['steps'] for b in blocks] == [3, 2] and [b['made'] for b in blocks] == [3, 5]
    assert all(0 < b['first_call'] < .1 < b['seconds'] for b in blocks)
    assert all(b['seconds'] > 0 and b['cpu_seconds'] >= 0 and b['faults'] >= 0 for b in blocks)
    assert read == made == [0, 1, 2, 3, 4]


def test_ratio_is_the_median_over_rounds():
    found = train.ratios([1.0, 2.0, 4.0], [3.0, 2.0, 8.0])
    assert found == {'ratio': 2.0, 'lowest': 1.0, 'highest': 3.0, 'ratios': [3.0, 1.0, 2.0]}


def test_shares_are_of_the_same_round_precision_and_a_device():
    found = {'peaks': [1e12, 2e12, 4e12]}  # a machine that becomes faster, and steps with it

    def shares(rates, devices=1, **options):
        known = {'datasheet': options.pop('sheet', {'flops': 1e13})}
        return train.shares_of(found, rates, SimpleNamespace(machine=known, **options), devices)
    assert shares([5e11, 1e12, 2.4e12], dtype='bfloat16') == (0.5, 0.1)
    assert shares([5e11, 1e12, 2.4e12], dtype='bfloat16', devices=2) == (0.25, 0.05)
    assert shares([5e11, 1e12, 2.4e12], dtype='float32') == (0.5, None)
    assert shares([5e11, 1e12, 2.4e12], dtype='bfloat16', sheet=None)[1] is None


def test_models_that_differ_are_not_compared():
    same = {'jax': {'losses': [1.0, 2.0, 9.0]}, 'torch': {'losses': [1.0, 2.0 + 5e-4, 3.0]}}
    assert train.parity(same) == pytest.approx(5e-4)
    for wrong in (2.002, float('nan')):
        with pytest.raises(ConfigError, match='not the same model'):
            train.parity(same | {'torch': {'losses': [1.0, wrong, 3.0]}})


def test_probes_are_measured_and_written(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, 'EPOCHS', 2)
    monkeypatch.setattr(probe, 'BATCH', 16)
    out = tmp_path / 'probe.json'
    code, printed, errors = cli('--what=probe', '--rows=64', '--rounds=1', f'--out={out}')
    assert code == 0, errors
    found = json.loads(out.read_text())
    one, hundred = (found['rounds'][0][k] for k in ('1', '100'))
    for when in ('first', 'again'):
        assert one[when] > 0 and found[when]['ratio'] == pytest.approx(hundred[when] / one[when])
        assert f'{found[when]["ratio"]:.2f} (' in printed
    assert one['first'] > one['again']  # which compiles nothing
    assert found['what'] == 'probe' and found['options']['rows'] == 64 and found['versions']['jax'] == jax.__version__


def test_probe_runs_of_a_seed_share_rows_and_differ_in_rate():
    runs = probe.probe_runs(2, 3, 40)
    assert runs.rows.shape == (6, 20) and runs.streams == 2
    assert (runs.rows[0] == runs.rows[2]).all() and (runs.rows[0] != runs.rows[3]).any()
    rates = np.asarray(runs.hyper['learning_rate']).reshape(2, 3)
    assert (rates[0] == rates[1]).all() and len(set(rates[0])) == 3


@pytest.mark.parametrize(('args', 'said'), [
    (['--what=train'], '--model: None, expected a folder, random:llama-1b'),
    (['--what=train', '--model=chess-xxl'], "--model: 'chess-xxl', expected an existing folder, one of chess-xs"),
    (['--what=label', '--model=random:llama-2b'], "--model, random: unknown 'llama-2b', expected one of"),
    (['--what=label', '--model=random:4x100'], "--model, random: unknown '4x100'"),
    (['--what=train', '--model=chess-xs'], "--side: 'both', but 'chess-xs' has no counterpart in PyTorch"),
    (['--what=train', '--model=chess-xs', '--side=jax', '--batch=6', '--accumulate=4'], '--accumulate: 4 does not'),
    (['--what=train', '--model=chess-xs', '--side=jax', '--machine=/nowhere'], "--machine: '/nowhere', expected"),
    (['--what=train', '--model=chess-xs', '--side=torch'], 'side'),
    (['--what=train', '--model=chess-xs', '--dtype=float16'], 'dtype'),
    (['--what=growth'], '--models: none, expected'),
    (['--what=growth', '--models=chess-xs', '--lengths=64,x'], "--lengths: '64,x', expected whole numbers"),
    (['--what=scaling', '--model=chess-xs', '--devices=0'], "--devices: '0', expected whole numbers"),
    (['--what=scaling', '--model=chess-xs', '--batch=6', '--devices=1,4', '--machine={machine}'], '--batch: 6'),
    (['--what=generate', '--model=chess-xs', '--side=jax'], "--model: 'chess-xs', expected a language model"),
    (['--what=generate', '--model={folder}', '--batches=1,y'], "--batches: '1,y', expected whole numbers"),
    (['--what=generate', '--model={folder}'], 'has no torch'),
    (['--what=input'], '--config: missing, expected'),
    (['--what=load', '--model=/nowhere'], "--model: '/nowhere', expected an existing folder"),
    (['--what=experiment', '--model={folder}'], "--teacher: None, expected an existing folder"),
    (['--what=train', '--model={folder}'], 'has no torch'),
    (['--what=speed'], 'what'),
    (['--what=probe', '--rounds=0'], 'rounds'),
    (['--what=probe', 'more'], 'more: unexpected argument'),
])
def test_bad_arguments_end_in_one_line(cli, folder, known, monkeypatch, args, said):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'torch' else find(name))
    code, out, errors = cli(*(a.format(folder=folder, machine=known) for a in args))
    assert code == 2 and not out
    assert errors.startswith('error: ') and errors.count('\n') == 1 and said in errors
