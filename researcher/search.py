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
           see: Callable[[list[dict], np.random.Generator], list[dict]] | None = None, **settings) -> list[dict]:
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
        if record['delta'] is None:
            continue
        try:
            outcome = {'kind': 'answer', 'said': ask(record['delta'])}
        except ladder.SpentError:
            break
        except UserError as e:
            outcome = {'kind': 'failure', 'reason': str(e)}
        _write(notebook, {'agent': agent, 'number': number} | outcome)
    return history(journal.read(notebook))


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
    """The record of that proposal, written down unless it is; of no proposal (delta None) its failure too."""
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
        _write(notebook, made | {'delta': None},
               {'kind': 'failure', 'agent': agent, 'number': number, 'reason': str(e)})
        return made | {'delta': None}
    _write(notebook, made | {'delta': delta})
    return made | {'delta': delta}


def _write(notebook: Path, *records: dict) -> None:
    with journal.locked(notebook) as path:
        for record in records:
            journal.append(path, record)
