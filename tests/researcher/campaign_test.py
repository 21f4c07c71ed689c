"""A search as the judge runs it: what agents see, what survives a kill, what reaches the leaderboard."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from researcher import board, campaign, commands, idea, journal, ladder, leaderboard, sandbox, search, tracks
from researcher.campaign import Campaign, Plan
from researcher.engine import Engine
from researcher.idea import from_delta, parse
from researcher.record import Record
from researcher.vault import Vault
from w2s_jax.api import ConfigError, DataError, StoreError

ROOT = pathlib.Path(__file__).parents[2]
N, SEEDS = 400, leaderboard.HOUSE.seeds
PRIVATE = .123456789  # stands in a record's numbers and must not come out


class Judge:
    """An engine without students: right answers follow from the rate of an idea, `product` cannot be scored."""

    def __init__(self, workdir, seeds=SEEDS):
        self.track, self.workdir, self.seeds, self.code = tracks.get('t2'), pathlib.Path(workdir), seeds, 'c'
        self.vault, self.scores = Vault(self.workdir / 'private'), []

    def right(self, share, salt):
        rng = np.random.default_rng([salt, *self.seeds])
        return rng.random((len(self.seeds), N)) < share

    def share(self, one):
        return .75 + .1 * (one.delta['train.epochs'] / 36) if one.delta else .7

    def baseline(self):
        rows = {k: {'public': self.right(v, i)} for i, (k, v) in enumerate({'weak': .7, 'naive': .7,
                                                                           'ceiling': .97}.items())}
        return type('Judged', (), rows)

    def score(self, one):
        self.scores.append(one.hash)
        bad = one.delta.get('student.loss.name') == 'product'
        number = f'{one.hash}{self.seeds[0]}'
        gain = PRIVATE + self.share(one) - .7
        spread = np.random.default_rng(int(one.hash[:8], 16)).normal(0, .01, len(self.seeds))
        self.vault.write(f'scores/{number}', {'id': number, 'private': {
            'pgr': (gain + spread).tolist(), 'naive': [PRIVATE] * len(self.seeds)}})
        everything = {'id': number, 'code': 'c', 'data': {}, 'guards': [], 'parameters': ''}
        return Record(number, one.hash, one.name, 'failed' if bad else 'scored', 'broke' if bad else '', PRIVATE, (),
                      PRIVATE, (), self.workdir / 'private' / 'records' / f'{number}.json', everything)

    def private(self, found):
        return self.vault.read(f'scores/{found.id}')

    def rows(self, found):
        one = next(r for r in self.known if r.hash == found.idea)
        return {'public': self.right(self.share(one), int(found.idea[:6], 16))}

    def final(self, one):
        self.finals = [*getattr(self, 'finals', []), one.hash]
        return {half: {'pgr': [.5 + i / 100 for i in range(10)], 'naive': [.1] * 10} for half in ('public', 'private')}


@pytest.fixture
def judge(tmp_path, monkeypatch):
    made = Judge(tmp_path)
    made.known = []
    real = campaign.idea_of
    monkeypatch.setattr(campaign, 'idea_of', lambda point: made.known.append(real(point)) or made.known[-1])
    return made


def test_agents_get_the_ladders_answers_and_nothing_else(judge, capsys):
    made = Campaign(judge, Plan('random', 12, 3), print).run()
    assert len(made) == 12 and {e['agent'] for e in made} == {'agent0', 'agent1', 'agent2'}
    said = [r for r in journal.read(judge.workdir / 'search-t2.jsonl') if r['kind'] == 'answer']
    assert said and all(set(r) == {'kind', 'agent', 'number', 'said'} and set(r['said']) == {'answer', 'improved'}
                        for r in said)
    outside = [p for p in judge.workdir.rglob('*') if p.is_file() and 'private' not in p.parts[-3:]
               and judge.workdir / 'private' not in p.parents]
    told = ''.join(p.read_text() for p in outside) + capsys.readouterr().out
    assert outside and 'improved' in told
    for number in private_numbers(judge.workdir):
        assert number not in told
    assert judge.vault.key.hex() not in told and str(judge.vault.secret) not in told
    log = judge.workdir / 'private' / 'search' / 't2' / 'ladder.jsonl'
    assert log.stat().st_mode & 0o077 == 0
    answers = [a['answer'] for a in ladder.state_of(log).answers.values()]
    assert all(a == round(a, 2) and -.05 < a < .65 for a in answers) and max(answers) > .2


def private_numbers(workdir):
    """Texts of the exact private PGRs on the leaderboard, but for those that are short by chance (0.0)."""
    entries = [r for r in journal.read(campaign.board_of(workdir)) if r['kind'] == 'entry']
    found = [repr(v)[:8] for r in entries for v in (*r['private'], *r['naive']) if len(repr(v)) >= 8]
    assert len(found) >= 10
    return found


def test_an_idea_that_fails_is_noted_and_the_agent_goes_on(judge, monkeypatch):
    monkeypatch.setitem(tracks.SPACE, 'student.loss.name', ['xent', 'product'])
    made = Campaign(judge, Plan('random', 10)).run()
    records = journal.read(judge.workdir / 'search-t2.jsonl')
    failed = [r for r in records if r['kind'] == 'failure']
    assert len(made) == 10 and 0 < len(failed) < 10 and {r['reason'] for r in failed} == {'broke'}
    on_board = journal.read(campaign.board_of(judge.workdir))
    assert len(on_board) == 10 - len(failed)


@pytest.mark.parametrize('ahead', [(0, 0), (1, 1), (0, 1)])
def test_a_search_cut_anywhere_resumes_to_the_same_board(judge, monkeypatch, ahead):
    """Of an answer first the board is written, then the ladder's log, then the notebook; a kill may come between."""
    monkeypatch.setitem(tracks.SPACE, 'student.loss.name', ['xent', 'window'])
    plan = Plan('evolution', 8, 2)
    Campaign(judge, plan).run()
    files = [judge.workdir / 'private' / 'search' / 't2' / 'ladder.jsonl', campaign.board_of(judge.workdir),
             judge.workdir / 'search-t2.jsonl']
    log, entries, notes = (f.read_bytes().splitlines(keepends=True) for f in files)
    rows = campaign.standings(judge)
    assert len(entries) == len(log) - 1 == 8 and len(notes) == 16
    for cut in range(len(notes) + 1):
        answers = sum(b'"answer"' in line for line in notes[:cut])
        if b'"proposal"' in b''.join(notes[cut:cut + 1]) and any(ahead):
            continue  # nothing is asked before all have proposed
        for file, lines in zip(files, (log[:1 + answers + ahead[0]], entries[:answers + ahead[1]], notes[:cut]),
                               strict=True):
            file.write_bytes(b''.join(lines))
        with open(files[2], 'ab') as file:
            file.write(b'{"half')
        Campaign(judge, plan).run()
        assert [journal.read(f) for f in files] == [[*map(json.loads, lines)] for lines in (log, entries, notes)]
        assert campaign.standings(judge) == rows


def test_a_round_knows_what_was_known_when_it_began(judge):
    Campaign(judge, Plan('random', 6, 2)).run()
    records = journal.read(judge.workdir / 'search-t2.jsonl')
    assert [(r['kind'] == 'proposal', r['agent'], r['number']) for r in records] == [
        (first, f'agent{a}', n) for n in range(3) for first in (True, False) for a in range(2)]


def test_shuffled_answers_are_what_the_driver_sees(judge, monkeypatch):
    asked = []
    real = search.shuffled
    monkeypatch.setattr(search, 'shuffled', lambda entries, rng: asked.append(len(entries)) or real(entries, rng))
    Campaign(judge, Plan('random', 3, shuffled=True)).run()
    assert asked == [0, 1, 2]
    with pytest.raises(ConfigError, match=r'shuffled: False, but the search .* was begun with True'):
        Campaign(judge, Plan('random', 3)).run()


@pytest.mark.parametrize('plan, said', [
    (Plan('random', 0), '--budget: 0'), (Plan('random', 2, 3), '--agents: 3'), (Plan('random', 2, 0), '--agents: 0'),
    (Plan('random', 2, seed=-1), '--seed: -1')])
def test_plans_that_cannot_be_are_refused(judge, plan, said):
    with pytest.raises(ConfigError, match=said):
        Campaign(judge, plan)


def test_a_second_process_is_refused_and_a_search_closes_the_way_around_its_ladder(judge, monkeypatch, capsys):
    one = Campaign(judge, Plan('random', 1))
    with journal.locked(judge.workdir / '.search-t2.jsonl.on'), pytest.raises(StoreError, match='another process'):
        one.run()
    assert not campaign.is_on(judge.workdir, 't2')
    one.run()
    assert campaign.is_on(judge.workdir, 't2') and not campaign.is_on(judge.workdir, 'probes')
    monkeypatch.setattr(commands, 'prepare', lambda: None)
    path = judge.workdir / 'x.json'
    path.write_text('{}')
    assert commands.main(['score', str(path), '--workdir', str(judge.workdir)]) == 2
    assert 'only its ladder' in capsys.readouterr().err


def test_the_third_data_set_is_used_once_for_the_first(judge):
    ideas = [from_delta({'train.epochs': n}) for n in (36, 30)]
    with pytest.raises(DataError, match='no idea of t2 has a rank'):
        campaign.final(judge)
    for one in ideas:
        campaign.enter(judge, one, 'a')
        campaign.enter(judge, one, 'a')  # nothing is entered twice
    assert [r.status for r in campaign.standings(judge)] == ['waits for fresh seeds'] * 2
    fresh = Judge(judge.workdir, leaderboard.HOUSE.fresh)
    assert campaign.confirm(fresh) == [] and campaign.confirm(fresh) == []
    rows = campaign.standings(judge)
    assert [r.rank for r in rows] == [1, 2] and [r.repeats for r in rows] == [0, 0]
    first = campaign.final(judge)
    assert campaign.final(judge)['pgr'] == first['pgr']
    assert judge.finals == [rows[0].record['idea_hash']]
    assert campaign.gain_of(first).mean == pytest.approx(.445)
    leaderboard.alarm(campaign.board_of(judge.workdir), 't2', rows[0].record['idea_hash'], 'odd', 'looks odd')
    with pytest.raises(ConfigError, match='expected the same, it is used once'):
        campaign.final(judge)


def test_a_leaderboard_that_was_edited_is_refused(judge):
    campaign.enter(judge, from_delta({'train.epochs': 9}), 'a')
    path = campaign.board_of(judge.workdir)
    entry, = journal.read(path)
    path.write_text(json.dumps(entry | {'private': [9.] * 10}) + '\n')
    with pytest.raises(StoreError, match='not what was scored here'):
        campaign.standings(judge)


def test_a_page_of_notes_and_rows_has_forty_lines(judge):
    for n in range(1, 37):
        campaign.enter(judge, from_delta({'train.epochs': n}), 'a')
    for n in range(1, 10):
        campaign.enter(judge, from_delta({'train.epochs': n, 'optimizer.weight_decay': .5}), 'a')
    text = board.plain(campaign.standings(judge), ('note one', 'note two'))
    assert len(text.splitlines()) <= 40 and text.endswith('note one\nnote two\n') and 'train.epochs=36' in text


def test_a_point_is_an_idea_with_the_fields_that_it_has():
    point = {'student.loss.name': 'window', 'student.loss.radius': .1, 'student.loss.alpha': .3, 'train.epochs': 4,
             'labels.transforms': ['confident'], 'labels.confident.share': .5, 'labels.small_loss.share': .5,
             'student.stopping.name': ''}
    assert tracks.fields(point) == {k: point[k] for k in point if k not in ('student.loss.alpha',
                                                                            'labels.small_loss.share')}
    rng = np.random.default_rng(0)
    from researcher import space as spaces
    for name in ('t2', 'probes'):
        for levels in (False, True):
            space = tracks.get(name).space(levels)
            spaces.check(space)
            for _ in range(20):
                from_delta(tracks.fields(spaces.draw(space, rng)))


def test_options_are_json_or_text():
    assert commands.options(['start=3', 'command=python m.py', 'x="3"']) == {'start': 3, 'command': 'python m.py',
                                                                            'x': '3'}
    with pytest.raises(ConfigError, match='expected NAME=VALUE'):
        commands.options(['start'])


def test_the_reference_ideas_are_ideas():
    """That each trains is shown by `check` (docs/researcher.md)."""
    files = sorted((ROOT / 'researcher' / 'ideas').iterdir())
    files = [f for f in files if f.suffix in ('.py', '.json')]
    found = [idea.load(f) for f in files]
    assert len(files) >= 12 and len({one.hash for one in found}) == len(found)
    assert {one.code for one in found} == {True, False}


SEARCH = """
import sys
from researcher import commands, engine
from researcher.engine import Engine
engine.SMALL = {'train.epochs': 6, 'train.batch_size': 32, 'optimizer.learning_rate': 5e-3}  # ceilings above the labels
commands.made = lambda told, hidden=False, seeds=None: Engine('t2', told.workdir, told.trust, seeds, small=True,
                                                              hidden=hidden)
sys.exit(commands.main(sys.argv[1:]))
"""
needs_kernel = pytest.mark.skipif(bool(sandbox.missing()), reason=f'no {sandbox.missing()}')


def begun(workdir, *words):
    """A process of the command on the small T2."""
    return subprocess.Popen([sys.executable, '-c', SEARCH, *words, f'--workdir={workdir}', '--plain'],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
                            env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'})


@pytest.mark.long
@needs_kernel
def test_a_search_that_was_killed_ends_with_the_same_board(tmp_path):
    """The command, the sandbox and the ladder: 4 ideas of 2 agents with shuffled answers, killed twice."""
    words = ('search', '--driver=random', '--budget=4', '--agents=2', '--shuffled')
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    for folder in (whole, cut):
        Vault(folder / 'private')
    for name in ('key', 'secret'):  # the same data
        shutil.copy(whole / 'private' / name, cut / 'private' / name)
    straight = begun(whole, *words)
    said, _ = straight.communicate(timeout=400)
    assert straight.returncode == 0, said
    key = journal.read(whole / 'private' / 'search' / 't2' / 'ladder.jsonl')[0]['key']
    for ready in (lambda: (cut / 'search-t2.jsonl').exists() and any((cut / 'private' / 'scores').iterdir()),
                  lambda: len(journal.read(cut / 'search-t2.jsonl')) >= 5):
        one = begun(cut, *words)
        while not ready():
            assert one.poll() is None, one.communicate()
            time.sleep(.02)
        one.send_signal(signal.SIGKILL)
        one.communicate()
        log = cut / 'private' / 'search' / 't2' / 'ladder.jsonl'
        lines = journal.read(log)
        log.write_text('\n'.join(json.dumps(line | ({'key': key} if 'key' in line else {})) for line in lines) + '\n')
    last = begun(cut, *words)
    again, _ = last.communicate(timeout=400)
    assert last.returncode == 0 and again.replace(str(cut), str(whole)) == said
    told = said + (whole / 'search-t2.jsonl').read_text() + (whole / 'log.jsonl').read_text()
    assert not [n for n in private_numbers(whole) if n in told]
    assert (whole / 'search-t2.jsonl').read_bytes() == (cut / 'search-t2.jsonl').read_bytes()
    assert campaign.board_of(whole).read_bytes() == campaign.board_of(cut).read_bytes()
    shown = begun(cut, 'board')
    assert 'random' not in shown.communicate(timeout=100)[0] and shown.returncode == 0
    assert not (whole / 'records').exists()


@pytest.mark.long
@needs_kernel
def test_the_third_data_set_is_another_one(tmp_path, monkeypatch):
    """`Engine.final` end to end: the naive idea equals the naive student there, too, and elsewhere than before."""
    monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
    engine = Engine('t2', tmp_path, seeds=2, small=True, hidden=True)
    found = engine.final(parse('naive.json', '{}'))
    assert found['private']['pgr'] == found['private']['naive'] and len(found['public']['pgr']) == 2
    one, other = (engine.material(final)[0] for final in (False, True))
    for half in ('pool', 'public', 'private'):
        rows = [{r.tobytes() for r in np.sort(np.abs(getattr(m, half).inputs['features']))} for m in (one, other)]
        assert len(rows[0]) > 300 and not rows[0] & rows[1]  # whatever the order and the signs of features
    assert not engine.records.exists()
