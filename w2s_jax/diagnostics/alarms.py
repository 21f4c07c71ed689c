"""What makes the numbers of an experiment doubtful: codes for results.json, the terminal and the report.

A PGR is marked in tables as long as an alarm concerns it whose code `report.accept` does not name.
"""
from collections.abc import Iterator

ALARMS: dict[str, str] = {
    'leak': 'something in the texts other than their meaning tells the label',
    'undefined_gap': 'the gap between weak model and ceiling is within its noise, so that PGR means nothing',
    'ceiling_below_teacher': 'the strong model on truth is not as good as the weak one: train it better first',
    'ceiling_at_majority': 'the ceiling is not surely better than always giving the most frequent answer',
    'weak_at_majority': 'the weak model is not surely better than always giving the most frequent answer',
    'below_zero_shot': 'a student is right less often than the same model before any fine-tuning',
    'below_supervisor': 'on a further test set a student is surely right less often than its supervisor',
    'shrinks': 'a model of a chain has fewer parameters than the one whose answers it learns',
    'fell': 'a student was better during training than at its end, by more than its interval: another length gives '
            'another PGR, and a rule should choose it (student.stopping.name)',
    'unbalanced': 'one class has most of the rows: compare with the majority baseline',
    'one_seed': 'intervals are over test examples alone and say nothing about other seeds',
}
MOST = 1.3  # a class with so many times the rows of an even share makes a task unbalanced


def raised(task: dict, measured: dict, curves: list[dict], accepted: tuple[str, ...] = ()) -> list[dict]:
    """The alarms of an experiment, each with `code`, `message`, `accepted`, and `student` (a label) if it is of one.

    task: the section of results.json.  measured: weak, ceiling, students ... of the main test set.  curves: of
    evaluation.json.  accepted: codes that the user has looked at.
    """
    found = [*_task(task, measured), *_models(measured), *_students(measured, curves)]
    return [alarm | {'accepted': alarm['code'] in accepted} for alarm in found]


def _alarm(code: str, message: str, **more) -> dict:
    return {'code': code, 'message': message, **more}


def _task(task: dict, measured: dict) -> Iterator[dict]:
    if warning := (task.get('leak') or {}).get('warning'):
        yield _alarm('leak', warning)
    share, classes = (measured.get('majority') or {}).get('share_of_pool', 0), task['classes']
    if share > MOST / classes and share > 2 / 3:
        yield _alarm('unbalanced', f'{100 * share:.0f} % of the pool are of one class of {classes}: compare with '
                                   'always answering it')
    if len(measured['students'][0]['accuracy']['seeds']) == 1:
        yield _alarm('one_seed', 'one seed: intervals are over test examples, and say nothing about other seeds')


def _models(measured: dict) -> Iterator[dict]:
    weak, ceiling = (measured[role].get('accuracy') for role in ('weak', 'ceiling'))
    base = (measured.get('majority') or {}).get('accuracy')
    if weak and ceiling and ceiling['mean'] < weak['mean']:
        yield _alarm('ceiling_below_teacher', f'the ceiling ({_percent(ceiling)}) is below the weak model '
                                              f'({_percent(weak)}): the strong model is not trained well, or is not '
                                              'stronger')
    for role, who, found in (('ceiling', 'the ceiling', ceiling), ('weak', 'the weak model', weak)):
        if base and found and found.get('low', 1) <= base['mean']:
            yield _alarm(f'{role}_at_majority', f'{who} ({_percent(found)}) is not surely better than always giving '
                                                f'the most frequent answer ({_percent(base)})')


def _students(measured: dict, curves: list[dict]) -> Iterator[dict]:
    before = measured.get('zero_shot') or {}
    curve_of = {c['label']: c for c in curves if c.get('kind') == 'student'}
    for student in measured['students']:
        label, accuracy = student['label'], student['accuracy']
        if 'pgr' in student and not student['pgr']['defined']:
            yield _alarm('undefined_gap', f'{label}: no PGR, as the gap between weak model and ceiling is within its '
                                          'noise', student=label)
        zero = before.get('accuracy') if before.get('model') == student.get('model') else None
        if zero and accuracy['mean'] < zero['mean']:
            yield _alarm('below_zero_shot', f'{label} ({_percent(accuracy)}) is right less often than the same model '
                                            f'before any fine-tuning ({_percent(zero)})', student=label)
        for name, elsewhere in (student.get('tests') or {}).items():
            gain = elsewhere.get('gain') or {}
            if gain.get('high', 0) < 0:
                yield _alarm('below_supervisor', f'{label} is surely below its supervisor on the test set {name!r}, by '
                                                 f'{-100 * gain["mean"]:.1f} points', student=label)
        yield from _shrinks(student, measured['students'])
        yield from _fell(student, curve_of.get(label) or {})


def _shrinks(student: dict, students: list[dict]) -> Iterator[dict]:
    """A student of another student that has more parameters than it has itself."""
    taught = next((s for s in students if s['label'] == student.get('supervisor')), {})
    mine, theirs = student.get('parameters'), taught.get('parameters')
    if mine and theirs and mine < theirs:
        yield _alarm('shrinks', f'{student["label"]} ({student["model"]}, {mine} parameters) learns the answers of a '
                                f'larger model ({taught["model"]}, {theirs}): the chain shrinks, expected growing '
                                'models', student=student['label'])


def _fell(student: dict, curve: dict) -> Iterator[dict]:
    """A student that no rule has stopped, and whose accuracy on the watched rows was once higher by more than half its
    interval."""
    stops, accuracy = curve.get('stops') or {}, student['accuracy']
    if 'stopped' in student or not {'best', 'final'} <= stops.keys() or 'low' not in accuracy:
        return
    fall = stops['best']['accuracy'] - stops['final']['accuracy']
    if fall > (accuracy['high'] - accuracy['low']) / 2:
        yield _alarm('fell', f'{student["label"]} was {100 * fall:.1f} points better during training than at its end: '
                             'the length of training decides its PGR (student.stopping.name chooses it without truth)',
                     student=student['label'])


def _percent(accuracy: dict) -> str:
    return f'{100 * accuracy["mean"]:.1f} %'
