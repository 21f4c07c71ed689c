"""How often students say what their supervisors say: over all examples, where these are right, where they are wrong."""
import pandas as pd

from w2s_jax.report import figures as plots
from w2s_jax.report.against import line, ticks

SUBSETS = {'agreement': ('all examples', 'o', plots.INK), 'agreement_weak_right': ('weak is right', 's', plots.CEILING),
           'agreement_weak_wrong': ('weak is wrong', 'D', plots.WEAK)}
CONTROL = 'inheritance_ceiling'  # a measure of error_structure: how often the ceiling makes the supervisor's errors


def agreement_panel(ax, title: str, rows: pd.DataFrame, names: list[str]) -> None:
    """Agreement with the supervisor: over all examples, if it is right, if it is wrong; one row per student."""
    for y, (_, found) in enumerate(rows.iterrows()):
        ax.plot([100 * found['agreement_weak_wrong'], 100 * found['agreement_weak_right']], [y, y], color=plots.RULE,
                linewidth=2, zorder=1)
    for subset, (label, marker, colour) in SUBSETS.items():
        ax.errorbar(100 * rows[subset], range(len(rows)), xerr=100 * rows[f'{subset}_sem'].fillna(0), fmt='none',
                    color=colour)
        ax.plot(100 * rows[subset], range(len(rows)), marker, color=colour, markersize=5.5, label=label)
    plots.name_rows(ax, names)
    ax.set(title=title, xlabel='% of such test examples', xlim=(-2, 102))
    plots.legend(ax, columns=2)


def against_panel(ax, rows: pd.DataFrame, title: str, x: str, xs: dict, name: str) -> None:
    """The same against column `x`, whose values are at `xs`; students that do not depend on it are lines across.

    Burns et al. 2023, arXiv 2312.09390, figure 8: larger students agree less with a supervisor that is wrong. The
    ceiling, which has not seen it, is the control: larger models may only err less.
    """
    there = rows[rows[x].notna()]
    for subset, (label, marker, colour) in SUBSETS.items():
        line(ax, there, x, subset, xs, {'color': colour, 'marker': marker}, label)
        for flat in rows.loc[rows[x].isna(), subset].dropna():
            ax.axhline(100 * flat, color=colour, linestyle='--', linewidth=1.3, label=label)
    if CONTROL in rows and there[CONTROL].notna().any():
        look = {'color': plots.WEAK, 'marker': 'D', 'linestyle': ':', 'markerfacecolor': 'none'}
        line(ax, there, x, CONTROL, xs, look, 'weak is wrong: ceiling')
    below = ticks(ax, xs)
    ax.set(title=title, xlabel=name, ylabel='% of such test examples', ylim=(-2, 102))
    plots.legend(ax, below=below)
