"""Drivers on a response surface with noise, seen through a ladder; their notebook; and scripted language models."""
import http.server
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from scipy import stats

from researcher import drivers, journal, ladder, language, search
from researcher import space as spaces
from w2s_jax.errors import ConfigError

SPACE = {'loss.name': ['xent', 'conf', 'product', 'window'], 'loss.alpha': {'low': 0., 'high': 1.},
         'train.rate': {'low': 1e-4, 'high': 1e-1, 'log': True},
         'train.epochs': {'low': 1, 'high': 20, 'integer': True},
         'method.rungs': {'low': 0., 'high': 1.}}
LEVELS = SPACE | {'seeds': {'levels': [1, 3, 9]}}
EXTRAS = {'tpe': 'optuna', 'cma': 'cmaes'}
N, WEAK, CEILING = 4000, .75, .95  # public rows as of T2


def available(names):
    """As parameters of a test, skipped where a driver's package is not installed."""
    return [pytest.param(n, marks=pytest.mark.skipif(not there(n), reason=f'no package for {n}')) for n in names]


def there(driver) -> bool:
    return driver not in EXTRAS or importlib.util.find_spec(EXTRAS[driver]) is not None


def truth(delta, world: int = 0) -> float:
    """The PGR of a proposal without noise, from -1 to 1: a hill whose place differs between worlds and between losses,
    so that neither the middle nor the points of a grid are better than others. Forty draws at random leave room."""
    rng = np.random.default_rng([world, 2])
    names = SPACE['loss.name']
    tops, places = rng.permutation([1., .8, .5, .3]), rng.uniform(.1, .9, (4, 4))
    which = names.index(delta['loss.name'])
    point = spaces.encoded(SPACE, {k: delta[k] for k in SPACE})[1:]
    return float(max(-1., tops[which] - ((point - places[which]) ** 2 * [3, 6, 3, 1.5]).sum()))


def surface(world: int):
    """`score(delta)`: public rows [N] of ten seeds; rows are hard or easy for all, the rest is noise of the run."""
    hard = np.random.default_rng([world, 1]).standard_normal(N)
    def score(delta):
        rng = np.random.default_rng([world, *search.query_of(delta).encode()[:8]])
        seeds = delta.get('seeds', 10)
        accuracy = np.clip(WEAK + (CEILING - WEAK) * truth(delta, world), .01, .99)
        right = hard + .7 * rng.standard_normal((seeds, N)) < stats.norm.ppf(accuracy) * np.hypot(1, .7)
        rows = ladder.pgr_rows(right, [WEAK] * seeds, [CEILING] * seeds)
        return {'public': float(rows.mean()), 'rows': rows}
    return score


def found(world, driver, folder, see=None, runs=40, **settings) -> float:
    """The true PGR, with fresh noise of ten seeds, of what the ladder calls best in the end."""
    log, score = folder / f'{driver}{world}.ladder', surface(world)
    key = world.to_bytes(16, 'big')
    space = LEVELS if driver == 'halving' else SPACE
    naive = {'loss.name': 'xent', 'loss.alpha': .05, 'train.rate': 1e-4, 'train.epochs': 20, 'method.rungs': 0.}
    ladder.start(log, score(naive)['rows'], key=key)
    entries = search.search(search.through_ladder(score, log, 'a'), space, driver, 'a',
                            folder / f'{driver}{world}.notes', runs, seed=world, see=see, **settings)
    better = [e for e in entries if e.get('improved')]
    return truth(better[-1]['delta'] if better else naive, world) + np.random.default_rng([world, 7]).normal(0, .02)


def reply_of(text, **settings):
    usual = {'command': '', 'url': '', 'model': 'm', 'key_variable': '', 'seconds': 5.}
    return language.reply('hello', usual | settings)


def entries(n, seed=0, space=SPACE):
    rng = np.random.default_rng(seed)
    made = [spaces.draw(space, rng) for _ in range(n)]
    return [{'agent': 'a', 'number': i, 'delta': d, 'answer': truth(d)} for i, d in enumerate(made)]


def test_a_point_of_the_cube_and_its_values_are_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        delta = spaces.draw(SPACE, rng)
        assert spaces.check_delta(SPACE, delta) is delta
        again = spaces.decoded(SPACE, spaces.encoded(SPACE, delta))
        assert again == pytest.approx(delta)
    drawn = [spaces.draw(SPACE, rng) for _ in range(2000)]
    assert np.bincount([d['train.epochs'] for d in drawn])[1:].min() > 60  # ends are as likely as others
    assert np.median([d['train.rate'] for d in drawn]) == pytest.approx(10 ** -2.5, rel=.2)


@pytest.mark.parametrize(('space', 'said'), [
    ({}, 'expected a dict of fields'), ({'a': []}, 'a: \\[\\]'), ({'a': {'low': 1, 'high': 1}}, 'low < high'),
    ({'a': {'low': 0, 'high': 1, 'log': True}}, 'low > 0'), ({'a': {'levels': [3, 1]}}, 'levels'),
    ({'a': {'levels': [1]}, 'b': {'levels': [1]}}, 'several')])
def test_spaces_that_are_none_are_refused(space, said):
    with pytest.raises(ConfigError, match=said):
        drivers.propose('random', space, [], np.random.default_rng(0))


def test_unknown_drivers_and_settings_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        drivers.propose('randon', SPACE, [], np.random.default_rng(0))
    with pytest.raises(ConfigError, match="no setting 'points', expected start, elite"):
        drivers.propose('evolution', SPACE, [], np.random.default_rng(0), points=3)
    with pytest.raises(ConfigError, match='expected either command or url; it is off without'):
        drivers.propose('language_model', SPACE, [], np.random.default_rng(0))


@pytest.mark.parametrize('name', available(['random', 'grid', 'halving', 'evolution', 'tpe', 'cma']))
def test_a_proposal_is_of_the_space_and_hangs_on_history_and_draws_alone(name):
    space = LEVELS if name == 'halving' else SPACE
    for n in (0, 1, 30):
        running = {'agent': 'b', 'number': 0, 'delta': spaces.draw(space, np.random.default_rng(5)), 'answer': None}
        past = [*entries(n, space=space), running]
        before = json.dumps(past)
        one, two = (drivers.propose(name, space, past, np.random.default_rng(3)) for _ in range(2))
        assert one == two and spaces.check_delta(space, one) and json.dumps(past) == before
        assert json.loads(json.dumps(one)) == one


@pytest.mark.parametrize('name', available(['evolution', 'tpe', 'cma']))
def test_what_learns_proposes_better_than_at_random_after_sixty_answers(name):
    past = entries(60)
    made = [truth(drivers.propose(name, SPACE, past, np.random.default_rng(i))) for i in range(20)]
    drawn = [e['answer'] for e in entries(200, 1)]
    assert np.mean(made) > np.mean(drawn) + .2


def test_the_ladders_answers_count_by_their_order():
    said = [(.1, True), (.1, False), (.3, True), (.28, True)]
    past = [{'delta': i, 'answer': a, 'improved': b} for i, (a, b) in enumerate(said)] + [{'delta': 4, 'answer': None}]
    assert [e['delta'] for e in drivers.best_first(past)] == [3, 2, 0, 1]


def test_a_grid_is_tried_once_and_its_first_share_is_spread():
    space, past = {'a': [1, 2, 3], 'b': {'low': 0., 'high': 1.}}, []
    for _ in range(9):
        past.append({'delta': drivers.propose('grid', space, past, np.random.default_rng(0)), 'answer': None})
    assert len({json.dumps(e['delta']) for e in past}) == 9
    assert len({e['delta']['a'] for e in past[:5]}) == 3
    assert drivers.propose('grid', space, past, np.random.default_rng(0))['b'] not in (1 / 6, .5, 5 / 6)


def test_halving_runs_the_best_third_at_the_next_level():
    past = []
    for number in range(40):
        delta = drivers.propose('halving', LEVELS, past, np.random.default_rng(number))
        past.append({'agent': 'a', 'number': number, 'delta': delta, 'answer': truth(delta)})
    levels = [[e for e in past if e['delta']['seeds'] == n] for n in (1, 3, 9)]
    assert len(levels[0]) > 20 and 7 <= len(levels[1]) <= 13 and 1 <= len(levels[2]) <= 5
    means = [np.mean([e['answer'] for e in level]) for level in levels]
    assert means[1] > means[0] + .1 and means[2] > means[0] + .1
    with pytest.raises(ConfigError, match='the space has no levels'):
        drivers.propose('halving', SPACE, [], np.random.default_rng(0))
    assert spaces.cost(LEVELS, levels[0][0]['delta']) == pytest.approx(1 / 9)


@pytest.mark.parametrize('name', available(['evolution', 'tpe', 'cma']))
def test_a_notebook_cut_anywhere_leads_to_the_same_notebook(name, tmp_path):
    ask = lambda delta: {'answer': round(truth(delta), 2)}
    whole = tmp_path / 'whole'
    search.search(ask, SPACE, name, 'a', whole, 14)
    text = whole.read_bytes()
    assert len(journal.read(whole)) == 28
    for cut in np.random.default_rng(0).integers(0, len(text), 5):
        path = tmp_path / str(cut)
        path.write_bytes(text[:cut])
        search.search(ask, SPACE, name, 'a', path, 14)
        assert path.read_bytes() == text


def test_an_agent_goes_on_after_a_failure_and_stops_when_its_queries_are_spent(tmp_path):
    def ask(delta):
        if delta['loss.name'] == 'xent':
            raise ConfigError('loss.name: xent, expected another')
        return {'answer': .1}
    made = search.search(ask, SPACE, 'random', 'a', tmp_path / 'notes', 12)
    failed = [r['reason'] for r in journal.read(tmp_path / 'notes') if r['kind'] == 'failure']
    assert failed and {*failed} == {'loss.name: xent, expected another'} and len(made) == 12
    ladder.start(tmp_path / 'log', np.zeros(N), ladder.Rules(budget=5))
    scored = []
    score = lambda delta: scored.append(delta) or surface(0)(delta)
    limited = search.search(search.through_ladder(score, tmp_path / 'log', 'b'), SPACE, 'random', 'b',
                            tmp_path / 'own', 12)
    assert sum(e['answer'] is not None for e in limited) == 5 == len(scored)
    again = search.through_ladder(score, tmp_path / 'log', 'b')(scored[0])
    assert len(scored) == 5 and again['answer'] == limited[0]['answer']


def test_answers_are_shuffled_among_proposals_that_have_one():
    numbered = [e | {'answer': float(n)} for n, e in enumerate(entries(30))]
    past = [*numbered, {'agent': 'b', 'number': 0, 'delta': {}, 'answer': None}]
    mixed = search.shuffled(past, np.random.default_rng(0))
    assert sorted(e['answer'] for e in mixed[:30]) == sorted(e['answer'] for e in past[:30])
    assert [e['delta'] for e in mixed] == [e['delta'] for e in past] and mixed[30] == past[30]
    assert sum(a['answer'] == b['answer'] for a, b in zip(mixed[:30], past, strict=False)) < 5


AGENT = """
import sys, time
from researcher import search
space = {'a': {'low': 0., 'high': 1.}, 'b': [1, 2]}
def ask(delta):
    time.sleep(.01)
    return {'answer': delta['a']}
search.search(ask, space, 'evolution', sys.argv[2], sys.argv[1], 30)
"""


@pytest.mark.long
def test_agents_share_a_notebook_and_killed_ones_resume(tmp_path):
    path = tmp_path / 'notes'
    begin = lambda agent: subprocess.Popen([sys.executable, '-c', AGENT, str(path), agent],
                                           env={**os.environ, 'PYTHONPATH': '.'})
    killed = begin('a')
    while len(journal.read(path)) < 9:
        time.sleep(.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [p.wait() for p in [begin('a'), begin('b')]] == [0, 0]
    made = search.history(journal.read(path))
    assert sorted((e['agent'], e['number']) for e in made) == [(a, n) for a in 'ab' for n in range(30)]
    records = journal.read(path)
    for record in (r for r in records if r['kind'] == 'proposal'):  # each can be made again from what it saw
        rng = np.random.default_rng([0, zlib.crc32(record['agent'].encode()), record['number']])
        seen = search.history(records[:record['seen']])
        assert drivers.propose('evolution', {'a': {'low': 0., 'high': 1.}, 'b': [1, 2]}, seen, rng) == record['delta']


def script(tmp_path, body):
    path = tmp_path / 'model.py'
    path.write_text(body)
    return f'{sys.executable} {path}'


def test_a_scripted_language_model_climbs_by_what_it_reads(tmp_path):
    """It takes the best proposal of the prompt and moves alpha towards one."""
    command = script(tmp_path, '''import json, re, sys
text = sys.stdin.read()
tried = [json.loads(line) for line in text.splitlines() if line.startswith('{"delta"')]
alpha = min(1, tried[0]['delta']['loss.alpha'] + .2) if tried else .1
print('I think that {more} is better.')
print(json.dumps({'loss.alpha': round(alpha, 2)}))
''')
    ask = lambda delta: {'answer': delta['loss.alpha']}
    made = search.search(ask, {'loss.alpha': {'low': 0, 'high': 1}}, 'language_model', 'm',
                         tmp_path / 'n', 4, command=command)
    assert [e['answer'] for e in made] == [.1, .3, .5, .7]


@pytest.mark.parametrize(('body', 'said'), [
    ('print("no idea")', "reply: 'no idea', expected a JSON object"),
    ('print(\'{"loss.alpha": 7}\')', 'reply: loss.alpha: 7, expected one of'),
    ('print(\'{"loss.alpha": .5, "x": 1}\'.replace(" .5", " 0.5"))', "reply: proposal: unknown 'x'"),
    ('import sys; sys.exit("broken")', 'command: ended with 1 \\(broken'),
    ('import time; time.sleep(60)', 'command: no end after 0.3 s'),
    ('print("x" * 10 ** 6)', 'expected a JSON object')])
def test_replies_that_are_no_proposal_are_one_line_and_the_agent_goes_on(tmp_path, body, said):
    command, space = script(tmp_path, body), {'loss.alpha': {'low': 0, 'high': 1}}
    seconds = .3 if 'sleep' in body else 20.
    search.search(lambda d: {'answer': 0.}, space, 'language_model', 'm', tmp_path / 'n', 2, command=command,
                  seconds=seconds)
    failures = [r['reason'] for r in journal.read(tmp_path / 'n') if r['kind'] == 'failure']
    assert len(failures) == 2 and all(len(f.splitlines()) == 1 and len(f) < 400 for f in failures)
    with pytest.raises(language.ReplyError, match=said):
        drivers.propose('language_model', space, [], np.random.default_rng(0), command=command, seconds=seconds)


def test_ideas_in_python_are_taken_where_they_are_allowed():
    text = 'Here:\n```python\nimport jax\nx = 1\n```\n'
    assert language.proposal(text, SPACE, 30) == {'python': 'import jax\nx = 1\n'}
    with pytest.raises(language.ReplyError, match='an idea of 2 lines, expected at most 1'):
        language.proposal(text, SPACE, 1)
    with pytest.raises(language.ReplyError, match='expected a JSON object'):
        language.proposal(text, SPACE)
    assert '30 lines' in language.prompt(SPACE, [], 30) and 'python' not in language.prompt(SPACE, [])


class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        said = asked['model'] + self.path + str(self.headers['Authorization']) + asked['messages'][0]['content']
        body = json.dumps({'choices': [{'message': {'content': said}}]} if asked['model'] != 'none' else {}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_an_endpoint_is_asked_as_openai_is(monkeypatch):
    with http.server.HTTPServer(('127.0.0.1', 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/v1'
        monkeypatch.setenv('A_KEY', 'abc')
        assert reply_of('', url=url, key_variable='A_KEY') == 'm/v1/chat/completionsBearer abchello'
        with pytest.raises(language.ReplyError, match=r'no choices\[0\]'):
            reply_of('', url=url, model='none')
        server.shutdown()
    with pytest.raises(language.ReplyError, match='expected a reply'):
        reply_of('', url=url)
    with pytest.raises(ConfigError, match='NO_KEY is not set'):
        reply_of('', url=url, key_variable='NO_KEY')
    with pytest.raises(ConfigError, match='expected http'):
        reply_of('', url='file:///etc')


LEARNING = ['evolution', 'tpe', 'cma']
WORLDS = range(300, 330)  # fresh: settings were chosen on 200 to 215, evolution was named on 0 to 9


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """(driver, see) -> what it finds in each world [W]; each is run once."""
    done: dict = {}
    def of(name, see=None):
        if (name, see) not in done:
            folder = tmp_path_factory.mktemp(name)
            done[name, see] = np.asarray([found(w, name, folder, see=see) for w in WORLDS])
        return done[name, see]
    return of


@pytest.mark.slow
def test_the_best_driver_beats_random_search_on_fresh_noise(results):
    """40 runs, 30 repeats, paired, one-sided. Only evolution is tested, named before these worlds were looked at."""
    base, p = results('random'), {}
    for name in filter(there, ['grid', 'halving', *LEARNING]):
        values = results(name)
        p[name] = stats.ttest_rel(values, base, alternative='greater').pvalue
        print(f'{name}: {values.mean():.3f}, random {base.mean():.3f}, {np.mean(values - base):+.3f} ± '
              f'{stats.sem(values - base):.3f}, p {p[name]:.5f}')
    assert p['evolution'] < .05


@pytest.mark.slow
@pytest.mark.parametrize('name', available(LEARNING))
def test_with_shuffled_answers_a_driver_is_worth_what_random_search_is(name, results):
    base, values = results('random'), results(name, search.shuffled)
    print(f'{name} shuffled: {values.mean():.3f}, random {base.mean():.3f}, {np.mean(values - base):+.3f} ± '
          f'{stats.sem(values - base):.3f}, two-sided p {stats.ttest_rel(values, base).pvalue:.3f}')
    assert stats.ttest_rel(values, base).pvalue > .05
