"""The three figures of a report: who was how good, how they got there, and whom the students followed.

`results` and `evaluation` are the objects of W/results.json and W/evaluation.json, as `report.load` returns them.
A panel draws one matplotlib axes; a figure is a row of panels as a PNG, or each of its panels as an SVG of its own, so
that a page can stack them on a phone. Colours are Okabe and Ito's, told apart with every kind of colour vision.
matplotlib is imported late: it takes as long to import as a small run takes to train.
"""

import io
import math
import re
import textwrap
from functools import partial
from itertools import cycle, zip_longest
from typing import Any

import numpy as np

INK, RULE = '#22262e', '#c9ced6'
WEAK, CEILING, ZERO_SHOT = '#d55e00', '#009e73', '#7a828e'
STUDENTS = ('#0072b2', '#cc79a7', '#e69f00', '#56b4e9')
DASHES = ('-', '--', ':', '-.')

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
PANEL_WIDTH, MAX_POINTS = 4.8, 200


def number(value):
    """`value` as a finite float, or None: what a report shows as a dash."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def participants(results):
    """[(label, colour, entry)]: weak, the model before fine-tuning where it was measured, students, ceiling."""
    found = [('weak', WEAK, results['weak'])]
    if results.get('zero_shot'):
        found.append(('student, zero-shot', ZERO_SHOT, results['zero_shot']))
    found += [(s['label'], colour, s) for s, (colour, _) in zip(results['students'], student_styles(), strict=False)]
    return [*found, ('ceiling', CEILING, results['ceiling'])]


def accuracy_panel(ax, results, evaluation):
    """Test accuracy in per cent: the mean of the seeds, its standard error, and each seed as a faint dot."""
    people = participants(results)
    for y, (_, colour, entry) in enumerate(people):
        accuracy = entry['accuracy']
        seeds = [100 * v for v in map(number, accuracy.get('seeds') or []) if v is not None]
        mean, sem = 100 * accuracy['mean'], 100 * (number(accuracy.get('sem')) or 0)
        ax.plot(seeds, [y] * len(seeds), 'o', color=colour, alpha=0.3, markersize=4, markeredgewidth=0)
        ax.errorbar(mean, y, xerr=sem or None, fmt='o', color=colour, capsize=3, markersize=6)
        ax.annotate(f'{mean:.1f}', (mean, y), (0, 7), textcoords='offset points', ha='center', fontsize=8.5)
    name_rows(ax, [label for label, _, _ in people])
    ax.margins(x=0.12)
    ax.set(title='Test accuracy', xlabel='% of test examples')


def pgr_panel(ax, results, evaluation):
    """Performance gap recovered with its interval: 0 is the weak model, 1 the ceiling."""
    for y, (student, (colour, _)) in enumerate(zip(results['students'], student_styles(), strict=False)):
        pgr = student.get('pgr') or {}
        mean, low, high = (number(pgr.get(k)) for k in ('mean', 'low', 'high'))
        if not pgr.get('defined') or mean is None:
            ax.annotate('undefined: gap within noise', (0.5, y), ha='center', va='center', fontsize=8.5, style='italic')
            continue
        if low is not None and high is not None:
            ax.plot([low, high], [y, y], color=colour, linewidth=1.6, marker='|', markersize=7)
        ax.plot(mean, y, 'o', color=colour, markersize=6)
        ax.annotate(f'{mean:.2f}', (mean, y), (0, 7), textcoords='offset points', ha='center', fontsize=8.5)
    for x, colour in ((0, WEAK), (1, CEILING)):
        ax.axvline(x, color=colour, linewidth=1.2)
    name_rows(ax, [s['label'] for s in results['students']])
    ax.set_xlim(*_pgr_limits(results['students']))
    ax.set(title='Performance gap recovered', xlabel='0 = weak, 1 = ceiling')


def loss_panel(ax, results, evaluation):
    """Training loss against the share of the run that is done, in at most 200 block means."""
    styles = _curve_styles(results)
    for curve, style in _styled_curves(evaluation, styles):
        loss = curve.get('loss') or {}
        draw_curve(ax, curve.get('progress'), loss, style, curve['label'], scale=1)
    ax.set(title='Training loss', xlabel='share of training done', xlim=(0, 1))
    legend(ax)


def progress_panel(ax, results, evaluation):
    """Test accuracy during training, with the final accuracy of the weak model and the ceiling as lines."""
    styles = _curve_styles(results)
    for curve, style in _styled_curves(evaluation, styles):
        accuracy = curve.get('accuracy') or {}
        draw_curve(ax, progress_of(accuracy, curve), accuracy, style, curve['label'], scale=100, marker='.')
    for name, colour in (('weak', WEAK), ('ceiling', CEILING)):
        ax.axhline(100 * results[name]['accuracy']['mean'], color=colour, linewidth=1, dashes=(6, 3), alpha=0.7)
    ax.set(title='Test accuracy during training, %', xlabel='share of training done (dashed: final weak and ceiling)',
           xlim=(0, 1))
    legend(ax)


def agreement_panel(ax, results, evaluation):
    """How often a student says what its supervisor says: over all examples, and where the supervisor is right or wrong.
    """
    subsets = (('all', 'all examples', 'o', INK, 0.0), ('weak_right', 'weak is right', 's', CEILING, -0.2),
               ('weak_wrong', 'weak is wrong', 'D', WEAK, 0.2))
    for key, name, marker, colour, shift in subsets:
        found = [(y, measure) for y, student in enumerate(results['students'])
                 if (measure := (student.get('agreement') or {}).get(key)) and number(measure.get('mean')) is not None]
        x, y = [100 * m['mean'] for _, m in found], [y + shift for y, _ in found]
        ax.plot(x, y, marker, color=colour, markersize=5.5, label=name)
        ax.errorbar(x, y, xerr=[100 * (number(m.get('sem')) or 0) for _, m in found], fmt='none', color=colour)
    name_rows(ax, [s['label'] for s in results['students']])
    ax.set(title='Agreement with the weak supervisor', xlabel='% of test examples', xlim=(-2, 102))
    legend(ax, columns=3)


FIGURES = {
    'accuracy_pgr': (accuracy_panel, pgr_panel),
    'learning_curves': (loss_panel, progress_panel),
    'agreement': (agreement_panel,),
}


def write_pngs(folder, results, evaluation):
    """FIGURES as folder/<name>.png, one row of panels each, on white. `folder` must exist."""
    for name, panels in FIGURES.items():
        save_png(folder / f'{name}.png', _figure(panels, results, evaluation))


def svg_panels(results, evaluation):
    """{figure's name: [SVG element of each panel]}, to be put into an HTML page that defines PAGE_COLOURS."""
    return {name: [svg(_figure([panel], results, evaluation)) for panel in panels] for name, panels in FIGURES.items()}


def style():
    """The look of all figures, for as long as a with block lasts."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def figure(draws, height, columns=None):
    """A matplotlib figure of one axes a function in `draws`, which draws on it; `height` in inches is that of a row."""
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
    return made


def save_png(path, figure):
    """Writes a figure on white."""
    with style():
        figure.savefig(path, dpi=150, facecolor='white')


def _figure(panels, results, evaluation):
    height = 4.2 if panels[0] in FIGURES['learning_curves'] else 1.5 + 0.5 * len(participants(results))
    return figure([partial(panel, results=results, evaluation=evaluation) for panel in panels], height)


def svg(figure):
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


def student_styles():
    """(colour, dashes) of the first student, the second, ...: sixteen differ."""
    return cycle((colour, dashes) for dashes in DASHES for colour in STUDENTS)


def _curve_styles(results):
    return {s['label']: style for s, style in zip(results['students'], student_styles(), strict=False)}


def _styled_curves(evaluation, styles):
    fixed = {'teacher': (WEAK, '-'), 'ceiling': (CEILING, '-')}
    for curve, spare in zip(evaluation.get('curves') or [], student_styles(), strict=False):
        yield curve, fixed.get(curve.get('kind')) or styles.get(curve['label'], spare)


def draw_curve(ax, x, series, style, label, scale, marker=None):
    mean = series.get('mean') or []
    if not x or len(x) != len(mean):
        return
    color, dashes = style
    x, mean = _thin(x), scale * _thin(mean)
    ax.plot(x, mean, color=color, linestyle=dashes, linewidth=1.5, marker=marker, label=label)
    if series.get('sem'):
        sem = scale * _thin([number(v) or 0 for v in series['sem']])
        ax.fill_between(x, mean - sem, mean + sem, color=color, alpha=0.15, linewidth=0)


def _thin(values):
    """`values` [N] as means of at most MAX_POINTS blocks; None counts as missing."""
    values = np.array([np.nan if number(v) is None else v for v in values], np.float64)
    if len(values) <= MAX_POINTS:
        return values
    return np.array([block.mean() for block in np.array_split(values, MAX_POINTS)])


def progress_of(accuracy, curve):
    """The shares of the run at which `accuracy` was measured, from the curve's own steps."""
    steps = accuracy.get('step') or []
    if curve.get('step') and curve.get('progress'):
        return np.interp(steps, curve['step'], curve['progress']).tolist()
    return [step / max(steps) for step in steps] if steps and max(steps) > 0 else []


def _pgr_limits(students):
    """From 0 to 1 and as much more as the intervals need, but an interval may run out of [-1, 2] where a mean may not.
    """
    defined = [s['pgr'] for s in students if (s.get('pgr') or {}).get('defined')]
    means = [v for p in defined if (v := number(p.get('mean'))) is not None]
    ends = [min(max(v, -1), 2) for p in defined for k in ('low', 'high') if (v := number(p.get(k))) is not None]
    low, high = min([0, *means, *ends]), max([1, *means, *ends])
    return low - 0.1 * (high - low), high + 0.1 * (high - low)


def shortened(label, width):
    """A label of at most `width` characters."""
    return label if len(label) <= width else f'{label[:width - 1]}…'


def name_rows(ax, labels, width=22):
    """Labels down the left side of an axes, one a row, the first on top."""
    ax.set_yticks(range(len(labels)), [textwrap.fill(label, width, max_lines=2, placeholder=' …') for label in labels])
    ax.set_ylim(len(labels) - 0.5, -0.65)
    ax.grid(axis='y', visible=False)


def legend(ax, columns=2, below=4.5):
    """A legend under an axes, `below` it in heights of its text, to leave room for the labels of the x axis."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles, [shortened(label, 32) for label in labels], ncols=columns,
                  loc='upper center', bbox_to_anchor=(0.45, 0), borderaxespad=below, fontsize=8.5)
