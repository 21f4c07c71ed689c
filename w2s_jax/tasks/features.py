"""Features as arrays: what a weak and a strong frozen model make of each row, and its class.

That is the paper's vision setup (arXiv 2312.09390, appendix D.1: probes on AlexNet's and DINO's features of ImageNet)
with features that were computed elsewhere. The models are probes called `linear`: the teacher reads `weak`, the student
`strong`.
"""
import dataclasses

import numpy as np

from w2s_jax.data import Dataset, Examples
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import array_files, cuts
from w2s_jax.tasks.text.statements import group_id

FIELDS = ('strong', 'weak', 'label', 'given', 'group')


def load(task, log=print) -> Dataset:
    """Examples with inputs `features` `[N, D]` (of the strong model) and `weak` `[N, W]`, float32.

    task: path and test_path ('' = a fifth of the rows), as `array_files.read` has them; the names of arrays: strong,
    weak ('' = none, for labels.source=column), label (`[N]`, classes from 0 up or texts), given ('' = none; weak
    labels: `[N, K]` probabilities, or classes), group ('' = each row by itself); train_size, test_size, seed.
    Raises ConfigError for fields that contradict each other, DataError for files that cannot be used.
    """
    if not task.path:
        raise ConfigError("task.path: empty, expected a .npz or .parquet file, or a folder of .npy files")
    asked = {field: task[field] for field in FIELDS if task[field]}
    if missing := [field for field in ('strong', 'label') if field not in asked]:
        raise ConfigError(f'task.{missing[0]}: empty, expected the name of an array')
    if len(set(asked.values())) < len(asked):
        raise ConfigError(f'task: {", ".join(f"{k}={v!r}" for k, v in asked.items())}, expected a different array each')
    parts = {task.path: array_files.read(task.path, asked)}
    if task.test_path:
        parts[task.test_path] = array_files.read(task.test_path, asked)
    found = [checked(path, part) for path, part in parts.items()]
    names, numbers = classes([part['label'] for part in found], list(parts), [part.get('given') for part in found])
    rows = [examples(part, number, len(names), path) for part, number, path in zip(found, numbers, parts, strict=True)]
    pool, test, shared = _both(rows, list(parts), task)
    notes = {'rows': sum(map(len, rows)), 'skipped': 0, 'source': ', test: '.join(map(str, parts)), 'classes': names,
             'shared_with_test': shared, 'widths': {k: v.shape[1] for k, v in pool.inputs.items()}}
    return Dataset('features', len(names), pool, test, notes=notes if len(names) <= 100 else notes | {'classes': []})


def checked(path: str, part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of one length, features `[N, D]` as finite float32. Raises DataError that names what is not so."""
    first = next(iter(part))
    for field, array in part.items():
        if not array.ndim or len(array) != len(part[first]):
            raise DataError(f'{path}: task.{field} has {len(array) if array.ndim else "no"} rows and task.{first} '
                            f'{len(part[first])}, expected as many')
    if len(part[first]) < 2:
        raise DataError(f'{path}: {len(part[first])} rows, expected at least two')
    return part | {field: _numbers(path, field, part[field]) for field in ('strong', 'weak') if field in part}


def _numbers(path: str, field: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in 'fiub':
        raise DataError(f'{path}: task.{field} is {array.dtype} of shape {list(array.shape)}, expected numbers [N, D]')
    with np.errstate(over='ignore'):
        found = array.astype(np.float32)
    finite = np.isfinite(found).all(1)
    if not finite.all():
        raise DataError(f'{path}: task.{field}: row {int(np.argmin(finite)) + 1} holds what is not finite or too '
                        'large, expected finite numbers')
    return found


def classes(labels: list[np.ndarray], paths: list, given: list) -> tuple[list[str], list[np.ndarray]]:
    """(names of the classes, `[N]` int32 of every file): whole numbers from 0 up are classes themselves, of texts each
    different one. given: soft labels `[N, K]` or `[N, T, K]` say how many there are at least. Raises DataError."""
    for path, label in zip(paths, labels, strict=True):
        if label.ndim != 1 or label.dtype.kind not in 'iubfU':
            raise DataError(f'{path}: task.label is {label.dtype} of shape {list(label.shape)}, expected [N] classes')
    if any(label.dtype.kind == 'U' for label in labels):
        names, numbers = np.unique(np.concatenate([label.astype(str) for label in labels]), return_inverse=True)
        ends = np.cumsum([len(label) for label in labels])[:-1]
        return _enough(paths[0], [str(n) for n in names]), np.split(numbers.astype(np.int32), ends)
    rows = sum(map(len, labels))
    for path, label in zip(paths, labels, strict=True):
        wrong = ~((label >= 0) & (label < rows) & (label == np.floor(label)))
        if wrong.any():
            raise DataError(f'{path}: task.label: row {int(np.argmax(wrong)) + 1} is {label[np.argmax(wrong)]}, '
                            f'expected a class: a whole number from 0 up, below the {rows} rows')
    soft = max([g.shape[-1] for g in given if g is not None and g.ndim > 1], default=0)
    number = max(soft, *(int(label.max()) + 1 for label in labels))
    return _enough(paths[0], [str(k) for k in range(number)]), [label.astype(np.int32) for label in labels]


def _enough(path, names: list[str]) -> list[str]:
    if len(names) < 2:
        raise DataError(f'{path}: task.label has only the class {names[0]!r}, expected two or more classes')
    return names


def examples(part: dict[str, np.ndarray], truth: np.ndarray, num_classes: int, path: str) -> Examples:
    """Rows of arrays. Raises DataError for weak labels or groups that are none."""
    n, group = len(truth), part.get('group')
    if group is not None and (group.ndim != 1 or group.dtype.kind not in 'iubU'):
        raise DataError(f'{path}: task.group is {group.dtype} of shape {list(group.shape)}, expected [N] integers or '
                        'texts')
    ids = np.arange(n) if group is None else np.array([group_id(g) for g in group.tolist()]) \
        if group.dtype.kind == 'U' else group
    inputs = {'features': part['strong']} | ({'weak': part['weak']} if 'weak' in part else {})
    return Examples(inputs, truth, ids.astype(np.int64), _soft(path, part['given'], num_classes) if 'given' in part
                    else None)


def _soft(path: str, given: np.ndarray, num_classes: int) -> np.ndarray:
    """Weak labels `[N, K]` float32, probabilities or one-hot classes; of several teachers `[N, T, K]`."""
    where = f'{path}: task.given'
    if given.ndim == 3 and given.shape[1]:
        return np.stack([_soft(path, given[:, t], num_classes) for t in range(given.shape[1])], axis=1)
    if given.dtype.kind not in 'fiub' or given.ndim not in (1, 2):
        raise DataError(f'{where} is {given.dtype} of shape {list(given.shape)}, expected [N] classes, [N, K] '
                        'probabilities, or [N, T, K] of T teachers')
    if given.ndim == 1:
        fits = (given >= 0) & (given < num_classes) & (given == np.floor(given))
    else:
        if given.shape[1] != num_classes:
            raise DataError(f'{where} has {given.shape[1]} classes, expected the {num_classes} of task.label')
        fits = (given >= 0).all(1) & (np.abs(given.sum(1, dtype=np.float64) - 1) < .01)
    if not fits.all():
        raise DataError(f'{where}: row {int(np.argmin(fits)) + 1} is {str(given[np.argmin(fits)])[:60]!r}, expected '
                        f'{"a class" if given.ndim == 1 else "probabilities that sum to 1"}')
    if given.ndim == 1:
        return (given[:, None] == np.arange(num_classes)).astype(np.float32)
    return (given / given.sum(1, keepdims=True)).astype(np.float32)


def _both(rows: list[Examples], paths: list[str], task) -> tuple[Examples, Examples, int]:
    """(pool, test set, rows of the pool that were left out for a group of the test set)."""
    pool, *test = rows
    left = np.arange(len(pool))
    if not test:
        pool, held = cuts.cut(pool, task)
    else:
        held = test[0] if task.group else dataclasses.replace(test[0], group=test[0].group + len(pool))
        for name, array in pool.inputs.items():
            if (width := held.inputs[name].shape[1]) != array.shape[1]:
                raise DataError(f'{paths[1]}: task.{"strong" if name == "features" else name} has {width} numbers a '
                                f'row, expected the {array.shape[1]} of {paths[0]}')
        left = np.flatnonzero(~np.isin(pool.group, held.group))
        if not len(left):
            raise DataError(f'{paths[0]}: no row left, every group is also in {paths[1]}')
        pool, shared = pool.take(left), len(pool) - len(left)
    shared = shared if test else 0
    return (cuts.sample(pool, task.train_size, 'train_size', task.seed),
            cuts.sample(held, task.test_size, 'test_size', task.seed), shared)
