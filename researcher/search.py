"""An agent at work: it proposes, has its proposal scored, writes down the answer, and goes on; killed, it resumes.

Agents share a notebook, a journal of proposals, answers and failures. A proposal is written before it is run, with how
much of the notebook its driver saw: so it can be made again from the notebook alone, and one whose run was killed is
run again, not made anew.
"""
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from researcher import drivers, journal, ladder
from researcher import space as spaces
from researcher.space import Delta, Space
from w2s_jax.api import UserError

Score = Callable[[Delta], dict[str, Any]]  # 'rows': what each public row adds to the PGR, [n]
Ask = Callable[[Delta], dict[str, Any]]  # 'answer', and of a ladder 'improved'
See = Callable[[list[dict], np.random.Generator], list[dict]] | None


def through_ladder(score: Score, path: str | Path, agent: str, round_: int = 0) -> Ask:
    """`ask(delta)` by a ladder's log: the budget is looked at before anything is scored, and what was asked before is
    not scored again. It raises SpentError."""
    def ask(delta: Delta) -> dict[str, Any]:
        query, state = query_of(delta), ladder.state_of(path)
        if (old := state.answers.get(query)) is not None:
            return {k: old[k] for k in ('answer', 'improved')}
        ladder.check_budget(state, agent, round_)
        answer = ladder.ask(path, agent, round_, query, score(delta)['rows'])
        return {'answer': answer.answer, 'improved': answer.improved}
    return ask


def query_of(delta: Delta) -> str:
    """The hash of a proposal."""
    return hashlib.sha256(json.dumps(delta, sort_keys=True).encode()).hexdigest()


def history(records: Iterable[dict]) -> list[dict]:
    """The entries of a notebook: those that are answered in the order of their answers, then those at work or failed,
    whose answer is None."""
    found = {(r['agent'], r['number']): r for r in records if r['kind'] == 'proposal'}
    entries = {who: {k: r[k] for k in ('agent', 'number', 'delta')} | {'answer': None} for who, r in found.items()
               if r['delta'] is not None}
    answered = [entries.pop((r['agent'], r['number'])) | r['said'] for r in records if r['kind'] == 'answer']
    return [*answered, *entries.values()]


def search(ask: Ask, space: Space, driver: str, agent: str, notebook: str | Path, runs: float, seed: int = 0,
           see: See = None, **settings) -> list[dict]:
    """Runs an agent until it has spent `runs`, or its queries; the history of the notebook then.

    Args:
      ask: answers a proposal: {'answer': float, 'improved': bool}.
      runs: at the last level of the space; cheaper levels count by their share, a proposal that failed as one.
      see: what becomes of the history before the driver sees it (controls shuffle it).
    Raises ConfigError for a driver or a space that is none.
    """
    notebook = Path(notebook)
    while (number := _next(journal.read(notebook), agent, space, runs)) is not None:
        record = _proposed(notebook, space, driver, agent, number, seed, see, settings)
        if not _answered(notebook, record, lambda _, delta: ask(delta)):
            break
    return history(journal.read(notebook))


def together(ask: Callable[[str, Delta], dict[str, Any]], space: Space, driver: str, budgets: dict[str, int],
             notebook: str | Path, seed: int = 0, see: See = None,
             ahead: Callable[[list[Delta]], Any] = len, **settings) -> list[dict]:
    """Runs several agents in rounds until each has spent its budget; the history of the notebook then.

    In a round every agent proposes by what was known when it began; then all are answered, in order. So the notebook
    hangs on the seed alone, and one that was killed anywhere resumes to the same notebook, whoever was faster.

    Args:
      ask: (agent, delta) -> its answer.  budgets: agent -> runs.  ahead: is given the proposals of a round before the
        first of them is asked about, to work on them side by side.  The others: as of `search`.
    """
    notebook = Path(notebook)
    while True:
        records = journal.read(notebook)
        open_ = {a: n for a, runs in budgets.items() if (n := _next(records, a, space, runs)) is not None}
        if not open_:
            return history(records)
        now = min(open_.values())
        made = {a: _proposed(notebook, space, driver, a, n, seed, see, settings) for a, n in open_.items() if n == now}
        ahead([record['delta'] for record in made.values() if record['delta'] is not None])
        for record in made.values():
            if not _answered(notebook, record, ask):
                return history(journal.read(notebook))


def _answered(notebook: Path, record: dict, ask: Callable[[str, Delta], dict[str, Any]]) -> bool:
    """Asks about a proposal and writes down what was said, or why it failed; False if there is no query left."""
    outcome: dict[str, Any]
    try:
        outcome = {'kind': 'failure', 'reason': record['reason']} if record['delta'] is None else \
            {'kind': 'answer', 'said': ask(record['agent'], record['delta'])}
    except ladder.SpentError:
        return False
    except UserError as e:
        outcome = {'kind': 'failure', 'reason': str(e)}
    _write(notebook, {k: record[k] for k in ('agent', 'number')} | outcome)
    return True


def shuffled(entries: list[dict], rng: np.random.Generator) -> list[dict]:
    """The same proposals with each other's answers: the control, by which a driver is worth what random search is."""
    there = [i for i, e in enumerate(entries) if e['answer'] is not None]
    out = [dict(e) for e in entries]
    for i, j in zip(there, rng.permutation(there), strict=True):
        out[i] |= {k: entries[j][k] for k in ('answer', 'improved') if k in entries[j]}
    return out


def _next(records: list[dict], agent: str, space: Space, runs: float) -> int | None:
    """The number of the agent's proposal that is to be run, None if all runs are spent."""
    own = [r for r in records if r['agent'] == agent]
    proposals = {r['number']: r for r in own if r['kind'] == 'proposal'}
    done = {r['number'] for r in own if r['kind'] != 'proposal'}
    spent = sum(_cost(space, proposals[n]['delta']) for n in done if n in proposals)
    if spent >= runs - 1e-9:
        return None
    return next((n for n in proposals if n not in done), len(proposals))


def _cost(space: Space, delta: Delta | None) -> float:
    return 1. if delta is None or not {*space} <= {*delta} else spaces.cost(space, delta)


def _proposed(notebook: Path, space: Space, driver: str, agent: str, number: int, seed: int, see, settings) -> dict:
    """The record of that proposal, written down unless it is; of no proposal delta is None, and `reason` says why."""
    records = journal.read(notebook)
    for record in records:
        if (record['kind'], record['agent'], record['number']) == ('proposal', agent, number):
            return record
    rng = np.random.default_rng([seed, zlib.crc32(agent.encode()), number])
    seen = history(records) if see is None else see(history(records), np.random.default_rng([*rng.bytes(8)]))
    made = {'kind': 'proposal', 'agent': agent, 'number': number, 'seen': len(records), 'driver': driver}
    try:
        delta = drivers.propose(driver, space, seen, rng, **settings)
    except drivers.language.ReplyError as e:
        made |= {'delta': None, 'reason': str(e)}
    else:
        made |= {'delta': delta}
    _write(notebook, made)
    return made


def _write(notebook: Path, record: dict) -> None:
    with journal.locked(notebook) as path:
        journal.append(path, record)
