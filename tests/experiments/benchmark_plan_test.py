"""The planning table: arithmetic, held to hand counts and to what must be so."""
import dataclasses
import re

import pytest

from experiments.benchmark import plan
from experiments.benchmark.plan import Case


def test_sizes_are_those_of_the_published_models():
    _, parameters, kernels = plan.sizes('8b')
    table, norms = 128_256 * 4096, 65 * 4096
    assert parameters == kernels + table + norms == 8_030_261_248 - table  # without the untied next-token head


def test_memory_by_hand():
    held = plan.memory(Case('8b', 'full', 'v5e', 8, 8))
    assert held['state'] == pytest.approx(16 * 7.5049e9 / 8, rel=1e-4)  # weights, gradients, two moments
    assert held['kept'] == 2 * 32 * 1024 * 4096  # one row a device
    layer = 4096 * 4096 * 2 + 2 * 4096 * 1024 + 3 * 4096 * 14_336
    assert held['layer'] == 4 * layer + 2 * 1024 * (12 * 4096 + 5 * 14_336)
    assert held['total'] == held['state'] + held['kept'] + held['layer'] > 16e9
    assert plan.memory(Case('8b', 'lora', 'v5e', 8, 8))['state'] == pytest.approx(held['state'] / 4)
    assert plan.memory(Case('8b', 'full', 'v5e', 8, 8, 'adafactor'))['state'] < held['state'] * .51


def test_time_by_hand():
    took = plan.seconds(Case('70b', 'full', 'v5p', 32, 64))
    kernels = 80 * (2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28_672)
    operations = 64 * 1024 * (8 * kernels + 16 * 80 * 1024 * 8192)
    assert took['compute'] == pytest.approx(operations / (32 * 459e12 * .4))
    assert took['traffic'] == pytest.approx(6 * 69.503e9 / 540e9, rel=1e-4)
    assert plan.seconds(Case('8b', 'full', 'H200', 1, 2))['traffic'] == 0  # nobody to talk to
    across, within = (plan.seconds(Case('70b', 'full', 'H200', n, 64))['traffic'] for n in (16, 8))
    assert across == pytest.approx(9 * within)


def test_more_devices_take_less_of_everything():
    few = Case('70b', 'full', 'v5e', 64, 256)
    for many in (dataclasses.replace(few, fsdp=128), dataclasses.replace(few, tensor=2)):
        assert plan.memory(many)['total'] < plan.memory(few)['total']
        assert plan.seconds(many)['compute'] == plan.seconds(few)['compute'] / 2


def test_the_table_says_what_does_not_fit():
    table, found = plan.plan(None)
    assert {len(row) for row in table} == {len(table[0])} and len(table) == len(plan.CASES) + 1
    for row, case in zip(table[1:], found['cases'], strict=True):
        limit = float(re.search(r'of (\d+)', row[9])[1]) * 1e9
        assert (', too much' in row[9]) == (case['total'] > limit)
    assert 0 < sum(', too much' in row[9] for row in table) < len(table) / 2
