"""What `experiments.benchmark` counts and says, and its errors. Needs neither PyTorch nor downloaded models."""
import importlib
import io
import json
import math
import sys

import jax
import numpy as np
import pytest
import tiny
from absl import flags

from experiments import worker
from w2s_jax import command
from w2s_jax.models import heads, hf
from w2s_jax.models.transformer import Transformer


@pytest.fixture
def benchmark():
    """The module; its flags are gone again afterwards, for other entry points have some of the same names."""
    known = set(flags.FLAGS)
    yield importlib.import_module('experiments.benchmark')
    for name in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, name)
    del sys.modules['experiments.benchmark']


@pytest.fixture
def cli(benchmark, monkeypatch, capsys):
    """The command in this process: (arguments) -> (exit status, stdout, stderr)."""
    def leave(status):
        raise SystemExit(status)
    monkeypatch.setattr(command.os, '_exit', leave)
    monkeypatch.setattr(command.runtime, 'keep_freed_memory', lambda: None)

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


def product_flops(jaxpr) -> int:
    """Floating-point operations of all matrix products of a jaxpr, loops included."""
    total = 0
    for e in jaxpr.eqns:
        if e.primitive is jax.lax.dot_general_p:
            (contracted, _), _ = e.params['dimension_numbers']
            depth = math.prod(e.invars[0].aval.shape[i] for i in contracted)
            total += 2 * depth * math.prod(e.outvars[0].aval.shape)
        inner = [j for v in e.params.values() for j in (v if isinstance(v, tuple | list) else [v])]
        inner = [getattr(j, 'jaxpr', j) for j in inner]
        total += e.params.get('length', 1) * sum(product_flops(j) for j in inner if hasattr(j, 'eqns'))
    return total


@pytest.mark.parametrize(('batch', 'length'), [(2, 16), (3, 100)])
def test_flops_of_a_step_are_thrice_those_of_the_forward_pass(benchmark, folder, batch, length):
    config = hf.read(folder).config
    tokens, lengths = np.zeros((batch, length), np.int32), np.full(batch, length, np.int32)
    jaxpr = jax.make_jaxpr(lambda p: Transformer(config).apply({'params': p}, tokens, lengths))(hf.load(folder))
    counted = 3 * product_flops(jaxpr.jaxpr)
    assert counted > 0
    np.testing.assert_allclose(benchmark.step_flops(folder, batch, length), counted, rtol=0.03)  # norms have weights


def test_arrays_are_what_both_sides_train_on(benchmark, folder):
    arrays, config = benchmark.train_arrays(folder, 4, 16), hf.read(folder).config
    assert arrays['tokens'].shape == (64, 16) and arrays['tokens'].max() < config.vocab_size
    assert (arrays['length'] == 16).all() and set(arrays['truth']) == {0, 1}
    assert arrays['order'].shape[1] == 4 and arrays['head'].shape == (config.d_out, 2)
    epoch = arrays['order'][:16].ravel()
    assert sorted(epoch) == list(range(64))


def test_the_stepper_trains_the_model_of_the_folder(benchmark, folder, tmp_path):
    arrays = benchmark.train_arrays(folder, 8, 16)
    step = worker.jax_stepper({'model': str(folder), 'rate': 1e-2, 'warmup': 0.0, 'steps': 100}, arrays)
    at, checkpoint = arrays['order'][0], hf.read(folder)
    tokens, length = arrays['tokens'][at], arrays['length'][at]
    hidden = Transformer(checkpoint.config).apply({'params': hf.load(folder)}, tokens, length)
    logits = heads.read_out(hidden, length, hf.read_out(checkpoint)) @ arrays['head']
    want = -jax.nn.log_softmax(logits)[np.arange(8), arrays['truth'][at]].mean()
    losses = [float(step(0)[0]) for _ in range(5)]
    np.testing.assert_allclose(losses[0], want, rtol=1e-5)
    assert losses[-1] < 0.9 * losses[0]


def test_serve_answers_each_block_and_lets_one_step_wait_for_another():
    made, read = [], []

    class Loss:
        def __init__(self, number):
            self.number = number
            made.append(number)

        def __array__(self, dtype=None, copy=None):
            read.append(self.number)
            assert len(made) - len(read) <= 1
            return np.array([self.number / 2.0])

    sink = io.StringIO()
    worker.serve(Loss, io.StringIO('3\n2\n'), sink)
    blocks = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert [b['losses'] for b in blocks] == [[0.0, 0.5, 1.0], [1.5, 2.0]]
    assert [b['steps'] for b in blocks] == [3, 2]
    assert all(b['seconds'] > 0 and b['cpu_seconds'] >= 0 and b['faults'] >= 0 for b in blocks)
    assert read == made == [0, 1, 2, 3, 4]


def test_ratio_is_the_median_over_rounds(benchmark):
    found = benchmark.ratios([1.0, 2.0, 4.0], [3.0, 2.0, 8.0])
    assert found == {'ratio': 2.0, 'lowest': 1.0, 'highest': 3.0, 'ratios': [3.0, 1.0, 2.0]}


def test_models_that_differ_are_not_compared(benchmark):
    same = {'jax': {'losses': [1.0, 2.0, 9.0]}, 'torch': {'losses': [1.0, 2.0 + 5e-4, 3.0]}}
    assert benchmark.parity(same) == pytest.approx(5e-4)
    for wrong in (2.002, float('nan')):
        with pytest.raises(benchmark.ConfigError, match='not the same model'):
            benchmark.parity(same | {'torch': {'losses': [1.0, wrong, 3.0]}})


def test_probes_are_measured_and_written(benchmark, cli, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, 'PROBE_EPOCHS', 2)
    monkeypatch.setattr(benchmark, 'PROBE_BATCH', 16)
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


def test_probe_runs_of_a_seed_share_rows_and_differ_in_rate(benchmark):
    runs = benchmark.probe_runs(2, 3, 40)
    assert runs.rows.shape == (6, 20) and runs.streams == 2
    assert (runs.rows[0] == runs.rows[2]).all() and (runs.rows[0] != runs.rows[3]).any()
    rates = np.asarray(runs.hyper.learning_rate).reshape(2, 3)
    assert (rates[0] == rates[1]).all() and len(set(rates[0])) == 3


@pytest.mark.parametrize(('args', 'said'), [
    (['--what=train'], "--model: None, expected an existing folder"),
    (['--what=load', '--model=/nowhere'], "--model: '/nowhere', expected an existing folder"),
    (['--what=experiment', '--model={folder}'], "--teacher: None, expected an existing folder"),
    (['--what=train', '--model={folder}'], 'has no torch'),
    (['--what=speed'], 'what'),
    (['--what=probe', '--rounds=0'], 'rounds'),
    (['--what=probe', 'more'], 'more: unexpected argument'),
])
def test_bad_arguments_end_in_one_line(cli, folder, monkeypatch, args, said):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'torch' else find(name))
    code, out, errors = cli(*(a.format(folder=folder) for a in args))
    assert code == 2 and not out
    assert errors.startswith('error: ') and errors.count('\n') == 1 and said in errors
