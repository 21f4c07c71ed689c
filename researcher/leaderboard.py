"""Who is better than the plain method beyond noise, by a journal of entries; and what keeps luck out of it.

An idea is scored once, on the private half, with the seeds of the house, paired with naive's score of the same seeds.
Submitting it again adds no draw: its hash has one record. Each hash that was ever scored counts in Holm's correction,
so variants with other constants cost. What passes is scored once more with fresh seeds, and ranked by these alone: they
took no part in choosing it, so the best of many is not flattered. An open alarm takes the rank away.
"""
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from researcher import journal
from w2s_jax.api import ConfigError, DataError, holm

LEAST = 10  # paired seeds
NOT_REPRODUCED = 'not_reproduced'


class House(NamedTuple):
    """seeds: of every entry.  fresh: of confirmations.  level: of tests and of one-sided bounds.  confirmed: how many
    entries of a track, the first that passed, may be scored with fresh seeds."""
    seeds: tuple[int, ...] = tuple(range(LEAST))
    fresh: tuple[int, ...] = tuple(range(1000, 1000 + LEAST))
    level: float = .05
    confirmed: int = 5


HOUSE = House()


class Gain(NamedTuple):
    """Over naive, PGR, paired by seed.  low: one-sided bound of a t interval.  p: one-sided, adjusted by Holm."""
    mean: float
    low: float
    p: float


class Standing(NamedTuple):
    """An idea on a track.  record: its first.  gain: by the seeds of the house.  confirmed: by fresh ones, or None.
    alarms: open ones.  repeats: how often it was submitted again.  status: why it has no rank.  rank: from 1, or None.
    """
    record: dict
    gain: Gain
    confirmed: Gain | None
    alarms: tuple[str, ...]
    repeats: int
    status: str
    rank: int | None


def gains(differences: list[list[float]], level: float) -> list[Gain]:
    """A gain of each list of paired differences; they are one family of tests.

    Equal differences have no spread to test by: p is 0 or 1.
    """
    if not differences:
        return []
    mean, n = np.asarray([np.mean(d) for d in differences]), np.asarray([len(d) for d in differences])
    error = np.asarray([np.std(d, ddof=1) for d in differences]) / np.sqrt(n)
    t = np.divide(mean, error, out=np.where(mean > 0, np.inf, -np.inf), where=error > 1e-12)
    low = mean - stats.t.isf(level, n - 1) * error
    return [Gain(*map(float, g)) for g in zip(mean, low, holm(stats.t.sf(t, n - 1)), strict=True)]


def standings(records: Iterable[dict], house: House = HOUSE) -> list[Standing]:
    """All ideas of all tracks, those with a rank first, then by their lower bounds. Pure."""
    entries, confirmations, alarms, repeats = _folded(records)
    gain = dict(zip(entries, gains([_paired(e) for e in entries.values()], house.level), strict=True))
    fresh = dict(zip(confirmations, gains([_paired(e) for e in confirmations.values()], house.level), strict=True))
    rows = [Standing(entry, gain[who], fresh.get(who), tuple(sorted(alarms[who])), repeats[who],
                     _status(gain[who], fresh.get(who), alarms[who], house.level), None)
            for who, entry in entries.items()]
    rows.sort(key=lambda r: (bool(r.status), -(r.confirmed or r.gain).low if not r.status else -r.gain.low))
    return _ranked(rows)


def due(rows: Iterable[Standing], house: House = HOUSE) -> list[Standing]:
    """Those to be scored with fresh seeds now: of each track the first that passed and are not confirmed yet, as long
    as there are fewer than `house.confirmed` that are."""
    rows, found = [*rows], []
    for track in dict.fromkeys(r.record['track'] for r in rows):
        own = [r for r in rows if r.record['track'] == track]
        room = house.confirmed - sum(r.confirmed is not None for r in own)
        waiting = sorted((r for r in own if r.status == 'waits for fresh seeds'), key=lambda r: -r.gain.low)
        found += waiting[:max(0, room)]
    return found


def submit(path: str | Path, entry: dict, house: House = HOUSE) -> None:
    """Adds {idea, idea_hash, agent, track, seeds, private, naive, alarms, provenance}: private and naive are private
    PGRs per seed. Raises DataError for other seeds than the house's, numbers that are not finite, missing fields."""
    _append(path, {'kind': 'entry'} | _checked(entry, house.seeds))


def confirm(path: str | Path, entry: dict, house: House = HOUSE) -> None:
    """Adds the scores of an idea with fresh seeds; fields as those of `submit`. Raises DataError."""
    _append(path, {'kind': 'confirmation'} | _checked(entry, house.fresh))


def alarm(path: str | Path, track: str, idea_hash: str, code: str, message: str) -> None:
    """Raises an alarm about an idea, which has no rank until it is cleared."""
    _append(path, {'kind': 'alarm', 'track': track, 'idea_hash': idea_hash, 'code': code, 'message': message})


def clear(path: str | Path, track: str, idea_hash: str, code: str, why: str) -> None:
    """Clears an alarm, for a reason that stays in the journal."""
    _append(path, {'kind': 'cleared', 'track': track, 'idea_hash': idea_hash, 'code': code, 'why': why})


def _append(path: str | Path, record: dict) -> None:
    with journal.locked(path) as path:
        journal.append(path, record)


def _folded(records: Iterable[dict]) -> tuple[dict, dict, dict, dict]:
    """(track, hash) -> first entry, first confirmation, open alarms, number of repeats."""
    entries: dict[tuple[str, str], dict] = {}
    confirmations: dict[tuple[str, str], dict] = {}
    alarms: dict[tuple[str, str], set[str]] = {}
    repeats: dict[tuple[str, str], int] = {}
    for record in records:
        who, kind = (record['track'], record['idea_hash']), record['kind']
        about = alarms.setdefault(who, set())
        if kind == 'alarm':
            about.add(record['code'])
        elif kind == 'cleared':
            about.discard(record['code'])
        else:
            table = entries if kind == 'entry' else confirmations
            first = table.setdefault(who, record)
            repeats[who] = repeats.get(who, -1) + (kind == 'entry')
            about |= {*record['alarms']}
            if any(first[k] != record[k] for k in ('private', 'naive')):
                about.add(NOT_REPRODUCED)
    return entries, {who: r for who, r in confirmations.items() if who in entries}, alarms, repeats


def _paired(entry: dict) -> list[float]:
    return [a - b for a, b in zip(entry['private'], entry['naive'], strict=True)]


def _status(gain: Gain, fresh: Gain | None, alarms: set[str], level: float) -> str:
    """Why an entry has no rank, empty if it has one."""
    if alarms:
        return 'open alarm: ' + ', '.join(sorted(alarms))
    if gain.p >= level:
        return 'not beyond noise'
    if fresh is None:
        return 'waits for fresh seeds'
    return '' if fresh.p < level else 'not confirmed by fresh seeds'


def _ranked(rows: list[Standing]) -> list[Standing]:
    """With ranks, of each track from 1."""
    seen: dict[str, int] = {}
    out = []
    for row in rows:
        track = row.record['track']
        seen[track] = seen.get(track, 0) + (not row.status)
        out.append(row._replace(rank=None if row.status else seen[track]))
    return out


def _checked(entry: dict, seeds: tuple[int, ...]) -> dict:
    if len(set(seeds)) < LEAST:
        raise ConfigError(f'seeds of the house: {len(set(seeds))}, expected at least {LEAST} different ones')
    missing = [k for k in ('idea', 'idea_hash', 'agent', 'track', 'seeds', 'private', 'naive') if k not in entry]
    if missing:
        raise DataError(f'entry: without {", ".join(missing)}, expected all fields of leaderboard.submit')
    if list(entry['seeds']) != list(seeds):
        raise DataError(f'seeds: {list(entry["seeds"])}, expected those of the house, {list(seeds)}: '
                        'nobody picks seeds')
    for name in ('private', 'naive'):
        values = np.asarray(entry[name], np.float64)
        if values.shape != (len(seeds),) or not np.isfinite(values).all():
            raise DataError(f'{name}: {entry[name]!r}, expected {len(seeds)} finite PGRs, one per seed')
    return {'alarms': [], 'provenance': {}} | entry
