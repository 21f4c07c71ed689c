"""Panels of numbers against what was swept: a size, or a setting."""
from typing import Any

import numpy as np
import pandas as pd

from w2s_jax.report import figures as plots
from w2s_jax.report.tables import text


def against_panel(ax, rows: pd.DataFrame, title: str, x: str, xs: dict, by: str, styles: dict, limits: tuple,
                  name: str) -> None:
    """Test accuracy against column `x`: a line for each value of `by`, the ceiling, the weak models dotted."""
    there = rows[rows[x].notna()]
    ceilings = there[there['student'] == there['ceiling_of']]  # a rung is measured by another model's ceiling
    line(ax, ceilings, x, 'ceiling', xs, {'color': plots.CEILING, 'marker': 's'}, 'ceiling')
    for teacher, mine in there.groupby('teacher', sort=False):
        colour = styles[teacher]['color'] if by == 'teacher' else plots.WEAK
        line(ax, mine, x, 'weak', xs, {'color': colour, 'linestyle': ':'}, '_' if by == 'teacher' else 'weak')
    for value, mine in rows.groupby(by, sort=False):
        label = f'taught by {value}' if by == 'teacher' else value
        line(ax, mine[mine[x].notna()], x, 'accuracy', xs, styles[value], label)
        for flat in mine.loc[mine[x].isna(), 'accuracy']:
            ax.axhline(100 * flat, color=styles[value]['color'], linestyle='--', linewidth=1.3, label=label)
    below = ticks(ax, xs)
    ax.set(title=title, xlabel=name, ylabel='test accuracy, %', ylim=limits)
    plots.legend(ax, below=below)


def line(ax, rows: pd.DataFrame, x: str, y: str, xs: dict, style: dict, label: str) -> None:
    """A line with a band of one standard error, in per cent, broken if a value of `xs` has no row; error bars of a
    single point."""
    if rows.empty:
        return
    found = rows.drop_duplicates(x).set_index(x)[[y, f'{y}_sem']].reindex(list(xs))
    at, mean, sem = np.array([*xs.values()]), 100 * found[y].to_numpy(), 100 * found[f'{y}_sem'].fillna(0).to_numpy()
    ax.plot(at, mean, label=label, linewidth=1.6, markersize=5, **style)
    ax.fill_between(at, mean - sem, mean + sem, color=style['color'], alpha=.15, linewidth=0)
    if len(rows) == 1:
        ax.errorbar(at, mean, yerr=sem, color=style['color'], capsize=3)


def ticks(ax, xs: dict[Any, float]) -> float:
    """Names what is on the x axis, models with their sizes if there is room; returns how far below a legend may be."""
    at = [*xs.values()]
    wide = min(at) > 0 and max(at) >= 5 * min(at)
    gaps = np.diff(np.log10(at) if wide else at)
    slanted = len(xs) > 4 or (len(gaps) > 0 and min(gaps) < .2 * sum(gaps))
    sizes = wide and not slanted and isinstance(next(iter(xs)), str)
    if wide:
        ax.set_xscale('log')
        ax.minorticks_off()
    ax.set_xticks(at, [plots.shortened(text(v), 14) + f'\n{plots.amount(x)}' * sizes for v, x in xs.items()],
                  **plots.SLANTED if slanted else {})
    ax.margins(x=.08)
    return 8 if slanted else 6 if sizes else 4.5
