"""What the files of a work directory look like: their fields by type, so that a damaged one is named with the field."""
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from w2s_jax.errors import StoreError, UserError

# A shape is 'number', 'text', 'switch', 'any'; [shape]: a list of such; {...}: an object, of which each field may be
# missing or null; {'*': shape}: an object whose fields all are such. A trailing dict is merged: {**A, ...}.
MEAN = {'mean': 'number', 'sem': 'number', 'low': 'number', 'high': 'number', 'seeds': ['number']}
INTERVAL = {'mean': 'number', 'low': 'number', 'high': 'number', 'defined': 'switch', 'detectable': 'number'}
VERSUS = {**INTERVAL, 'label': 'text', 'p': 'number'}
MEASURE = {**MEAN, 'title': 'text', 'factor': 'number', 'digits': 'any', 'test': 'text'}
SERIES = {'line': 'text', 'figure': 'text', 'axes': ['text'], 'diagonal': 'switch', 'x': ['number'], 'y': ['number'],
          'sem': ['number']}
MEASURED: dict[str, Any] = {
    'model': 'text', 'accuracy': MEAN, 'measures': {'*': MEASURE}, 'parameters': 'number', 'ids': ['text'],
    'pgr': INTERVAL, 'pgr_seeds': ['number'], 'gain': INTERVAL, 'versus': VERSUS, 'beyond_zero_shot': INTERVAL,
    'agreement': {'*': MEAN}, 'series': {'*': SERIES}, 'notes': {'*': 'text'}}
ENTRY: dict[str, Any] = {**MEASURED, 'tests': {'*': MEASURED}, 'method': 'text', 'loss': 'text', 'label': 'text',
                         'oracle': 'switch', 'supervisor': 'text'}
ALARM = {'code': 'text', 'message': 'text', 'accepted': 'switch', 'of': 'any'}
PHASE = {'id': 'text', 'kind': 'text', 'name': 'text', 'model': 'text'}  # what are no numbers count as none
TOKENS = {'of': 'text', **dict.fromkeys(('texts', 'truncated', 'tokens'), 'number')}
TIMING = {'total_seconds': 'number', 'phases': [PHASE]}
VERSIONS = {'*': 'text'}
RESULTS = {'task': {'name': 'text', 'tokens': [TOKENS], 'leak': {'warning': 'text'}},
           **dict.fromkeys(('weak', 'ceiling', 'zero_shot', 'majority'), ENTRY), 'students': [ENTRY],
           'alarms': [ALARM], 'timing': TIMING, 'versions': VERSIONS}
CURVE = {'label': 'text', 'kind': 'text', 'step': ['number'], 'progress': ['number'],
         'loss': {'mean': ['number'], 'sem': ['number']}, 'epochs': ['number'],
         'accuracy': {'step': ['number'], 'mean': ['number'], 'sem': ['number']},
         'stops': {'*': {'step': 'number', 'accuracy': 'number'}}}
EVALUATION = {'curves': [CURVE], 'examples': [{'html': 'text'}], 'config': {}}
COMPARISON = {**VERSUS, 'task': 'text', 'teacher': 'text', 'student': 'text', 'settings': {}, 'method': 'text',
              'loss': 'text', 'baseline': 'text'}
GRID = {'name': 'text', 'axes': {'*': ['any']}, 'phases': [PHASE], 'comparisons': [COMPARISON], 'timing': TIMING,
        'versions': VERSIONS, 'cells': [{'name': 'text', 'overrides': {}, 'folder': 'text'}]}
KINDS = {'number': (int | float, 'a number'), 'text': (str, 'text'), 'switch': (bool, 'true or false')}
MOST = 1e15  # what a number may be: a report counts, divides and draws them


def check(value: Any, shape: Any, path: Path, name: str = '') -> None:
    """Raises StoreError, naming file and field, for what has another shape."""
    if value is None or shape == 'any':
        return
    if isinstance(shape, str):
        kind, said = KINDS[shape]
        if not isinstance(value, kind) or (shape == 'number' and not _usable(value)):
            raise _damaged(path, name, said, value)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _damaged(path, name, 'a list', value)
        for i, one in enumerate(value):
            check(one, shape[0], path, f'{name}.{i}')
    elif not isinstance(value, dict):
        raise _damaged(path, name, 'an object', value)
    else:
        for field, one in value.items():
            if field in shape or '*' in shape:
                check(one, shape.get(field, shape.get('*')), path, f'{name}.{field}'.lstrip('.'))


def _usable(value: Any) -> bool:
    """Whether a report can compute with a number; NaN and infinity are shown as a dash."""
    return not isinstance(value, bool) and ((isinstance(value, float) and not abs(value) < float('inf'))
                                            or abs(value) < MOST)


def _damaged(path: Path, name: str, expected: str, value: Any) -> StoreError:
    return StoreError(f'{path}: damaged: {name or "the file"} must be {expected}, found {str(value)[:40]!r}')


@contextlib.contextmanager
def doubting(workdir: Path) -> Iterator[None]:
    """A block that makes a report of files that may be damaged in ways that `check` does not see. Raises StoreError,
    which names them, for whatever breaks in it."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as e:
        grid = workdir / 'grid.json'
        files = f'{grid}, or a results.json' if grid.exists() else f'{workdir / "results.json"} or evaluation.json'
        raise StoreError(f'{files}: damaged ({type(e).__name__}: {" ".join(str(e).split())[:100]}), expected what '
                         'experiments.run wrote') from e
