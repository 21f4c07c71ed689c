"""How figures look, and what panels are drawn with.

A panel draws one matplotlib axes; a figure is a row of panels as a PNG, or each of its panels as an SVG of its own, so
that a page can stack them on a phone. Colours are Okabe and Ito's, told apart with every kind of colour vision.
matplotlib is imported late: it takes as long to import as a small run takes to train.
"""

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import cycle, zip_longest
from typing import Any

import numpy as np

from w2s_jax.report.reading import number

INK, RULE = '#22262e', '#c9ced6'
WEAK, CEILING, ZERO_SHOT = '#d55e00', '#009e73', '#7a828e'
STUDENTS = ('#0072b2', '#cc79a7', '#e69f00', '#56b4e9')
COLOURS = {'majority': RULE, 'weak': WEAK, 'zero_shot': ZERO_SHOT, 'ceiling': CEILING, 'teacher': WEAK}  # of roles
DASHES, MARKERS = ('-', '--', ':', '-.'), 'oD^vP*X'

# In a page, colours are variables, so that text and light lines follow the reader's light or dark theme.
PAGE_COLOURS = {INK: 'var(--ink)', RULE: 'var(--rule)', ZERO_SHOT: 'var(--zero-shot)', '#0072b2': 'var(--student)'}

STYLE: dict[Any, Any] = {
    'font.size': 9.5, 'axes.titlesize': 10.5, 'axes.titlelocation': 'left', 'axes.titleweight': 'bold',
    'text.color': INK, 'axes.labelcolor': INK, 'axes.titlecolor': INK, 'xtick.color': INK, 'ytick.color': INK,
    'axes.edgecolor': RULE, 'grid.color': RULE, 'grid.linewidth': 0.6, 'axes.grid': True, 'axes.axisbelow': True,
    'axes.spines.top': False, 'axes.spines.right': False, 'xtick.major.size': 0, 'xtick.major.pad': 6,
    'ytick.major.size': 0, 'legend.frameon': False, 'legend.handlelength': 2.4,
    'text.parse_math': False,  # labels are the user's, and a dollar sign is no formula
    'svg.fonttype': 'none', 'svg.hashsalt': 'w2s_jax',
}
Key = Sequence[tuple[str, dict]]  # what is said, and how lines look that it is said of

PANEL_WIDTH, MAX_POINTS = 4.8, 200
SLANTED: dict[str, Any] = {'rotation': 35, 'ha': 'right', 'rotation_mode': 'anchor'}


def style() -> AbstractContextManager:
    """The look of all figures, for as long as a with block lasts."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def figure(draws: Sequence[Callable], height: float, columns: int | None = None, key: Key = ()):
    """A matplotlib figure of one axes per function in `draws`; `height` in inches is that of a row. A key is on top."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = columns or len(draws)
    rows = -(-len(draws) // columns)
    with style():
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        made = Figure(figsize=(PANEL_WIDTH * columns, height * rows), layout=layout, facecolor='none')
        axes = made.subplots(rows, columns, squeeze=False).flat
        for ax, draw in zip_longest(axes, draws):
            ax.set_facecolor('none')
            if draw is None:
                ax.set_axis_off()
            else:
                draw(ax)
        _key(made, key, columns)
    return made


def _key(figure, key: Key, columns: int) -> None:
    from matplotlib.lines import Line2D

    if key:
        figure.legend([Line2D([], [], **look) for _, look in key], [shortened(said, 60) for said, _ in key],
                      loc='outside upper left', ncols=max(1, min(len(key), 2 * columns)), fontsize=8.5)


def swatch(look: dict) -> str:
    """A piece of a line of a key as an SVG element."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    with style():
        made = Figure(figsize=(.42, .16), facecolor='none')
        made.add_artist(Line2D([.1, .5, .9], [.5] * 3, markevery=[1], markersize=6, linewidth=1.8, **look))
    return svg(made)


def png(figure) -> bytes:
    """A figure on white."""
    made = io.BytesIO()
    with style():
        figure.savefig(made, format='png', dpi=150, facecolor='white')
    return made.getvalue()


def svg(figure) -> str:
    """A figure as an SVG element, to be put into an HTML page that defines PAGE_COLOURS."""
    text = io.StringIO()
    with style():
        figure.savefig(text, format='svg', metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')))
    svg = text.getvalue()
    svg = svg[svg.index('<svg'):].replace('<svg', '<svg role="img" aria-hidden="true"', 1)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', '', svg)  # HTML knows these namespaces
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg


def styles(values) -> dict[str, dict]:
    """Value -> colour, dashes and marker, told apart by each alone as far as there are so many."""
    looks = cycle((colour, dashes) for dashes in DASHES for colour in STUDENTS)
    return {name: {'color': colour, 'linestyle': dashes, 'marker': marker}
            for name, (colour, dashes), marker in zip(dict.fromkeys(values), looks, cycle(MARKERS), strict=False)}


def amount(value: float) -> str:
    """'1.5 M' of 1 500 000."""
    for size, name in ((1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if value >= size:
            return f'{value / size:.3g}{name}'
    return f'{value:.3g}'


def thin(values):
    """`values` [N] as means of at most MAX_POINTS blocks; None counts as missing."""
    values = np.array([np.nan if number(v) is None else v for v in values], np.float64)
    if len(values) <= MAX_POINTS:
        return values
    return np.array([block.mean() for block in np.array_split(values, MAX_POINTS)])


def progress_of(accuracy: dict, curve: dict) -> list[float]:
    """The shares of the run at which `accuracy` was measured, from the curve's own steps."""
    steps = accuracy.get('step') or []
    if curve.get('step') and curve.get('progress'):
        return np.interp(steps, curve['step'], curve['progress']).tolist()
    return [step / max(steps) for step in steps] if steps and max(steps) > 0 else []


def shortened(label: str, width: int) -> str:
    """A label of at most `width` characters."""
    return label if len(label) <= width else f'{label[:width - 1]}…'


def name_rows(ax, labels: Sequence[str], width: int = 26) -> None:
    """Labels down the left side of an axes, one per row, the first on top."""
    ax.set_yticks(range(len(labels)), [textwrap.fill(label, width, max_lines=2, placeholder=' …') for label in labels])
    ax.set_ylim(len(labels) - 0.5, -0.65)
    ax.grid(axis='y', visible=False)


def legend(ax, columns: int = 2, below: float = 4.5) -> None:
    """A legend under an axes, `below` it in heights of its text, to leave room for the labels of the x axis."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles, [shortened(label, 32) for label in labels], ncols=columns,
                  loc='upper center', bbox_to_anchor=(0.45, 0), borderaxespad=below, fontsize=8.5)
