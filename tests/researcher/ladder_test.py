"""What the ladder answers, its log, and attacks on it, each beside an evaluator that it succeeds against."""
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from researcher import journal, ladder
from w2s_jax.errors import ConfigError, DataError, StoreError

N, WEAK, CEILING = 1000, .75, .95
KEY = bytes(range(16))


class World(NamedTuple):
    """A student on N public and N private rows: how sure it is to be right, [2N], and whether it is, [2N]."""
    sure: np.ndarray
    right: np.ndarray


def world(seed: int) -> World:
    """Four rows of ten are uncertain, so that the student is right in .84."""
    rng = np.random.default_rng(seed)
    sure = np.where(rng.random(2 * N) < .4, rng.uniform(.5, .75, 2 * N), .98)
    return World(sure, rng.random(2 * N) < sure)


def pgr(right) -> np.ndarray:
    return ladder.pgr_rows(np.asarray(right, float)[None], [WEAK], [CEILING])


def ladder_on(right, seed=0, **rules) -> ladder.State:
    return ladder.State(ladder.Rules(**rules), seed.to_bytes(16, 'big'), pgr(right), {}, {})


class Ladder:
    """Answers queries [N] by the ladder, and keeps what was best."""

    def __init__(self, right, seed, **rules):
        self.state, self.best, self.right = ladder_on(right, seed, **rules), np.zeros(N, bool), right
        self.start = ladder.shown(self.state)

    def __call__(self, flips) -> tuple[float, bool]:
        self.state, record = ladder.answered(self.state, 'a', 0, flips.tobytes().hex(), pgr(self.right ^ flips))
        self.best = flips.copy() if record['improved'] else self.best
        return record['answer'], record['improved']


class Exact:
    """Answers with the PGR as it is: what the attacks succeed against."""

    def __init__(self, right, seed=0):
        self.best, self.right, self.start = np.zeros(N, bool), right, pgr(right).mean()
        self.most = self.start

    def __call__(self, flips) -> tuple[float, bool]:
        value = pgr(self.right ^ flips).mean()
        better = value > self.most + 1e-9
        self.best, self.most = (flips.copy(), value) if better else (self.best, self.most)
        return value, better


def one_flips(evaluator, sure, budget=200) -> int:
    """Labels that are learnt by flipping one least certain row after the other: those that an answer tells."""
    learnt = 0
    for row in np.argsort(sure[:N])[:budget]:
        flips = np.zeros(N, bool)
        flips[row] = True
        value, _ = evaluator(flips)
        learnt += (value > evaluator.start + 1e-9) == (not evaluator.right[row]) if value != evaluator.start else 0
    return int(learnt)


def boosted(evaluator, sure, rng, budget=200) -> np.ndarray:
    """Blum and Hardt's attack: random flips of what is least certain, a majority of those that are answered better than
    the median, and the best on the way; the flips [N] that it ends with."""
    rows, votes, answers = np.argsort(sure[:N])[:400], [], []
    for _ in range(budget - 1):
        flips = evaluator.best.copy()
        flips[rows[rng.random(400) < .3]] ^= True
        answers.append(evaluator(flips)[0])
        votes.append(flips)
    better = np.asarray(answers) > np.median(answers)
    if not better.any():
        return evaluator.best
    share = np.asarray(votes)[better].mean(0) - np.asarray(votes)[~better].mean(0)
    evaluator(share > 0)
    return evaluator.best


def climbing(seed, budget=200, effect=.02) -> tuple[float, float, float]:
    """An honest agent: every idea changes a sixth of the rows of the best for better or worse, on both halves alike.
    The ladder's last answer, the public and the private PGR of the best."""
    rng, (sure, right) = np.random.default_rng(seed), world(seed)
    state = ladder_on(right[:N], seed)
    for query in range(budget):
        change = rng.random(2 * N) < 1 / 6
        new = np.where(change, np.clip(sure.mean() + 6 * rng.normal(0, effect), 0, 1), sure)
        proposal = np.where(change, rng.random(2 * N) < new, right)
        state, record = ladder.answered(state, 'a', 0, str(query), pgr(proposal[:N]))
        sure, right = (new, proposal) if record['improved'] else (sure, right)
    return ladder.shown(state), pgr(right[:N]).mean(), pgr(right[N:]).mean()


def at_the_edge(seed, margin, budget=200) -> float:
    """Labels beyond guessing that an attacker learns who knows the ladder's key, and all labels but those it asks for:
    it comes with a query that misses the step by `margin` standard deviations of the noise, flips one unknown row, and
    takes an improvement for a right flip."""
    rng, right = np.random.default_rng(seed), world(seed).right[:N]
    state, unknown = ladder_on(right, seed), rng.permutation(N)
    mask = ladder.deciding(state.key, N, state.rules.share)
    unknown = [r for r in unknown if mask[r]][:budget]
    truth = rng.random(budget) < .5  # whether the flip of the row would be right
    reserve = [r for r in np.flatnonzero(~right) if r not in unknown]
    row = 1 / (CEILING - WEAK)
    spread = state.rules.flips * row / mask.sum()
    wanted = (stats.norm.isf(state.rules.alpha / state.rules.total) * np.sqrt(2) - margin) * spread
    learnt = 0.
    for number, is_right in enumerate(truth):
        rows, fixed = state.best.copy(), 0
        todo = [r for r in reserve if rows[r] < 0]
        while fixed < len(todo) and (rows - state.best)[mask].mean() < wanted:
            rows[todo[fixed]] += row
            fixed += 1
        rows[unknown[number]] += row / 2 if is_right else -row / 2
        state, record = ladder.answered(state, 'a', 0, str(number), rows)
        learnt += (record['improved'] == is_right) - .5
    return learnt


def difference(seeds, attack) -> np.ndarray:
    """[seeds, 2]: the ladder's answer, and the public PGR, minus the private PGR of what an attack ended with. A flip
    that was chosen by public rows is for private rows one of rows that are as sure."""
    found = []
    for seed in seeds:
        sure, right = world(seed)
        evaluator = Ladder(right[:N], seed)
        flips = attack(evaluator, sure, np.random.default_rng(seed))
        private = pgr(np.where(flips, 1 - sure[:N], sure[:N])).mean()
        found.append([ladder.shown(evaluator.state) - private, pgr(right[:N] ^ flips).mean() - private])
    return np.asarray(found)


def below(values, limit) -> bool:
    """Whether the mean is below the limit, by its one-sided 95 % bound."""
    return np.mean(values) + 1.645 * stats.sem(values) < limit


def test_rows_add_up_to_the_pgr():
    rows = ladder.pgr_rows([[1, 1, 0, 1], [1, 0, 1, 1]], [.5, .25], [1., 1.])
    assert rows.mean() == pytest.approx(np.mean([(.75 - .5) / .5, (.75 - .25) / .75]))
    with pytest.raises(DataError, match='ceiling > weak'):
        ladder.pgr_rows([[1, 0]], [.5], [.5])


def test_what_is_clearly_better_is_shown_by_the_rows_that_did_not_decide():
    right = np.arange(N) % 4 > 0
    ask = Ladder(right, 1)
    shown = ~ladder.deciding(ask.state.key, N, 2 / 3)
    assert ask.start == pytest.approx(pgr(right)[shown].mean(), abs=.0051)
    assert 300 < shown.sum() < 350
    better = np.flatnonzero(~right)[:150]
    flips = np.zeros(N, bool)
    flips[better] = True
    answer, improved = ask(flips)
    assert improved and answer == pytest.approx(pgr(right | flips)[shown].mean(), abs=.0051)
    assert answer == round(answer, 2)
    assert ask(np.ones(N, bool)) == (answer, False)  # what is worse tells no more than that


def test_a_small_step_is_none_and_noise_comes_once():
    state = ladder_on(np.arange(N) % 4 > 0)
    rows = state.best.copy()
    rows[np.flatnonzero(rows < 0)[:4]] += 5
    records = [ladder.answered(state, 'a', 0, str(q), rows)[1] for q in range(30)]
    assert {(r['improved'], r['answer']) for r in records} == {(False, ladder.shown(state))}


def test_the_step_is_that_of_a_test_at_its_level():
    """Queries that are as good as the best pass as often as the level says; noise and sampling both count."""
    rng, rules = np.random.default_rng(0), ladder.Rules(alpha=.2, total=1, noise=.02)
    mask, base = np.arange(N) % 3 > 0, rng.normal(0, 1, N)
    passed = np.mean([ladder.improves(base + rng.normal(0, 1, N), base, mask, rng.standard_normal(), rules)
                      for _ in range(1000)])
    assert passed == pytest.approx(.1, abs=.025)  # the rows that do not decide have to agree, which half do


def test_budgets_are_of_an_agent_and_of_all_in_a_round(tmp_path):
    path, rows = tmp_path / 'ladder.jsonl', pgr(np.arange(20) % 4 > 0)
    ladder.start(path, rows, ladder.Rules(budget=2, total=3))
    assert [ladder.ask(path, 'a', 0, q, rows).left for q in ('x', 'y')] == [1, 0]
    with pytest.raises(ladder.SpentError, match='no query left, expected at most 2 per'):
        ladder.ask(path, 'a', 0, 'z', rows)
    assert ladder.ask(path, 'a', 0, 'x', rows).left == 0  # asked before
    assert ladder.ask(path, 'b', 0, 'z', rows).left == 0
    with pytest.raises(ladder.SpentError):
        ladder.ask(path, 'c', 0, 'w', rows)
    assert ladder.ask(path, 'a', 1, 'w', rows).left == 1


@pytest.mark.parametrize(('rows', 'said'), [(np.ones(3), r'expected \[20'), (np.full(20, np.nan), '20 are not finite')])
def test_rows_that_cannot_be_are_refused_and_cost_nothing(tmp_path, rows, said):
    path = tmp_path / 'ladder.jsonl'
    with pytest.raises(StoreError, match='expected ladder'):
        ladder.ask(path, 'a', 0, 'x', rows)
    ladder.start(path, np.ones(20))
    with pytest.raises(DataError, match=said):
        ladder.ask(path, 'a', 0, 'x', rows)
    assert ladder.left(ladder.state_of(path), 'a', 0) == 200


@pytest.mark.parametrize('rules', [{'budget': 0}, {'alpha': 1.}, {'share': 0.}])
def test_rules_that_cannot_be_are_refused(tmp_path, rules):
    with pytest.raises(ConfigError, match=next(iter(rules))):
        ladder.start(tmp_path / 'ladder.jsonl', np.ones(20), ladder.Rules(**rules))


def queries(n=24, rows=60):
    rng = np.random.default_rng(3)
    return [(f'q{i}', np.where(rng.random(rows) < min(1., .05 + .05 * i), 5., -5.)) for i in range(n)]


def asked(path, some):
    ladder.start(path, np.full(60, -5.), ladder.Rules(noise=.001, flips=.1), KEY)
    return [ladder.ask(path, 'a', 0, query, rows) for query, rows in some]


def test_a_log_cut_anywhere_leads_to_the_same_log(tmp_path):
    whole = tmp_path / 'whole.jsonl'
    answers = asked(whole, queries())
    assert sum(a.improved for a in answers) >= 2 and not all(a.improved for a in answers)
    text = whole.read_bytes()
    for cut in np.random.default_rng(0).integers(0, len(text), 25):
        path = tmp_path / f'{cut}.jsonl'
        path.write_bytes(text[:cut])
        assert [a[:2] for a in asked(path, queries())] == [a[:2] for a in answers]
        assert path.read_bytes() == text


def test_a_line_that_is_damaged_is_named(tmp_path):
    path = tmp_path / 'log.jsonl'
    path.write_text('{"a": 1}\nnothing\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"log.jsonl, line 2: 'nothing', expected a JSON object"):
        journal.read(path)
    with journal.locked(path), pytest.raises(DataError, match='finite'):
        journal.append(path, {'a': float('nan')})


ASKING = """
import sys, numpy as np
from researcher import ladder
for i in range(1000):
    try:
        ladder.ask(sys.argv[1], sys.argv[2], 0, f'{sys.argv[2]}{i}', np.ones(20))
    except ladder.SpentError:
        break
"""


def start_asking(path, agent):
    return subprocess.Popen([sys.executable, '-c', ASKING, str(path), agent], env={**os.environ, 'PYTHONPATH': '.'})


@pytest.mark.long
def test_agents_in_parallel_and_killed_ones_never_go_beyond_the_budget(tmp_path):
    path = tmp_path / 'ladder.jsonl'
    ladder.start(path, np.ones(20), ladder.Rules(budget=60, total=100))
    killed = start_asking(path, 'a')
    while len(journal.read(path)) < 10:
        time.sleep(.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for done in [start_asking(path, agent) for agent in 'abc']:
        assert done.wait() == 0
    spent = [r['agent'] for r in journal.read(path)[1:]]
    assert len(spent) == 100 and max(spent.count(a) for a in 'abc') <= 60


@pytest.mark.parametrize('seed', range(3))
def test_one_flip_queries_learn_no_label_by_the_ladder_and_all_without(seed):
    sure, right = world(seed)
    assert one_flips(Exact(right[:N]), sure) == 200
    assert one_flips(Ladder(right[:N], seed), sure) <= N // 100


def test_boosting_gains_by_exact_answers_and_nothing_by_the_ladder():
    sure, right = world(0)
    exact = Exact(right[:N])
    assert pgr(right[:N] ^ boosted(exact, sure, np.random.default_rng(0))).mean() > exact.start + .1
    assert np.abs(difference(range(3), boosted)).max() < .2


@pytest.mark.slow
def test_an_attacker_who_knows_the_key_and_stays_at_the_edge_learns_at_most_one_percent():
    for margin in (0, 1, 1.6, 2.2):
        learnt = [at_the_edge(seed, margin) for seed in range(40)]
        print(f'margin {margin}: {np.mean(learnt):.2f} ± {stats.sem(learnt):.2f} of {N} labels')
        assert below(learnt, N / 100)


def thresholds(evaluator, sure, rng):
    """Flips all rows below a threshold of certainty, 200 of them; ends with the best."""
    for count in np.linspace(2, 400, 200).astype(int):
        flips = np.zeros(N, bool)
        flips[np.argsort(sure[:N])[:count]] = True
        evaluator(flips)
    return evaluator.best


def majority(evaluator, sure, rng):
    """Answers with the most common class, of which there are six in ten."""
    truth = rng.random(N) < .6
    evaluator(evaluator.right ^ truth)
    return evaluator.best


@pytest.mark.slow
@pytest.mark.parametrize('attack', [boosted, thresholds, majority])
def test_attacks_gain_nothing_on_the_private_half(attack):
    found = difference(range(60), attack)
    gains = []
    for seed in range(60):
        sure, right = world(seed)
        flips = attack(Ladder(right[:N], seed), sure, np.random.default_rng(seed))
        gains.append((pgr(np.where(flips, 1 - sure[:N], sure[:N])) - pgr(sure[:N])).mean())
    print(f'{attack.__name__}: answer - private {found[:, 0].mean():.3f} ± {stats.sem(found[:, 0]):.3f}, '
          f'public - private {found[:, 1].mean():.3f}, gain on private {np.mean(gains):.3f}')
    assert np.mean(gains) <= 1e-9
    assert below(found[:, 0], .03) and below(found[:, 1], .03)


@pytest.mark.slow
def test_after_200_adaptive_queries_the_answer_is_not_above_the_private_half():
    found = np.asarray([climbing(seed) for seed in range(150)])
    answer, public = found[:, 0] - found[:, 2], found[:, 1] - found[:, 2]
    print(f'honest: answer - private {answer.mean():.3f} ± {stats.sem(answer):.3f}, public - private '
          f'{public.mean():.3f}, private {found[:, 2].mean():.2f}')
    assert below(answer, .03) and found[:, 2].mean() > .5
    assert public.mean() > .03  # what an evaluator would show that shows the rows which decide


def test_at_the_edge_of_the_step_noise_decides_and_is_worth_four_rows():
    rules, base, mask = ladder.Rules(alpha=.05, total=1, noise=.001), np.arange(100) % 2 * 1., np.arange(100) < 67
    edge = 1.645 * 4 / 67
    assert ladder.improves(base + edge, base, mask, .2, rules)
    assert not ladder.improves(base + edge, base, mask, -.2, rules)
