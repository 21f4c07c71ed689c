"""What a run found, for people: a table for the terminal, and one page that needs no other file.

Everything comes from two files in the work directory, so a report can be made again at any time:
W/results.json (the machine-readable result) and W/evaluation.json (learning curves, examples, the config).
"""

import contextlib
import json
import os
from pathlib import Path

from w2s_jax.errors import StoreError
from w2s_jax.report import figures
from w2s_jax.report.figures import number

TEMPLATES = Path(__file__).parent / 'templates'
UNDEFINED = 'undefined (gap within noise)'
DASH = '–'
TOO_MANY = 0.1  # the share of truncated texts above which the report warns

# Measures that a task may add to its models' entries: name -> (title, factor, digits).
MEASURES = {
    'top5': ('top-5 accuracy %', 100, 1),
    'auroc': ('AUROC', 1, 3),
    'ece': ('calibration error (ECE)', 1, 3),
    'legal': ('legal answers %', 100, 1),
    'labels': ('right labels given to students %', 100, 1),
}


def load(workdir):
    """(results, evaluation) of a work directory; raises StoreError if a file is missing or damaged."""
    results, evaluation = (read(Path(workdir) / name) for name in ('results.json', 'evaluation.json'))
    check_lists(results, Path(workdir) / 'results.json', students='label')
    _check_accuracies(results, Path(workdir) / 'results.json')
    check_lists(evaluation, Path(workdir) / 'evaluation.json', curves='label', examples='html')
    return results, evaluation


def terminal_table(results):
    """Aligned plain text: a row for the weak model, each student and the ceiling, and a column per finding."""
    rows = [('', 'model', 'accuracy %', 'PGR', 'follows weak errors %')]
    rows += [(r['label'], r['model'], r['accuracy'], r['pgr'], r['followed']) for r in table_rows(results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return '\n'.join([lines[0], '-' * max(map(len, lines)), *lines[1:], *(f'warning: {w}' for w in warnings(results))])


def warnings(results):
    """What makes the numbers doubtful: labels that the surface of the texts tells, texts cut short."""
    task = results.get('task') or {}
    found = [(task.get('leak') or {}).get('warning')]
    for part in task.get('tokens') or []:
        if part['truncated'] > TOO_MANY * part['texts']:
            found.append(f'{part["of"]}: {part["truncated"]} of {part["texts"]} texts were cut '
                         f'to {part["longest"]} tokens (task.max_length)')
    return [w for w in found if w]


def table_rows(results):
    """What the table says of each model, as a list of dicts of strings; accuracies in per cent."""
    return [
        {
            'label': ' '.join(label.split()),
            'model': ' '.join(str(entry.get('model') or DASH).split()),
            'colour': figures.PAGE_COLOURS.get(colour, colour),
            'detail': ' · '.join(filter(None, (str(entry.get('model') or ''), _loss_text(entry)))),
            'accuracy': measure_text(entry['accuracy'], 100, 1),
            'pgr': pgr_text(entry['pgr']) if 'pgr' in entry else '',
            'gain': gain_text(entry.get('gain')),
            'followed': _followed_text(entry),
            'measures': [_measure_of(entry, name) for name in _measures_in(results)],
        }
        for label, colour, entry in figures.participants(results)
    ]


def measure_text(measure, factor=1, digits=3):
    """'61.2 ± 0.4' of {'mean', 'sem'} times `factor`; without a standard error where there is but one seed."""
    mean, sem = (number((measure or {}).get(k)) for k in ('mean', 'sem'))
    if mean is None:
        return DASH
    return f'{factor * mean:.{digits}f}' + (f' ± {factor * sem:.{digits}f}' if sem is not None else '')


def pgr_text(pgr):
    """'0.54 [0.40, 0.67]' of {'mean', 'low', 'high', 'defined'}, or that it is undefined."""
    mean, low, high = (number((pgr or {}).get(k)) for k in ('mean', 'low', 'high'))
    if mean is None or not pgr.get('defined'):
        return UNDEFINED
    return f'{mean:.2f}' + (f' [{low:.2f}, {high:.2f}]' if low is not None and high is not None else '')


def write(workdir):
    """Writes W/plots/*.png and then W/report.html, whole or not at all; returns the page's path.

    Raises StoreError if the inputs are missing or damaged, or the work directory cannot be written to.
    """
    results, evaluation = load(workdir)
    with writing(workdir):
        folder = Path(workdir) / 'plots'
        folder.mkdir(exist_ok=True)
        figures.write_pngs(folder, results, evaluation)
        return replace(Path(workdir) / 'report.html', html(results, evaluation))


@contextlib.contextmanager
def writing(workdir):
    """Makes a StoreError of what the file system objects to in the block."""
    try:
        yield
    except OSError as error:
        raise StoreError(f'{error.filename or workdir}: cannot write the report: {error.strerror}') from error


def replace(path, text):
    """Writes a file that a reader sees whole or not at all; returns its path."""
    aside = path.with_name(f'{path.name}.tmp')
    aside.write_text(text, encoding='utf-8')
    os.replace(aside, path)
    return path


def render(template, **values):
    """A page of TEMPLATES as text. Everything is escaped but what the template calls safe."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def html(results, evaluation):
    """The page as text: inline styles and plots, no request to anywhere. Labels and settings are escaped; the
    examples' HTML is taken as it is, for the task has escaped it."""
    return render(
        'report.html',
        title=f'Weak to strong: {_task_name(results)}',
        headline=headline(results),
        warnings=warnings(results),
        rows=table_rows(results),
        measures=[MEASURES[name][0] for name in _measures_in(results)],
        svgs=figures.svg_panels(results, evaluation),
        examples=[example['html'] for example in evaluation.get('examples') or []],
        facts={k: v for k, v in flat(results.get('task')) if k != 'name'},
        timing=_timing(results),
        versions=dict(flat(results.get('versions'))),
        config=dict(flat(evaluation.get('config'))),
    )


def headline(results):
    """The finding in a sentence or two, about the student with the highest defined PGR."""
    students = results['students']
    defined = [s for s in students if (s.get('pgr') or {}).get('defined') and number(s['pgr'].get('mean')) is not None]
    if not defined:
        return 'The performance gap recovered is undefined here: the gap between weak and ceiling is within its noise.'
    best = max(defined, key=lambda s: s['pgr']['mean'])
    who = 'The student' if len(students) == 1 else f'The best of {len(students)} students'
    low, high = number(best['pgr'].get('low')), number(best['pgr'].get('high'))
    interval = f' (interval: {100 * low:.0f} to {100 * high:.0f} %)' if low is not None and high is not None else ''
    return (f'{who} ({best["label"]}) recovers {100 * best["pgr"]["mean"]:.0f} % of the gap between its weak '
            f'supervisor and the same model trained on ground truth{interval}.{_caveat(results, best)}')


def _caveat(results, student):
    """PGR says nothing about what the strong model could do before it was fine-tuned, so the headline must."""
    if not results.get('zero_shot') or results['zero_shot']['accuracy']['mean'] <= student['accuracy']['mean']:
        return ''
    before = results['zero_shot']['accuracy']['mean']
    return f' But the same model, not fine-tuned at all, is right more often ({100 * before:.1f} %).'


def read(path):
    """The JSON object in a file. Raises StoreError."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise StoreError(f'{path}: not found: the experiment must finish before it can be reported') from None
    except OSError as error:
        raise StoreError(f'{path}: cannot be read: {error.strerror}') from error
    except ValueError as error:
        raise StoreError(f'{path}: damaged: expected JSON, but {error}') from error
    if not isinstance(content, dict):
        raise StoreError(f'{path}: damaged: expected a JSON object, found {type(content).__name__}')
    return content


def check_lists(content, path, **lists):
    """Each of `lists` (name -> key), where it is there, is a list of objects in which the key is text."""
    for name, key in lists.items():
        items = content.get(name) or []
        if not isinstance(items, list) or not all(isinstance(i, dict) and isinstance(i.get(key), str) for i in items):
            raise StoreError(f'{path}: damaged: {name} must be a list of objects with a text {key}')


def _check_accuracies(results, path):
    """The numbers that no report can do without."""
    results['students'] = results.get('students') or []
    entries = {'weak': results.get('weak'), 'ceiling': results.get('ceiling')}
    if results.get('zero_shot'):
        entries['zero_shot'] = results['zero_shot']
    for name, entry in [*entries.items(), *((f'students[{i}]', s) for i, s in enumerate(results['students']))]:
        accuracy = entry.get('accuracy') if isinstance(entry, dict) else None
        if not isinstance(accuracy, dict) or number(accuracy.get('mean')) is None:
            raise StoreError(f'{path}: damaged: {name}.accuracy.mean must be a number')


def _loss_text(entry):
    loss, alpha = entry.get('loss'), number(entry.get('alpha'))
    return f'{loss}, α {alpha:g}' if loss and alpha else str(loss or '')


def _followed_text(entry):
    """How often a student says what the weak model wrongly says; nothing for models that are no students."""
    return measure_text(entry['agreement'].get('weak_wrong'), 100, 1) if entry.get('agreement') else ''


def gain_text(gain):
    """'+3.1 [+1.0, +5.2]', in points, of {'mean', 'low', 'high'}, shares of the test set."""
    mean, low, high = (number((gain or {}).get(k)) for k in ('mean', 'low', 'high'))
    if mean is None:
        return ''
    return f'{100 * mean:+.1f}' + (f' [{100 * low:+.1f}, {100 * high:+.1f}]' if None not in (low, high) else '')


def _measures_in(results):
    entries = [entry for _, _, entry in figures.participants(results)]
    return [name for name in MEASURES if any(entry.get(name) for entry in entries)]


def _measure_of(entry, name):
    _, factor, digits = MEASURES[name]
    return measure_text(entry[name], factor, digits) if entry.get(name) else ''


def _task_name(results):
    return str((results.get('task') or {}).get('name') or 'a task')


def _timing(results):
    """[(phase, seconds, of which compiling)] as text, the total last."""
    timing = results.get('timing') or {}
    rows = [(_phase_text(phase), seconds_text(phase.get('seconds')), seconds_text(phase.get('compile_seconds')))
            for phase in timing.get('phases') or []]
    return [*rows, ('this run', seconds_text(timing['total_seconds']), '')] if 'total_seconds' in timing else rows


def _phase_text(phase):
    name = str(phase.get('name') or phase.get('kind') or 'phase')
    seed = '' if phase.get('seed') is None else f', seed {phase["seed"]}'
    return f'{name}{seed}{" (done in an earlier run)" if phase.get("skipped") else ""}'


def seconds_text(value):
    return DASH if number(value) is None else f'{number(value):.1f} s'


def flat(tree, prefix=''):
    """(dotted key, value as text) of a tree of dicts, sorted as it comes."""
    for key, value in (tree or {}).items():
        if isinstance(value, dict):
            yield from flat(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value if isinstance(value, str) else json.dumps(value)
