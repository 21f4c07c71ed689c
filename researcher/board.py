"""The leaderboard for people, a page that needs no other file, and for programs: forty lines of text, and JSON."""
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from researcher.leaderboard import Gain, Standing
from w2s_jax import api
from w2s_jax.api import StoreError

LINES, DETAILS, DRAWN = 40, 200, 10
COLUMNS = ['rank', 'idea', 'agent', 'no rank because', 'gain', 'low', 'p', 'confirmed gain', 'confirmed low',
           'confirmed p']
LEFT, RIGHT = 210, 620  # of the figure


def write(rows: list[Standing], folder: str | Path) -> Path:
    """Writes leaderboard.json and leaderboard.html, each whole or not at all; returns the path of the page. Raises
    StoreError."""
    folder, plain = Path(folder), json.dumps([_plain(r) for r in rows], indent=1) + '\n'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        api.write(folder / 'leaderboard.json', plain.encode())
        return api.write(folder / 'leaderboard.html', html(rows).encode())
    except OSError as e:
        raise StoreError(f'{folder}: {e.strerror}, expected a folder that can be written to') from None


def html(rows: list[Standing]) -> str:
    """The page, in the looks of the reports; everything is escaped, nothing is asked for."""
    import jinja2
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader('researcher'),
                                  jinja2.PackageLoader('w2s_jax', 'report/templates')])
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    tracks = dict.fromkeys(r.record['track'] for r in rows)
    return environment.get_template('leaderboard.html').render(
        title='Leaderboard of ideas', headline=headline(rows), warnings=warnings(rows), columns=COLUMNS,
        tracks=[{'name': t, **_figure(own), 'rows': [_cells(r) for r in own]}
                for t in tracks for own in [[r for r in rows if r.record['track'] == t]]],
        details=[_detail(r) for r in rows[:DETAILS]])


def plain(rows: list[Standing], notes: tuple[str, ...] = ()) -> str:
    """At most forty lines of at most 120 characters: a table, the best first, what was left out, and notes."""
    most = LINES - 4 - len(notes)
    cells = [['rank', 'idea', 'agent', 'track', 'gain', 'low', 'p', 'no rank because'],
             *(_line(r) for r in rows[:most])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ['  '.join(map(str.ljust, row, widths)).rstrip()[:120] for row in cells]
    left = [f'{len(rows) - most} more: leaderboard.json has them'] * (len(rows) > most)
    return '\n'.join([lines[0], '-' * min(120, max(map(len, lines))), *lines[1:], *left, *notes]) + '\n'


def headline(rows: list[Standing]) -> str:
    """What was found, in a sentence."""
    ranked = [r for r in rows if r.rank]
    if not ranked:
        return (f'No idea has a rank: of {len(rows)}, none is better than naive beyond noise, with fresh '
                'seeds and no alarm.')
    first = ranked[0]
    return (f'{len(ranked)} of {len(rows)} ideas are better than naive beyond noise, with fresh seeds too. First on '
            f'{first.record["track"]} is {_name(first, 60)}, by {_number(_shown(first).mean)} PGR, at least '
            f'{_number(_shown(first).low)}.')


def warnings(rows: list[Standing]) -> list[str]:
    """Open alarms, and results that wait for fresh seeds."""
    alarmed = [_name(r, 40) for r in rows if r.alarms]
    waiting = sum(r.status == 'waits for fresh seeds' for r in rows)
    named = f'{", ".join(alarmed[:3])}{", …" * (len(alarmed) > 3)}'
    return ([f'{len(alarmed)} with open alarms, and so without a rank: {named}.'] * bool(alarmed)
            + [f'{waiting} passed the first seeds and wait for fresh ones.'] * bool(waiting))


def _figure(rows: list[Standing]) -> dict[str, list]:
    """Lines and ticks of the figure of a track, in its coordinates."""
    ranked = [r for r in rows if r.rank][:DRAWN]
    if not ranked:
        return {'lines': [], 'ticks': []}
    ends = [2 * _shown(r).mean - _shown(r).low for r in ranked]
    top = max(*ends, .01)
    at = lambda value: round(LEFT + (RIGHT - LEFT) * max(0., value) / top, 1)
    lines = [{'name': f'{r.rank}. {_name(r, 24)}', 'low': at(_shown(r).low), 'mean': at(_shown(r).mean),
              'high': at(end)}
             for r, end in zip(ranked, ends, strict=True)]
    return {'lines': lines, 'ticks': [(at(v), f'{v:.2g}') for v in _ticks(top)]}


def _ticks(top: float) -> list[float]:
    width = next(w for w in (.01, .02, .05, .1, .2, .5, 1, 2, 5, 10, top) if top / w <= 6)
    return [width * i for i in range(int(top / width) + 1)]


def _shown(row: Standing) -> Gain:
    return row.confirmed or row.gain


def _number(value: float, digits: int = 2) -> str:
    return f'{round(value, digits) + 0.:+.{digits}f}'  # never -0.00


def _p(value: float) -> str:
    return f'{value:.2g}' if value >= 1e-4 else '< .0001'


def _name(row: Standing, width: int) -> str:
    """Of its idea, on one line of at most `width` characters."""
    return textwrap.shorten(str(row.record['idea']), width, placeholder=' …') or str(row.record['idea_hash'])[:width]


def _cells(row: Standing) -> dict[str, str]:
    found = {'rank': str(row.rank or '–'), 'idea': _name(row, 80), 'agent': str(row.record['agent']),
             'gain': _number(row.gain.mean), 'low': _number(row.gain.low), 'p': _p(row.gain.p),
             'no rank because': row.status}
    if row.confirmed:
        found |= {'confirmed gain': _number(row.confirmed.mean), 'confirmed low': _number(row.confirmed.low),
                  'confirmed p': _p(row.confirmed.p)}
    return found


def _line(row: Standing) -> list[str]:
    who = [' '.join(str(row.record[k]).split())[:14] for k in ('agent', 'track')]
    shown = _shown(row)
    return [str(row.rank or '-'), _name(row, 32), *who, _number(shown.mean), _number(shown.low), _p(shown.p),
            ' '.join(row.status.split())[:36]]


def _detail(row: Standing) -> tuple[str, dict[str, str]]:
    record = row.record
    numbers = lambda values: ', '.join(f'{v:.3f}' for v in values)
    given = record['provenance']
    provenance = given if isinstance(given, dict) else {'provenance': given}
    return (f'{row.rank or "–"} · {_name(row, 60)} · {record["agent"]} · {record["track"]}', {
        'idea': str(record['idea']), 'hash': str(record['idea_hash']), 'seeds': ', '.join(map(str, record['seeds'])),
        'private PGR': numbers(record['private']), 'naive': numbers(record['naive']),
        'submitted again': str(row.repeats), 'open alarms': ', '.join(row.alarms) or 'none',
        **{str(k): v if isinstance(v, str) else json.dumps(v) for k, v in provenance.items()}})


def _plain(row: Standing) -> dict[str, Any]:
    """A standing as JSON, with the interval of the mean over seeds of its private PGR."""
    private = np.asarray(row.record['private'])
    mean = float(private.mean())
    half = float(stats.t.isf(.025, len(private) - 1) * stats.sem(private))
    keep = ('idea', 'idea_hash', 'agent', 'track', 'seeds', 'private', 'naive', 'provenance')
    return {k: row.record[k] for k in keep} | {
        'rank': row.rank, 'status': row.status, 'alarms': [*row.alarms], 'repeats': row.repeats,
        'pgr': {'mean': mean, 'low': mean - half, 'high': mean + half},
        'gain': row.gain._asdict(), 'confirmed': row.confirmed._asdict() if row.confirmed else None}
