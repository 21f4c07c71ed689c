"""The judge, end to end on a small T2: two seeds, one epoch. Every score is a process that imports JAX."""
import base64
import json
import os
import pathlib
import re

import numpy as np
import pytest

from researcher import canaries, commands, sandbox
from researcher.engine import Engine
from researcher.idea import Idea, from_delta, parse

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(sandbox.missing()), reason=f'no {sandbox.missing()}')]

LOSS = '''
import jax
import jax.numpy as jnp
import numpy as np
import optax
from w2s_jax.losses import LOSSES
@LOSSES.register('mine')
def mine(logits, targets, *, progress, settings, state):
    {body}
    return optax.losses.softmax_cross_entropy(logits, targets){more}, {{}}, state
{after}
'''


def loss(body='pass', more='', after=''):
    """An idea, as if its text had not been read: the sandbox alone is to hold it."""
    return Idea('mine.py', LOSS.format(body=body, more=more, after=after), {'student.loss.name': 'mine'}, True)


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'  # of children, as of this process (conftest.py)
    yield Engine('t2', tmp_path_factory.mktemp('researcher'), seeds=2, small=True, limits=sandbox.Limits(seconds=120))
    del os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS']


@pytest.fixture(scope='module')
def naive(engine):
    return engine.score(from_delta({}))


def test_the_naive_idea_is_the_naive_baseline_to_the_bit(engine, naive):
    assert naive.scored, naive.reason
    private = engine.private(naive)
    for half in ('public', 'private'):
        assert private[half]['pgr'] == private[half]['naive']
        np.testing.assert_array_equal(engine.rows(naive)[half], engine.baseline().naive[half])
    assert not any('tried' in alarm for alarm in naive.alarms)
    text = naive.path.read_text()
    assert repr(private['private']['pgr'][0]) not in text and 'bits' not in text
    assert (engine.vault.folder / 'scores' / f'{naive.id}.json').stat().st_mode & 0o777 == 0o600


def test_monkeypatching_our_modules_changes_nothing(engine, naive):
    patches = """
import w2s_jax.metrics, w2s_jax.engine.students as students, numpy
import researcher.scoring as scoring, researcher.engine as engine
w2s_jax.metrics.pgr = scoring.pgr = lambda *a: 1.0
scoring.right = scoring.recovered = lambda *a: [1.0, 1.0]
students.Forward.probabilities = lambda *a: 1.0
engine.Engine.judged = lambda *a: {}
"""
    found = engine.score(loss(after=patches))
    assert found.scored, found.reason
    assert found.pgr_seeds == naive.pgr_seeds and found.all['parameters'] == naive.all['parameters']
    assert engine.private(found)['private'] == engine.private(naive)['private']


def test_no_truth_is_in_the_memory_of_an_idea(engine):
    after = """
import gc, sys, base64
def every():
    frame = sys._getframe()
    while frame is not None:
        yield from frame.f_locals.values()
        frame = frame.f_back
    for one in gc.get_objects():
        yield one
        if isinstance(one, dict):
            yield from list(one.values())
        elif hasattr(one, '__dict__'):
            yield from list(vars(one).values())
for x in every():
    if isinstance(x, np.ndarray) and x.ndim == 1 and len(x) in (400, 1200) and set(np.unique(x)) == {0, 1}:
        print('FOUND', base64.b64encode(np.packbits(x.astype(bool)).tobytes()).decode())
print('SEARCHED')
"""
    material, _ = engine.material()
    _, _, outcome = engine.students(loss(after=after))
    assert 'SEARCHED' in outcome.output
    found = [np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))
             for text in re.findall(r'FOUND (\S+)', outcome.output)]
    assert found  # the placeholders, at least: the search finds what is there
    for bits in found:
        for truth in (material.pool.truth, material.public.truth, material.private.truth):
            n = min(len(bits), len(truth))
            assert .4 < (bits[:n] == truth[:n]).mean() < .6


def test_reading_the_secret_fails_and_is_an_alarm(engine):
    secret = engine.vault.folder / 'secret'
    found = engine.score(loss(f'open({str(secret)!r}, "rb").read()'))
    assert found.status == 'failed' and re.search('FileNotFoundError|PermissionError', found.reason)
    assert f'tried: open {secret}' in found.alarms
    events = [json.loads(line) for line in (engine.workdir / 'log.jsonl').read_text().splitlines()]
    assert any(e['event'] == 'score' and e['id'] == found.id and e['alarms'] for e in events)


def test_an_attempt_that_is_caught_is_an_alarm_beside_the_number(engine, naive):
    body = 'try: open("/etc/passwd")\n    except OSError: pass'
    found = engine.score(loss(body))
    assert found.scored and found.pgr_seeds == naive.pgr_seeds
    assert found.alarms[0] == 'tried: open /etc/passwd'


BAD = {
    'does not import': (loss(after='import nothing_like_it'), 'nothing_like_it'),
    'gives no number': (loss(more=' * jnp.nan'), 'nan|NaN|finite'),
    'wrong shapes': (loss(more='.mean()'), r'expected one float for each example'),
    'raises': (loss('raise ValueError("two\\nlines")'), 'mine.* ValueError: two lines|two lines'),
    'exits': (loss('raise SystemExit("leaves")'), 'leaves'),
    'a head of its own': (parse('head.py', '''
from w2s_jax.objectives import OBJECTIVES, Objective
@OBJECTIVES.register('head')
def head():
    return Objective(lambda *a: None, predict=lambda forward, params, inputs: forward(params, inputs) * 2)
'''), 'predict of its own'),
    'leaves other parameters': (loss(after='''
import w2s_jax.api as api
api.flat_params = lambda params: {'x': np.zeros(3, np.float32)}
'''), "parameters: missing|unexpected"),
    'leaves nothing': (loss(after='import os; os._exit(0)'), 'no 0.safetensors'),
}


@pytest.mark.parametrize('what', BAD)
def test_what_cannot_be_scored_has_a_record_that_says_why_in_one_line(engine, what):
    one, said = BAD[what]
    found = engine.score(one)
    assert found.status == 'failed' and re.search(said, found.reason), found.reason
    assert '\n' not in found.reason and found.pgr is None and found.path.exists()


def test_the_same_idea_is_not_drawn_again_and_a_replay_is_the_same_to_the_bit(engine, naive, monkeypatch):
    assert engine.replay(naive) == []
    value = engine.private(naive)
    changed = dict(value) | {'private': {**value['private'], 'pgr': [1., 1.]}}
    monkeypatch.setattr(engine, 'private', lambda found: changed)
    assert engine.replay(naive) == ['private']
    monkeypatch.setattr(engine, 'measure', None)
    assert engine.score(from_delta({})) == naive


def test_planted_leaks_are_refused_and_logged(engine):
    found = canaries.run(engine)
    assert len(found) == 7 and all(found.values()), found
    events = [json.loads(line) for line in (engine.workdir / 'log.jsonl').read_text().splitlines()]
    assert {e['name'] for e in events if e['event'] == 'canary' and e['refused']} == set(found)


def test_fields_that_are_none_are_refused_before_anything_runs(engine, monkeypatch):
    monkeypatch.setattr(sandbox, 'run', None)
    found = engine.score(from_delta({'student.loss.radius': 1}))
    assert found.status == 'failed' and 'no such field' in found.reason


def test_a_job_holds_no_truth_and_nothing_stays_of_it(engine):
    with engine.job(loss(), False) as folder:
        with np.load(folder / 'in' / 'pool.npz') as arrays:
            assert set(arrays.files) == {'features', 'group', 'given'}
        assert 'secret' not in (folder / 'in' / 'job.json').read_text()
    assert list((engine.workdir / 'jobs').iterdir()) == []
    left = engine.workdir / 'jobs' / '999999999-x'
    left.mkdir()
    Engine('t2', engine.workdir, seeds=2, small=True)
    assert not left.exists()


def test_the_command_checks_scores_and_verifies(tmp_path, capsys, monkeypatch):
    (tmp_path / 'good.py').write_text(LOSS.format(body='pass', more='', after=''))
    monkeypatch.setattr(commands, 'prepare', lambda: None)
    monkeypatch.setattr(commands, 'made', lambda told, **more: Engine('t2', told.workdir, seeds=2, small=True))
    assert commands.main(['check', str(tmp_path / 'good.py'), '--plain']) == 0
    out = capsys.readouterr().out
    assert 'status: fine' in out and len(out.splitlines()) <= 40
    where = ['--workdir', str(tmp_path / 'w'), '--plain']
    assert commands.main(['score', str(tmp_path / 'good.py'), *where]) == 0
    lines = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines())
    assert lines['status'] == 'scored' and float(lines['pgr']) == float(lines['naive'])
    assert commands.main(['verify', lines['record'], *where]) == 0
    path = pathlib.Path(lines['record'])
    path.write_text(path.read_text().replace('"status": "scored"', '"status": "Scored"'))
    assert commands.main(['verify', lines['record'], *where]) == 2
    assert capsys.readouterr().err.startswith('error: ')
