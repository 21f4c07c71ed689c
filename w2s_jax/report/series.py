"""Lines that diagnostics have measured (results.json, `series`), each set of one title in a panel of its own."""
from collections.abc import Iterator

import numpy as np

from w2s_jax.report import figures as plots
from w2s_jax.report.agreements import SUBSETS
from w2s_jax.report.reading import number

LOOKS = {'student': (plots.STUDENTS[0], 'o'), 'weak': (plots.WEAK, 's'), 'ceiling': (plots.CEILING, 'D'),
         **{label: (colour, marker) for label, marker, colour in SUBSETS.values()}}


def titles(entry: dict) -> dict[str, list[dict]]:
    """Title -> the series of a student that share it."""
    found: dict[str, list[dict]] = {}
    for one in (entry.get('series') or {}).values():
        if _points(one):
            found.setdefault(str(one.get('figure') or one.get('line')), []).append(one)
    return found


def _points(one: dict) -> list[tuple[float, float, float]]:
    """(x, y, standard error) of the points that are there."""
    x, y = one.get('x') or [], one.get('y') or []
    sem = one.get('sem') or [None] * len(y)
    known = ((number(a), number(b), number(s) or 0.) for a, b, s in zip(x, y, sem, strict=False))
    return [(a, b, s) for a, b, s in known if a is not None and b is not None]


def series_panel(ax, title: str, lines: list[dict]) -> None:
    """The means of seeds with bands of a standard error."""
    looks = iter(plots.styles(one.get('line') for one in lines).values())
    drawn = [(str(one.get('line')), np.array(_points(one)), look) for one, look in zip(lines, _looks(lines, looks),
                                                                                     strict=True)]
    for name, points, look in drawn:
        x, y, sem = points.T
        ax.plot(x, y, label=name, linewidth=1.6, markersize=4.5, **look)
        ax.fill_between(x, y - sem, y + sem, color=look['color'], alpha=.15, linewidth=0)
    if any(one.get('diagonal') for one in lines):
        every = np.concatenate([points[:, :2].ravel() for _, points, _ in drawn])
        ends = every.min(), every.max()
        ax.plot(ends, ends, color=plots.ZERO_SHOT, linestyle='--', linewidth=1.2, label='as sure as right', zorder=1)
    x_says, y_says = [*map(str, lines[0].get('axes') or []), '', ''][:2]
    ax.set(title=title, xlabel=x_says, ylabel=y_says)
    plots.legend(ax)


def _looks(lines: list[dict], others: Iterator[dict]) -> Iterator[dict]:
    for one, other in zip(lines, others, strict=True):
        known = LOOKS.get(str(one.get('line')))
        yield other if known is None else {'color': known[0], 'marker': known[1], 'linestyle': '-'}
