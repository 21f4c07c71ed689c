"""What a machine can do, measured and promised, and what follows from it."""
import time

import numpy as np
import pytest

from experiments.benchmark import machine
from w2s_jax.engine import cost


def test_no_product_is_much_faster_than_the_peak(monkeypatch):
    monkeypatch.setattr(machine, 'SIZES', {'cpu': (128, 512)})
    monkeypatch.setattr(machine, 'ROUND', 0.02)
    peak = machine.matmul_peak('float32')
    assert peak['flops'] == max(peak['by_size'].values()) == peak['by_size'][peak['size']]
    assert peak['flops'] > 0.5 * cost.matmul_rate(512)


def test_products_that_take_long_end_the_search(monkeypatch):
    monkeypatch.setattr(machine, 'SIZES', {'cpu': (64, 128, 256)})
    monkeypatch.setattr(machine, 'matmul_rate', lambda precision, size: 2e6)
    assert list(machine.matmul_peak('float32')['by_size']) == [64, 128]  # 0.3 and 2 s a product


def test_seconds_are_those_of_one_call(monkeypatch):
    monkeypatch.setattr(machine, 'ROUND', 0.03)
    calls = []

    def call(x):
        calls.append(x)
        time.sleep(0.01)
        return x + 1
    assert 0.01 <= machine.best_seconds(call, 0) < 0.03
    assert calls == list(range(len(calls)))  # each is fed what the last one gave


def test_bandwidth_counts_three_arrays(monkeypatch):
    monkeypatch.setattr(machine, 'ROUND', 0.02)
    numbers = 2 ** 22
    found, b = machine.bandwidth(numbers), np.ones(numbers, np.float32)
    began = time.perf_counter()
    for _ in range(5):
        b.copy()
    copied = 2 * b.nbytes * 5 / (time.perf_counter() - began)
    assert copied / 20 < found < 1e13


@pytest.mark.parametrize(('flops', 'moved', 'attainable', 'bound'), [
    (100, 10, 100.0, 'compute'),  # 10 operations a byte at 20 bytes a second would be 200
    (40, 10, 80.0, 'memory'), (50, 10, 100.0, 'compute')])
def test_roofline(flops, moved, attainable, bound):
    found = machine.roofline(flops, moved, peak=100.0, stream=20.0)
    assert found == {'intensity': flops / moved, 'attainable': attainable, 'bound': bound}


def test_datasheets_have_sources_and_numbers_of_a_size():
    for kind, sheet in machine.DATASHEETS.items():
        assert sheet.source.startswith('https://'), kind
        assert 1e14 < sheet.flops < 1e16 and 1e11 < sheet.bandwidth < 1e13 and 1e10 < sheet.memory < 1e12, kind
    assert not any('cpu' in kind.lower() for kind in machine.DATASHEETS)


def test_peak_memory_sees_what_was_held():
    before = machine.memory_peak()
    held = np.ones(2 ** 27, np.uint8)
    after = machine.memory_peak()
    assert after['peak_of'] == 'host' and after['peak_bytes'] >= held.nbytes
    del held
    assert machine.memory_peak()['peak_bytes'] > 0.9 * after['peak_bytes'] > 0.8 * before['peak_bytes']


def test_table_of_a_machine_that_is_known():
    peaks = {p: {'flops': 1e12, 'size': 512, 'by_size': {}} for p in machine.PRECISIONS}
    sheet = machine.dataclasses.asdict(machine.DATASHEETS['NVIDIA H200'])
    known = {'devices': 1, 'device_kind': 'NVIDIA H200', 'peaks': peaks, 'bandwidth': 1e12, 'datasheet': sheet}
    assert machine.table(known)[1:] == [['float32 products, TFLOP/s', '1 (size 512)', '-'],
                                        ['bfloat16 products, TFLOP/s', '1 (size 512)', '989.5'],
                                        ['memory, GB/s', '1000', '4800']]
    assert {row[2] for row in machine.table(known | {'datasheet': None})[1:]} == {'-'}
