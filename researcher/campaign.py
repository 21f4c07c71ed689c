"""A search on a track, as the judge runs it: agents propose, ideas are scored in the sandbox, a ladder answers, and the
leaderboard is kept.

What agents may know is in the notebook, `WORKDIR/search-TRACK.jsonl`. All else (records, the ladder's log, the
leaderboard) is in `private`: a record's own public number, though rounded, would go around the ladder.
"""
import concurrent.futures
import contextlib
import hashlib
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from researcher import journal, ladder, leaderboard, search, tracks
from researcher.engine import Engine
from researcher.idea import Idea, from_delta, parse
from researcher.leaderboard import HOUSE, Gain, Standing
from researcher.record import Record
from researcher.scoring import HALVES
from researcher.space import Delta
from w2s_jax.api import ConfigError, DataError, StoreError, UserError


class IdeaError(UserError):
    """An idea that could not be scored."""


class Plan(NamedTuple):
    """What a search is: its driver with its settings, how many runs all agents have together, how many agents there
    are, and the seed of their proposals. shuffled: drivers see answers of other proposals, the control."""
    driver: str
    budget: int
    agents: int = 1
    seed: int = 0
    shuffled: bool = False
    settings: dict[str, Any] | None = None

    @property
    def budgets(self) -> dict[str, int]:
        """Agent -> runs."""
        share, more = divmod(self.budget, self.agents)
        return {f'agent{i}': share + (i < more) for i in range(self.agents)}


class Campaign:
    """The judge's side of a search in an engine's work directory. The engine has the seeds of the house and hides its
    records."""

    def __init__(self, engine: Engine, plan: Plan, log: Callable[[str], Any] = len):
        check(plan)
        self.engine, self.plan, self.log = engine, plan, log
        place = engine.vault.folder / 'search' / named(engine.track.name)
        self.ladder, self.plans = place / 'ladder.jsonl', place / 'plan.jsonl'
        self.board = board_of(engine.workdir)
        self.notebook = engine.workdir / f'search-{named(engine.track.name)}.jsonl'

    def run(self) -> list[dict]:
        """Searches, or resumes; the notebook's history then. Raises ConfigError for another plan than that of the
        search that is here, StoreError while another process is at it."""
        space = self.engine.track.space(levels=self.plan.driver == 'halving')
        with journal.locked(self.notebook.parent / f'.{self.notebook.name}.on', wait=False):
            self.begin()
            see = search.shuffled if self.plan.shuffled else None
            return search.together(self.ask, space, self.plan.driver, self.plan.budgets, self.notebook, self.plan.seed,
                                   see, self.ahead, **(self.plan.settings or {}))

    def begin(self) -> None:
        """Writes the plan down, or compares it with the one that is there; opens the ladder at naive's rows."""
        now = {**self.plan._asdict(), 'code': self.engine.code}
        old = journal.read(self.plans)
        for name in now if old else ():
            if old[0][name] != now[name]:
                raise ConfigError(f'{name}: {now[name]!r}, but the search in {self.engine.workdir} was begun with '
                                  f'{old[0][name]!r}, expected the same, or another --workdir')
        rules = ladder.RULES._replace(budget=self.plan.budget, total=self.plan.budget)
        ladder.start(self.ladder, self.rows(self.engine.baseline().naive['public']), rules)
        if not old:
            with journal.locked(self.plans) as path:
                journal.append(path, now)

    def ahead(self, points: list[Delta]) -> None:
        """Scores proposals side by side, a process each; a failure is told when its turn comes."""
        ideas = {}
        for point in points:
            with contextlib.suppress(UserError):  # told when it is asked about
                idea = idea_of(point)
                ideas[idea.hash] = idea
        with concurrent.futures.ThreadPoolExecutor(len(ideas) or 1) as pool:
            list(pool.map(self.engine.score, ideas.values()))

    def ask(self, agent: str, point: Delta) -> dict[str, Any]:
        """The ladder's answer, nothing else. Raises IdeaError for what could not be scored, SpentError."""
        idea = idea_of(point)

        def score(_: Delta) -> dict[str, Any]:
            found = scored(self.engine, idea)
            entered(self.board, entry(self.engine, found, idea, agent))
            return {'rows': self.rows(self.engine.rows(found)['public'])}
        asked = idea.delta if not idea.code else {'python': idea.text}
        try:
            said = search.through_ladder(score, self.ladder, agent)(asked)
        except IdeaError as e:
            self.log(f'{agent}: failed: {e}')
            raise
        self.log(f'{agent}: {said["answer"]:.2f}{" improved" * said["improved"]}')
        return said

    def rows(self, right: np.ndarray) -> np.ndarray:
        """What each public row adds to the PGR `[n]`, of whether students answer it right `[S, n]`."""
        base = self.engine.baseline()
        ceiling = base.ceiling['public'].mean(1)
        return ladder.pgr_rows(right, np.broadcast_to(base.weak['public'].mean(1), ceiling.shape), ceiling)


def check(plan: Plan) -> None:
    """Raises ConfigError for a plan that cannot be."""
    for name, low in (('budget', 1), ('agents', 1), ('seed', 0)):
        if getattr(plan, name) < low:
            raise ConfigError(f'--{name}: {getattr(plan, name)}, expected an integer from {low} up')
    if plan.agents > plan.budget:
        raise ConfigError(f'--agents: {plan.agents}, expected at most the budget, {plan.budget}')


def idea_of(point: Delta) -> Idea:
    """The idea that a proposal is: fields, or of a language model a text in Python. Raises ConfigError."""
    return parse('proposal.py', point['python']) if 'python' in point else from_delta(tracks.fields(point))


def scored(engine: Engine, idea: Idea) -> Record:
    """The record of an idea. Raises IdeaError, with its reason, for one without a number."""
    found = engine.score(idea)
    if not found.scored:
        raise IdeaError(found.reason)
    return found


def named(track: str) -> str:
    """A track as part of a file's name."""
    word = re.sub(r'[^A-Za-z0-9.]+', '-', pathlib.PurePath(track).name)
    return word if track == word else f'{word}-{hashlib.sha256(track.encode()).hexdigest()[:8]}'


def board_of(workdir: pathlib.Path) -> pathlib.Path:
    """The journal of the leaderboard."""
    return workdir.absolute() / 'private' / 'leaderboard.jsonl'


def is_on(workdir: pathlib.Path, track: str) -> bool:
    """Whether a search on this track has begun here."""
    return (workdir.absolute() / 'private' / 'search' / named(track) / 'ladder.jsonl').exists()


def entry(engine: Engine, found: Record, idea: Idea, agent: str) -> dict[str, Any]:
    """What the leaderboard has of a record."""
    private = engine.private(found)['private']
    kept = ('id', 'code', 'data', 'guards', 'parameters')
    return {'idea': described(idea), 'idea_hash': idea.hash, 'agent': agent, 'track': engine.track.name,
            'seeds': list(engine.seeds), 'private': private['pgr'], 'naive': private['naive'],
            'alarms': list(found.alarms), 'provenance': {k: found.all[k] for k in kept} | {
                'name': idea.name, 'text': idea.text, 'record': str(found.path.relative_to(engine.workdir))}}


def described(idea: Idea) -> str:
    """An idea in a line: its fields if these are all of it, else the name of its file."""
    short = lambda value: f'{value:.3g}' if isinstance(value, float) else str(value)
    words = [f'{".".join(field.split(".")[-2:])}={short(value)}'
             for field, value in sorted(idea.delta.items(), key=lambda item: (not item[0].endswith('name'), item[0]))]
    return idea.name if idea.code else ' '.join(words) or 'naive'


def entered(board: pathlib.Path, new: dict[str, Any], fresh: bool = False) -> None:
    """Adds an entry (or a confirmation), unless the very same is there: a search that was killed enters it again."""
    kind = 'confirmation' if fresh else 'entry'
    for old in journal.read(board):
        if (old['kind'], old['track'], old['idea_hash'], old.get('private')) == (kind, new['track'], new['idea_hash'],
                                                                                 new['private']):
            return
    (leaderboard.confirm if fresh else leaderboard.submit)(board, new)


def enter(engine: Engine, idea: Idea, agent: str) -> Record:
    """Scores an idea and puts it on the leaderboard, past the ladder: for the judge's own. The record of it."""
    found = engine.score(idea)
    if found.scored:
        entered(board_of(engine.workdir), entry(engine, found, idea, agent))
    return found


def standings(engine: Engine) -> list[Standing]:
    """The leaderboard of a work directory. Raises StoreError for an entry whose numbers are not those that were signed
    here."""
    records = journal.read(board_of(engine.workdir))
    for one in records:
        if one['kind'] in ('entry', 'confirmation'):
            value = engine.vault.read(f'scores/{one["provenance"]["id"]}')
            if value is None or [value['private']['pgr'], value['private']['naive']] != [one['private'], one['naive']]:
                raise StoreError(f'{board_of(engine.workdir)}: {one["provenance"]["id"]} is not what was scored here, '
                                 'expected no changes')
    return leaderboard.standings(records)


def confirm(engine: Engine) -> list[str]:
    """Scores with fresh seeds what is due on the engine's track; why each that failed did. engine: of fresh seeds."""
    failed = []
    for row in leaderboard.due([r for r in standings(engine) if r.record['track'] == engine.track.name]):
        idea = idea_in(row)
        try:
            entered(board_of(engine.workdir), entry(engine, scored(engine, idea), idea, row.record['agent']), True)
        except IdeaError as e:
            failed.append(f'{idea.hash}: {e}')
    return failed


def idea_in(row: Standing) -> Idea:
    """The idea of an entry."""
    given = row.record['provenance']
    return parse(given['name'], given['text'])


def final(engine: Engine) -> dict[str, Any]:
    """The first of the engine's track on the third data set, which is used this once: {'idea_hash', 'pgr', 'naive'},
    lists over seeds, means of both halves. Raises DataError if nobody has a rank, ConfigError if it was used for
    another idea."""
    first = next((r for r in standings(engine) if r.rank == 1 and r.record['track'] == engine.track.name), None)
    if first is None:
        raise DataError(f'--final: no idea of {engine.track.name} has a rank, expected one (see --confirm)')
    name, idea = f'search/final-{named(engine.track.name)}', idea_in(first)
    found = engine.vault.read(name)
    if found is None:
        value = engine.final(idea)
        both = {k: [float(np.mean(pair)) for pair in zip(*(value[half][k] for half in HALVES), strict=True)]
                for k in ('pgr', 'naive')}
        (engine.vault.folder / 'search').mkdir(mode=0o700, exist_ok=True)
        engine.vault.write(name, {'idea_hash': idea.hash} | both)
        found = {'idea_hash': idea.hash} | both
    if found['idea_hash'] != idea.hash:
        raise ConfigError(f'--final: the third data set was used for {found["idea_hash"]}, {idea.hash} is first now; '
                          'expected the same, it is used once')
    return found


def gain_of(found: dict[str, Any]) -> Gain:
    """What `final` found, as a gain over naive paired by seed."""
    return leaderboard.gains([[a - b for a, b in zip(found['pgr'], found['naive'], strict=True)]], HOUSE.level)[0]

