"""How a model learned: training loss and test accuracy against the share of the run that is done.

Every curve of accuracy ends at the number that the tables show. That is of the parameters that were kept, on all test
rows; what was measured on the way is of the watched part of them.
"""
import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from w2s_jax.report import figures as plots
from w2s_jax.report.reading import Cell, number

DASHED = (0, (6, 3))
STOPS = {'best': ('^', 'best, by an oracle that knows the truth'),
         'weak': ('D', 'agrees most with the weak model, which takes no truth')}
END = 'as the tables say'
MOST_BOUNDS = 20  # ends of epochs that are drawn
MOST_NUMBERS = 8  # lines of a panel whose last points have their numbers beside them


@dataclasses.dataclass(frozen=True)
class Line:
    """A model's curve.  style: 'color' and 'linestyle'.  entry: of results.json."""
    name: str
    style: dict
    curve: dict
    entry: dict

    @property
    def accuracy(self) -> dict:
        """{'step', 'mean', 'sem'} on the way; {} if there is nothing to draw."""
        found = self.curve.get('accuracy') or {}
        same = len(found.get('step') or []) == len(found.get('mean') or []) > 0
        return found if same and plots.progress_of(found, self.curve) else {}

    @property
    def end(self) -> tuple[float, float] | None:
        """(share of the run, accuracy) of the parameters that were kept: the last ones, or those that a rule chose, of
        several seeds at the mean of their steps."""
        mean = number((self.entry.get('accuracy') or {}).get('mean'))
        if mean is None or not self.accuracy:
            return None
        steps = self.curve.get('stopped') or (self.entry.get('stopped') or {}).get('steps')
        return self.at(np.mean(steps)) if steps else plots.progress_of(self.accuracy, self.curve)[-1], mean

    def at(self, step) -> float:
        """The share of the run that was done after a step."""
        return float(np.interp(step, self.accuracy['step'], plots.progress_of(self.accuracy, self.curve)))


def beside(cell: Cell) -> list[Line]:
    """The curves of a cell that are no students': of the weak model and the ceiling."""
    return [Line(c['label'], {'color': plots.COLOURS.get(c.get('kind', ''), plots.INK), 'linestyle': '-'}, c,
                 cell.results.get('weak' if c.get('kind') == 'teacher' else c.get('kind')) or {})
            for c in cell.evaluation.get('curves') or [] if c.get('kind') != 'student']


def key(lines: Iterable[Line], finals: Iterable[str]) -> list[tuple[str, dict]]:
    """(what is said, how it is drawn) of everything in the panels, each once."""
    lines = list(lines)
    stops = {name for line in lines for name in line.curve.get('stops') or {} if line.curve.get('kind') == 'student'}
    mark = lambda marker: {'color': plots.INK, 'linestyle': '', 'marker': marker}
    return [*{line.name: line.style for line in lines}.items(),
            *((f'{role}, final', {'color': plots.COLOURS[role], 'linestyle': DASHED}) for role in finals),
            *[(END, mark('o'))] * any(line.end for line in lines),
            *((said, mark(marker)) for name, (marker, said) in STOPS.items() if name in stops)]


def limits(lines: Iterable[Line], finals: Iterable[float]) -> tuple[float, float] | None:
    """Per cent that hold all curves with their bands, and the accuracies `finals`; None if there are none."""
    found = [100 * v for v in finals if not math.isnan(v)]
    for line in lines:
        means, sems = line.accuracy.get('mean') or [], line.accuracy.get('sem') or []
        for mean, sem in zip(means, sems or [0] * len(means), strict=False):
            if number(mean) is not None:
                found += [100 * (mean + sign * (number(sem) or 0)) for sign in (-1, 1)]
        found += [100 * line.end[1]] if line.end else []
    margin = .06 * (max(found) - min(found)) or 1 if found else 0
    return (min(found) - margin, max(found) + margin) if found else None


def loss_panel(ax, lines: list[Line]) -> None:
    """Training loss."""
    for line in lines:
        loss, progress = line.curve.get('loss') or {}, line.curve.get('progress') or []
        if len(loss.get('mean') or []) == len(progress) > 0:
            _draw(ax, line, plots.thin(progress), loss, scale=1, sure=np.inf)
    ax.set(title='Training loss', xlabel='share of training done', xlim=(0, 1))


def curve_panel(ax, title: str, lines: list[Line], finals: list[tuple[str, float]], limits: tuple | None) -> None:
    """Test accuracy on the way, where it ended and where a student might have stopped.

    Args:
      finals: (role, accuracy) of dashed lines across.  limits: of the y axis, in per cent.
    """
    for line in lines:
        if line.accuracy:
            x = plots.thin(plots.progress_of(line.accuracy, line.curve))
            _draw(ax, line, x, line.accuracy, scale=100, sure=line.end[0] if line.end else np.inf)
            _mark(ax, line)
    for end in bounds(lines):
        ax.axvline(end, color=plots.ZERO_SHOT, linewidth=1, linestyle=':', zorder=0)
    for role, value in finals:
        ax.axhline(100 * value, color=plots.COLOURS[role], linewidth=1, linestyle=DASHED, alpha=.7)
    ax.set(title=title, xlabel='share of training done', ylabel='test accuracy, %', xlim=(-.03, 1.03), ylim=limits)
    _numbers(ax, [line for line in lines if line.end])


def bounds(lines: list[Line]) -> list[float]:
    """The shares of the run at which epochs of the students ended, but the last one; none if these differ, or are too
    many to be told apart."""
    epochs = {number(seen[-1]) for line in lines
              if line.curve.get('kind') == 'student' and (seen := line.curve.get('epochs'))}
    total = epochs.pop() if len(epochs) == 1 else None
    if total is None or not 1 < total <= MOST_BOUNDS:
        return []
    return [k / total for k in range(1, math.ceil(total - 1e-6))]


def _draw(ax, line: Line, x: np.ndarray, series: dict, scale: float, sure: float) -> None:
    """A series with a band of one standard error; faint behind `sure`, where its line goes to the table's number."""
    mean, colour = scale * plots.thin(series['mean']), line.style['color']
    kept = x <= sure
    xs, ys = x[kept], mean[kept]
    if sure < np.inf and line.end:
        xs, ys = np.append(xs, sure), np.append(ys, scale * line.end[1])
    ax.plot(xs, ys, linewidth=1.5, label=line.name, **line.style)
    if not kept.all():
        rest = slice(max(kept.sum() - 1, 0), None)
        ax.plot(x[rest], mean[rest], linewidth=1.2, alpha=.4, label='_', **line.style)
    if len(series.get('sem') or []) == len(series['mean']):
        sem = scale * plots.thin([number(v) or 0 for v in series['sem']])
        ax.fill_between(x, mean - sem, mean + sem, color=colour, alpha=.15, linewidth=0)


def _mark(ax, line: Line) -> None:
    """Points: where a student might have stopped, and the number of the tables."""
    look = {'color': line.style['color'], 'markersize': 7, 'zorder': 3, 'markeredgecolor': plots.INK,
            'markeredgewidth': .8, 'clip_on': False}
    for stop, (marker, _) in STOPS.items() if line.curve.get('kind') == 'student' else ():
        if found := (line.curve.get('stops') or {}).get(stop):
            ax.plot(line.at(found['step']), 100 * found['accuracy'], marker, **look)
    if line.end:
        ax.plot(line.end[0], 100 * line.end[1], 'o', **look)


def _numbers(ax, lines: list[Line]) -> None:
    """The tables' numbers on the right, in the order of the last points, none on top of another."""
    if not 0 < len(lines) <= MOST_NUMBERS:
        return
    low, high = ax.get_ylim()
    found = sorted((100 * line.end[1], line.style['color']) for line in lines if line.end)
    for (value, colour), y in zip(found, apart([value for value, _ in found], .06 * (high - low)), strict=True):
        ax.annotate(f'{value:.1f}', (1.06, y), xycoords=('axes fraction', 'data'), va='center', fontsize=8.5,
                    color=colour, annotation_clip=False)


def apart(values: list[float], step: float) -> list[float]:
    """Rising places near `values`, which rise, each at least `step` above the one before."""
    up, down = list(values), list(values)
    for i in range(1, len(values)):
        up[i] = max(up[i], up[i - 1] + step)
        down[-i - 1] = min(down[-i - 1], down[-i] - step)
    return [(a + b) / 2 for a, b in zip(up, down, strict=True)]
