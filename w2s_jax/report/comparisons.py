"""Which students differ, and which of the differences are real."""
from w2s_jax import metrics
from w2s_jax.report import tables
from w2s_jax.report.reading import MAIN, Grid, number, on
from w2s_jax.report.tables import DASH, interval_text, students, text

LEVEL = .05
NAMED = 6  # comparisons that a sentence names
TRANSFORMS = 'labels.transforms'


def adjusted(grid: Grid) -> list[dict]:
    """The comparisons with 'holm', their p values adjusted for all that have one; None for oracles, which are in no
    family, and without a p value."""
    oracles = {s.entry['label'] for s in tables.entries(grid) if s.entry.get('oracle')}
    family = [number(c.get('p')) is not None and number(c.get('mean')) is not None and _label(c) not in oracles
              for c in grid.comparisons]
    holm = iter(metrics.holm([c['p'] for c, member in zip(grid.comparisons, family, strict=True) if member]))
    return [c | {'holm': next(holm) if member else None, 'oracle': _label(c) in oracles}
            for c, member in zip(grid.comparisons, family, strict=True)]


def statement(compared: list[dict], named: int = NAMED) -> str:
    """One sentence that accounts for how many comparisons there are."""
    compared = [c for c in compared if c['holm'] is not None]
    if not compared:
        return ''
    hold = sorted(filter(_holds, compared), key=lambda c: -abs(c['mean']))
    alone = sum(c['p'] < LEVEL for c in compared)
    many = 'Of one comparison' if len(compared) == 1 else f'Of {len(compared)} comparisons'
    if not hold:
        return (f'{many} with a baseline, none holds after Holm\'s correction at {LEVEL:.2f} ({alone} would alone): '
                f'these differences may be chance.{_detectable(compared)}')
    said = [f'{who(c)} is {"above" if c["mean"] > 0 else "below"} {c.get("baseline")} for {c.get("teacher")} → '
            f'{c.get("student")}{"".join(f", {part}" for part in _settings(c))} (by {100 * abs(c["mean"]):.1f} points)'
            for c in hold[:named]]
    rest = f'; and {len(hold) - named} more' if len(hold) > named else ''
    return (f'{many} with a baseline, {len(hold)} {"holds" if len(hold) == 1 else "hold"} after Holm\'s correction at '
            f'{LEVEL:.2f}: {"; ".join(said)}{rest}.')


def _detectable(compared: list[dict]) -> str:
    """How large a difference would have been found, in a sentence."""
    found = [100 * d for c in compared if (d := number(c.get('detectable'))) is not None]
    if not found:
        return ''
    low, high = f'{min(found):.1f}', f'{max(found):.1f}'
    return (f' So many seeds and examples find, alone and in four of five repetitions, a true difference of '
            f'{low if low == high else f"{low} to {high}"} points.')


def _label(c: dict) -> str:
    return str(c.get('label') or c['loss'])


def who(c: dict) -> str:
    """The student of a comparison: its label, what its labels went through, and the method if it is not the plain one.
    """
    transforms = (c.get('settings') or {}).get(TRANSFORMS)
    name = f'{_label(c)} after {tables.shown(transforms)}' if transforms else _label(c)
    name = name if c.get('method') in (None, 'naive', _label(c)) else f'{c["method"]} · {name}'
    return tables.marked(name, c.get('oracle'))


def _settings(c: dict, but=()) -> list[str]:
    """['alpha 0.25'] of a comparison, but the fields in `but` and those that are named anyway."""
    named = (*but, *tables.COLUMN_OF, TRANSFORMS)
    settings = {k: v for k, v in (c.get('settings') or {}).items() if k not in named}
    names = tables.short(list(settings))
    return [f'{names[k]} {text(tables.shown(v))}' for k, v in settings.items()]


def best(grid: Grid) -> list[dict[str, str]]:
    """For every teacher and student, and settings that the baseline depends on: who was best, how far above it."""
    compared = [c for c in adjusted(grid) if not c['oracle'] and number(c.get('mean')) is not None]
    table, against = students(on(grid, MAIN)), {c.get('baseline') for c in compared}
    baselines = table[table['label'].isin(against) | table['loss'].isin(against)]
    own = [f for f in tables.varying(grid, table) if baselines[f].notna().any()]
    groups: dict[tuple, list[dict]] = {}
    for c in compared:
        key = c.get('task'), c.get('teacher'), c.get('student'), *(
            tables.shown((c.get('settings') or {}).get(f, '')) for f in own)
        groups.setdefault(key, []).append(c)
    columns = ['task', 'teacher', 'student', *(tables.short(own)[f] for f in own)]
    return [dict(zip(columns, (text(k) for k in key), strict=True)) |
            _best(max(group, key=lambda c: c['mean']), own) for key, group in groups.items()]


def _best(top: dict, own: list[str]) -> dict[str, str]:
    better, gain = top['mean'] > 0, interval_text(top, 100, '+.1f')
    first = ' · '.join([who(top), *_settings(top, but=own)]) if better else f'{top.get("baseline")} (the baseline)'
    above = gain if better else f'{who(top)} is next: {gain}'
    return {'best (chosen on the test set)': first, 'above the baseline, points': above, **_ps(top)}


def _holds(c: dict) -> bool:
    return c['holm'] is not None and c['holm'] < LEVEL


def _ps(c: dict) -> dict[str, str]:
    say = lambda p: DASH if number(p) is None else '< .001' if p < .001 else f'{p:.3f}'
    return {'p': say(c.get('p')), 'p after Holm': say(c['holm']) + ' ✓' * _holds(c)}


def comparisons(grid: Grid) -> list[dict[str, str]]:
    """All comparisons, also those that are in no family."""
    return [{'task': str(c.get('task') or ''), 'teacher → student': f'{c.get("teacher")} → {c.get("student")}',
             'settings': ', '.join(_settings(c)), 'difference': f'{who(c)} − {c.get("baseline")}',
             'points': interval_text(c, 100, '+.1f'), **_ps(c)} for c in adjusted(grid)]


def paired(grid: Grid, most: int = 8) -> list[str]:
    """The differences between students, paired over seeds and examples, as lines; of many comparisons none."""
    found = comparisons(grid)
    return [f'{c["difference"]}: {c["points"]} points, p {c["p"]}' for c in found] if len(found) <= most else []
