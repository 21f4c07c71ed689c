"""The track of probes: what its students are shown, what its teachers know, and that a library's data are sealed."""
import json
import os
import pathlib

import numpy as np
import pytest

from researcher import probes, sandbox, scoring, tracks
from researcher.engine import Engine
from researcher.idea import Idea, from_delta
from w2s_jax import api
from w2s_jax.api import ConfigError, DataError

SECRET, SEEDS = 2 ** 100 + 17, (0, 1, 1000)
needs_kernel = pytest.mark.skipif(bool(sandbox.missing()), reason=f'no {sandbox.missing()}')


@pytest.fixture
def path(tmp_path):
    """Features of 240 rows in three classes, of which the weak model sees a noisy one."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 240)
    strong = rng.normal(size=(240, 6)) + 3 * np.eye(6)[label]
    weak = label[:, None] + rng.normal(size=(240, 1))
    np.savez(tmp_path / 'rows.npz', strong=strong, weak=weak, label=label)
    return str(tmp_path / 'rows.npz')


def test_rows_are_cut_once_and_the_third_data_set_has_others(path):
    one, third = (probes.material(path, SECRET, final, False, SEEDS) for final in (False, True))
    shown = [m[k].inputs['features'] for m in (one, third) for k in ('pool', 'public', 'private')]
    assert [len(x) for x in shown] == [120, 40, 40, 120, 20, 20]
    rows = [{*map(bytes, x)} for x in shown]
    assert rows[0] == rows[3] and len(rows[0] | rows[1] | rows[2] | rows[4] | rows[5]) == 240
    assert set(one['pool'].inputs) == {'features'}  # not what the teacher sees
    other = probes.material(path, SECRET + 1, False, False, SEEDS)
    assert not np.array_equal(other['pool'].truth, one['pool'].truth)


def test_a_seed_has_its_teachers_labels_on_its_students_half_alone(path):
    made = probes.material(path, SECRET, False, False, SEEDS)
    pool = made['pool']
    assert pool.given.shape == (120, 3, 3) and made['public'].given.shape == (40, 3, 3)
    np.testing.assert_allclose(pool.given.sum(-1), 1, atol=1e-5)
    for at, seed in enumerate(SEEDS):
        teacher, student = api.halves(pool.group, .5, seed)
        assert (pool.given[teacher, at] == np.float32(1 / 3)).all()
        assert (np.ptp(pool.given[student, at], axis=-1) > 0).all()
    right = scoring.weak(tracks.Material(**made))
    assert right['public'].shape == (3, 40) and .4 < right['public'].mean() < .9
    again = probes.material(path, SECRET, False, False, SEEDS[1:])
    np.testing.assert_array_equal(again['pool'].given, pool.given[:, 1:])


def test_the_students_source_is_of_its_own_teacher(path):
    pool = probes.material(path, SECRET, False, False, SEEDS)['pool']
    data = tracks.blind(3, pool.inputs, pool.group, pool.given)
    rows = {seed: api.halves(pool.group, .5, seed)[1] for seed in SEEDS}
    parts = type('Parts', (), {'dataset': data, 'seeds': SEEDS, 'given_answers': lambda self: 'weak', 'halves': {
        s: type('Halves', (), {'student': type('Rows', (), {'index': r})}) for s, r in rows.items()}})()
    for at, seed in enumerate(SEEDS):
        weak, labels = probes.judge(parts, seed)
        assert weak == 'weak'
        np.testing.assert_array_equal(labels.need.value, pool.given[rows[seed], at])


def test_pgr_is_of_each_seeds_own_teacher():
    weak, student, ceiling = (np.arange(10) < np.array([[a], [b]]) for a, b in ((4, 6), (6, 6), (8, 8)))
    assert scoring.recovered(weak, student, ceiling) == pytest.approx([.5, 0.])
    assert scoring.recovered(weak[:1], student, ceiling) == pytest.approx([.5, .5])


def test_files_that_are_none_are_one_line(tmp_path):
    with pytest.raises((DataError, ConfigError)) as e:
        tracks.get(f'probes:{tmp_path / "none.npz"}').make(SECRET, False, False, SEEDS)
    assert 'none.npz' in str(e.value) and '\n' not in str(e.value)
    with pytest.raises(ConfigError, match=r'expected one of t2, probes, probes:FILE\.npz'):
        tracks.get('probing')


def test_a_sealed_place_is_in_no_part_of_what_may_be_read(tmp_path):
    for name in ('a/b/data', 'a/b/code', 'a/c', 'd'):
        (tmp_path / name).mkdir(parents=True)
    places = [str(tmp_path / 'a'), str(tmp_path / 'd')]
    assert sandbox.without(places, ()) == (places, [])
    kept, listed = sandbox.without(places, (str(tmp_path / 'a/b/data'),))
    assert sorted(kept) == [str(tmp_path / n) for n in ('a/b/code', 'a/c', 'd')]
    assert listed == [str(tmp_path / 'a'), str(tmp_path / 'a/b')]
    kept, _ = sandbox.without(sandbox.readable(), probes.library())
    sealed = pathlib.Path(probes.library()[0]).resolve()
    assert sealed.is_dir() and not any(sealed.is_relative_to(p) or pathlib.Path(p).is_relative_to(sealed) for p in kept)


@pytest.mark.long
@needs_kernel
def test_probes_train_in_the_sandbox_where_digits_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
    engine = Engine('probes', tmp_path, seeds=2, small=True)
    naive = engine.score(from_delta({}))
    assert naive.scored and naive.alarms == (), naive.reason
    assert engine.private(naive)['private']['pgr'] == engine.private(naive)['private']['naive']
    with engine.job(from_delta({}), False) as folder:
        with np.load(folder / 'in' / 'pool.npz') as arrays:
            assert set(arrays.files) == {'features', 'group', 'given'}
        assert json.loads((folder / 'in' / 'job.json').read_text())['sealed'] == list(probes.library())
    digits = os.path.join(*probes.library(), 'digits.csv.gz')
    text = f'''
import optax
from sklearn.datasets import load_digits
from w2s_jax.losses import LOSSES
for read in (load_digits, lambda: open({digits!r}, 'rb').read()):
    try:
        read()
        raise SystemExit('HAS READ IT')
    except PermissionError:
        pass
@LOSSES.register('mine')
def mine(logits, targets, *, progress, settings, state):
    return optax.losses.softmax_cross_entropy(logits, targets), {{}}, state
'''
    found = engine.score(Idea('mine.py', text, {'student.loss.name': 'mine'}, True))
    assert found.scored, found.reason
    assert any('digits.csv.gz' in alarm for alarm in found.alarms)
