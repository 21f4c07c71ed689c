"""Answers about the public half that do not wear it out: a ladder with a step, noise, a budget and a log.

Two mechanisms were at hand. Noise on every answer alone (Dwork et al. 2015, arXiv 1506.02629) does not do here: with
1000 rows, a gap of .2 and 200 queries, noise that keeps boosting below .03 PGR is larger than most true differences.
A ladder (Blum and Hardt 2015, arXiv 1502.04585) tells what is no better than the best so far nothing but that, so there
are few transcripts to overfit with. This is theirs without a free parameter, where the step follows from the standard
error of the paired difference, with three changes:

- the step is that of a test at `alpha` corrected for all queries of a round, so that the best of many null ideas passes
  in about `alpha` of rounds;
- the comparison is noisy by several times what one row is worth, so that a query at the edge of the step tells next to
  nothing about a row; the noise hangs on a secret key and the rows alone: to ask again gives the same answer;
- rows that decide (`share` of them) are not those whose mean is shown, so that what is shown has no winner's curse.

The log holds the key and rows: it belongs to the house, and no agent may read it.
"""
import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from researcher import journal
from w2s_jax.api import ConfigError, DataError, StoreError, UserError


class SpentError(UserError):
    """A budget of queries that is used up."""


class Rules(NamedTuple):
    """budget: queries per agent and round.  total: those of all agents in a round, as names of agents are cheap.
    alpha: level of the step, corrected for `total`.  noise: standard deviation of the comparison's noise, PGR;
    flips: its least value in rows (what a right answer to one row adds).  share: of rows that decide.  unit: answers
    are rounded to it, PGR."""
    budget: int = 200
    total: int = 1000
    alpha: float = .05
    noise: float = .01
    flips: float = 4
    share: float = 2 / 3
    unit: float = .01


RULES = Rules()


class Answer(NamedTuple):
    """answer: the public PGR of the best idea so far, rounded.  improved: whether the query became that.
    left: queries of this agent in this round."""
    answer: float
    improved: bool
    left: int


class State(NamedTuple):
    """best: rows [n] of the best query so far, of naive at first.  spent: (round, agent) -> queries.
    answers: query -> its record."""
    rules: Rules
    key: bytes
    best: np.ndarray
    spent: dict[tuple[int, str], int]
    answers: dict[str, dict]


def pgr_rows(right, weak, ceiling) -> np.ndarray:
    """What each test row adds to the PGR, [n]; the mean over rows is the PGR, averaged over seeds.

    Args:
      right: whether a student of seed s is right in row i, [S, n].
      weak: accuracy of the weak model per seed on the same rows, [S].
      ceiling: that of the ceiling.
    Raises DataError if a gap is not positive.
    """
    right, weak, ceiling = (np.asarray(a, np.float64) for a in (right, weak, ceiling))
    if not np.all(ceiling > weak):
        raise DataError(f'gap: ceiling {ceiling.tolist()} and weak {weak.tolist()}, expected ceiling > weak per seed')
    return ((right - weak[:, None]) / (ceiling - weak)[:, None]).mean(0)


def deciding(key: bytes, n: int, share: float) -> np.ndarray:
    """Which of n rows decide, as booleans [n]; the others are shown. Secret as the key is."""
    mask = np.zeros(n, bool)
    mask[_rng(key, b'split').permutation(n)[:round(share * n)]] = True
    return mask


def improves(rows: np.ndarray, best: np.ndarray, mask: np.ndarray, noise: float, rules: Rules) -> bool:
    """Whether rows [n] are better than the best so far by more than the step, and not worse where they are shown.

    Args:
      mask: the rows that decide, [n].
      noise: a standard normal number.
    """
    difference = rows - best
    decides = difference[mask]
    spread = max(rules.noise, rules.flips * float(np.ptp(rows)) / len(decides))
    error = np.hypot(decides.std() / np.sqrt(len(decides)), spread)
    step = stats.norm.isf(rules.alpha / rules.total) * error
    return bool(decides.mean() + spread * noise > step and difference[~mask].mean() > 0)


def shown(state: State) -> float:
    """The answer as long as nothing improves: the rounded mean of the best over the rows that do not decide."""
    mean = state.best[~deciding(state.key, len(state.best), state.rules.share)].mean()
    return round(round(float(mean) / state.rules.unit) * state.rules.unit, 10)


def answered(state: State, agent: str, round_: int, query: str, rows: np.ndarray) -> tuple[State, dict]:
    """The state after a new query, and the record of it. Raises SpentError."""
    check_budget(state, agent, round_)
    mask = deciding(state.key, len(rows), state.rules.share)
    better = improves(rows, state.best, mask, float(_rng(state.key, rows.tobytes()).standard_normal()), state.rules)
    after = state._replace(best=rows if better else state.best)
    record: dict[str, Any] = {'agent': agent, 'round': round_, 'query': query, 'improved': better,
                              'answer': shown(after)} | ({'rows': _packed(rows)} if better else {})
    return _counted(after, record), record


def replay(records: Iterable[dict]) -> State:
    """The state that a log leads to; a pure fold. Raises StoreError if the log was not opened."""
    opened, *rest = [*records] or [{}]
    if 'key' not in opened:
        raise StoreError('the log of the ladder: no first line, expected ladder.start(path, rows) before any query')
    state = State(Rules(**opened['rules']), bytes.fromhex(opened['key']), _unpacked(opened['rows']), {}, {})
    for record in rest:
        best = _unpacked(record['rows']) if record['improved'] else state.best
        state = _counted(state._replace(best=best), record)
    return state


def start(path: str | Path, rows, rules: Rules = RULES, key: bytes | None = None) -> None:
    """Opens the log of a ladder, readable by its owner alone, unless it is open already.

    Args:
      rows: naive's rows, [n] (`pgr_rows`): what the first query has to beat.
      key: 16 secret bytes, made here if None.
    Raises ConfigError for rules that cannot be, DataError for rows.
    """
    _check_rules(rules)
    with journal.locked(path) as path:
        if journal.read(path):
            return
        path.touch(0o600)
        journal.append(path, {'rules': rules._asdict(), 'key': (key or os.urandom(16)).hex(),
                              'rows': _packed(_checked(rows, None))})


def ask(path: str | Path, agent: str, round_: int, query: str, rows) -> Answer:
    """Answers a query and logs it before; safe for several processes, and for being killed.

    Args:
      query: the hash of idea, config and data. One that was asked before has the same answer and costs nothing.
      rows: what each public row adds to the PGR, [n] (`pgr_rows`).
    Raises SpentError, DataError (rows that are not finite or not [n]), StoreError.
    """
    with journal.locked(path) as path:
        state = replay(journal.read(path))
        record = state.answers.get(query)
        if record is None:
            state, record = answered(state, agent, round_, query, _checked(rows, len(state.best)))
            journal.append(path, record)
        return Answer(record['answer'], record['improved'], left(state, agent, round_))


def state_of(path: str | Path) -> State:
    """The state of a log now. Raises StoreError if it was not opened."""
    with journal.locked(path) as path:
        return replay(journal.read(path))


def left(state: State, agent: str, round_: int) -> int:
    """How many queries an agent may still make in a round; to be asked before an idea is trained."""
    everyone = sum(n for (r, _), n in state.spent.items() if r == round_)
    return max(0, min(state.rules.budget - state.spent.get((round_, agent), 0), state.rules.total - everyone))


def check_budget(state: State, agent: str, round_: int) -> None:
    """Raises SpentError if there is no query left."""
    if not left(state, agent, round_):
        raise SpentError(f'agent {agent!r}, round {round_}: no query left, expected at most {state.rules.budget} per '
                         f'agent and {state.rules.total} of all; the next round has new ones')


def _counted(state: State, record: dict) -> State:
    who = record['round'], record['agent']
    return state._replace(spent=state.spent | {who: state.spent.get(who, 0) + 1},
                          answers=state.answers | {record['query']: record})


def _check_rules(rules: Rules) -> None:
    for name in ('budget', 'total', 'noise', 'unit'):
        if not getattr(rules, name) > 0:
            raise ConfigError(f'{name}: {getattr(rules, name)}, expected a number > 0')
    for name in ('alpha', 'share'):
        if not 0 < getattr(rules, name) < 1:
            raise ConfigError(f'{name}: {getattr(rules, name)}, expected a number in (0, 1)')


def _checked(rows, n: int | None) -> np.ndarray:
    rows = np.ascontiguousarray(rows, np.float64)
    if rows.ndim != 1 or len(rows) < 10 or (n is not None and len(rows) != n):
        raise DataError(f'rows: of shape {list(rows.shape)}, expected [{n or "n, at least 10"}]')
    if not np.isfinite(rows).all():
        raise DataError(f'rows: {int((~np.isfinite(rows)).sum())} are not finite, expected numbers')
    return rows


def _rng(key: bytes, what: bytes) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key + what).digest()[:16], 'big'))


def _packed(rows: np.ndarray) -> str:
    return base64.b64encode(rows.astype('<f8').tobytes()).decode()


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), '<f8').astype(np.float64)
