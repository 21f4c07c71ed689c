"""What the judge takes from an untrusted process, what it signs, and what it makes its data of."""
import json
import os
import stat

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from researcher import record, scoring, tracks
from researcher.vault import Vault
from w2s_jax import api
from w2s_jax.errors import ConfigError, StoreError, WeightsError

SECRET = 2 ** 100 + 17


@pytest.fixture(scope='module')
def material():
    return tracks.salient_material(SECRET, False, True)


@pytest.fixture(scope='module')
def forward(material):
    return api.Forward(tracks.salient_config(), material.dataset())


@pytest.fixture
def good(forward):
    """Parameters as they are drawn, flat."""
    drawn = forward.model.init(jax.random.key(0), None)
    return {k: np.asarray(v) for k, v in flax.traverse_util.flatten_dict(drawn, sep='.').items()}


def test_parameters_of_the_model_are_taken(tmp_path, forward, good, material):
    (tmp_path / '0.safetensors').write_bytes(safetensors.numpy.save(good))
    found = forward.check(scoring.parameters(tmp_path / '0.safetensors'))
    answers = forward.probabilities([found, found], material.public.inputs)
    assert answers.shape == (2, 400, 2) and np.allclose(answers.sum(-1), 1, atol=1e-5)
    direct = jax.nn.softmax(forward.model.apply(found, material.public.inputs))
    np.testing.assert_allclose(answers[1], direct, atol=1e-5)


@pytest.mark.parametrize('change, said', [
    (lambda p: p | {next(iter(p)): np.full_like(p[next(iter(p))], np.nan)}, 'not finite'),
    (lambda p: p | {next(iter(p)): np.zeros((3, 3), np.float32)}, 'of shape'),
    (lambda p: p | {next(iter(p)): p[next(iter(p))].astype(np.int32)}, 'int32'),
    (lambda p: p | {'b.head': np.zeros(3, np.float32)}, 'unexpected'),
    (lambda p: dict(list(p.items())[1:]), 'missing')])
def test_other_parameters_are_refused_in_one_line(forward, good, change, said):
    with pytest.raises(WeightsError, match=said) as e:
        forward.check(change(good))
    assert '\n' not in str(e.value)


def test_only_plain_files_with_one_name_are_read(tmp_path, good):
    """A link in the job's folder would lead to the judge's own ceiling."""
    theirs = tmp_path / 'ceiling.safetensors'
    theirs.write_bytes(safetensors.numpy.save(good))
    scoring.parameters(theirs)
    (tmp_path / 'link').symlink_to(theirs)
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'large').write_bytes(bytes(100))
    (tmp_path / 'text').write_text('no')
    (tmp_path / 'pickle').write_bytes(b'\x80\x04N.' + bytes(100))
    for name, most in (('link', 10**9), ('pipe', 10**9), ('folder', 10**9), ('large', 99), ('text', 99),
                       ('pickle', 999), ('none', 99)):
        with pytest.raises(WeightsError) as e:
            scoring.parameters(tmp_path / name, most)
        assert '\n' not in str(e.value)
        assert 'no plain file' in str(e.value) or name in ('text', 'pickle', 'none')
    os.link(theirs, tmp_path / 'second')
    with pytest.raises(WeightsError, match='one name'):
        scoring.parameters(theirs)


def test_numbers_by_hand():
    weak, half = np.array([[1, 0, 0, 0]], bool), np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    ceiling = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)
    assert scoring.recovered(weak, half, ceiling) == pytest.approx([1 / 3, 1.5])
    with pytest.raises(WeightsError, match='no PGR'):
        scoring.recovered(weak, half, weak.repeat(2, 0))
    back = scoring.unpacked(json.loads(json.dumps(scoring.packed({'public': half}))))
    np.testing.assert_array_equal(back['public'], half)


def test_data_follow_from_the_secret_alone(material):
    again, other = (tracks.salient_material(s, False, True) for s in (SECRET, SECRET + 1))
    np.testing.assert_array_equal(material.pool.inputs['features'], again.pool.inputs['features'])
    assert not np.isclose(material.pool.inputs['features'], other.pool.inputs['features']).any(1).all()
    assert (material.pool.truth == other.pool.truth).mean() < .6

    def concept(m):  # the feature that tells the truth, and its sign
        found = m.pool.inputs['features'].T @ (2. * m.pool.truth - 1)
        return int(np.abs(found).argmax()), bool(found[np.abs(found).argmax()] > 0)
    found = {concept(tracks.salient_material(s << 64, False, True)) for s in range(1, 9)}
    assert len({place for place, _ in found}) > 3 and len({sign for _, sign in found}) == 2
    final = tracks.salient_material(SECRET, True, True)
    assert np.abs(np.corrcoef(final.pool.inputs['features'].T, final.pool.truth)[-1, :-1]).max() < .9


def test_three_parts_of_a_track_share_no_row(material):
    rows = np.concatenate([getattr(material, k).inputs['features'][:, 0] for k in ('pool', 'public', 'private')])
    assert len(np.unique(rows)) == len(rows)


def test_blind_data_have_no_truth(material):
    pool = material.pool
    found = tracks.blind(2, pool.inputs, pool.group, pool.given)
    assert .4 < (found.pool.truth == pool.truth).mean() < .6
    arrays = [found.pool.truth, found.test.truth]
    assert not any(np.array_equal(a, pool.truth[:len(a)]) for a in arrays)


def test_tracks_are_named():
    with pytest.raises(ConfigError, match='expected one of t2'):
        tracks.get('t3')


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / 'w' / 'private')


def test_private_files_are_ours_alone(vault):
    vault.write('x', {'a': 1})
    assert stat.S_IMODE(vault.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in vault.folder.iterdir() if p.is_file()} == {0o600}
    assert vault.read('x')['a'] == 1 and vault.read('y') is None
    same = Vault(vault.folder)
    assert same.secret == vault.secret > 2 ** 64 and same.key == vault.key
    vault.folder.chmod(0o755)
    with pytest.raises(StoreError, match='open to others'):
        Vault(vault.folder)


def test_a_private_file_that_was_changed_is_refused(vault):
    vault.write('x', {'a': 1})
    path = vault.folder / 'x.json'
    path.write_text(path.read_text().replace('"a":1', '"a":2'))
    with pytest.raises(StoreError, match='not written by this researcher'):
        vault.read('x')


RECORD = {'id': 'abc', 'idea': {'hash': 'h', 'name': 'n', 'text': '', 'delta': {}}, 'status': 'scored', 'reason': '',
          'public': {'pgr': .5, 'pgr_seeds': [.5], 'naive': .1}, 'alarms': [], 'code': 'c'}


def test_a_record_is_read_as_written(tmp_path, vault):
    found = record.write(tmp_path / 'records', vault, RECORD)
    assert found.pgr == .5 and found.scored and found.alarms == ()
    assert record.read(found.path, vault) == found


@pytest.mark.parametrize('change', [
    lambda r: r['public'].update(pgr=.9), lambda r: r.update(signature='0' * 64), lambda r: r.pop('signature'),
    lambda r: r['idea'].update(text='other'), lambda r: r.update(more=1), lambda r: r.update(signature=None),
    lambda r: r.update(signature='é'), lambda r: r.update(code='other'), lambda r: r.update(alarms=['x'])])
def test_an_edited_record_is_refused(tmp_path, vault, change):
    path = record.write(tmp_path / 'records', vault, RECORD).path
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(StoreError, match='not signed by this researcher'):
        record.read(path, vault)


def test_a_record_of_another_researcher_or_under_another_name_is_refused(tmp_path, vault):
    path = record.write(tmp_path / 'records', vault, RECORD).path
    with pytest.raises(StoreError):
        record.read(path, Vault(tmp_path / 'other'))
    with pytest.raises(StoreError):
        record.read(path.rename(path.with_name('abd.json')), vault)
    (tmp_path / 'e.json').write_text('[]')
    with pytest.raises(StoreError):
        record.read(tmp_path / 'e.json', vault)


def test_the_code_has_a_hash():
    assert record.code_hash() == record.code_hash() and len(record.code_hash()) == 16
