"""TABLES: name -> what columns are made of others: `fn(columns, settings, rng) -> columns`, name -> array `[N, ...]`,
or texts `[N, S]` as objects. Columns of several needs are called NEED/COLUMN.
"""
from collections.abc import Mapping

import numpy as np

from w2s_jax.labels import prompts
from w2s_jax.labels.prompts import TEMPLATE
from w2s_jax.registry import Registry, Setting, Settings

TABLES = Registry('table', traces=True)


@TABLES.register('hints', test=Setting('', doc="the test set whose texts these are; '': the pool"),
                 words=Setting((), doc='what classes are called, in order; (): their numbers'))
def hint(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Texts that end with what the weak model thinks of them, so that imitation is trivial (Burns et al. 2023, arXiv
    2312.09390, appendix E.3); those that it was not asked about stay as they are.

    columns: `texts/text` `[N, S]`; of the pool `labels/labels`, classes or probabilities, of the rows `rows/values` or
    `labels/rows`; of a test set the weak model's answers on it.
    """
    texts, said = columns['texts/text'], dict(zip(*answers(columns, settings.test), strict=True))
    words = settings.words or range(max(said.values()) + 1)
    ends = [f'\n\nI think this is {words[said[i]]}. What do you think?' if i in said else '' for i in range(len(texts))]
    return {'text': np.array([[text + end for text in row] for row, end in zip(texts, ends, strict=True)], object)}


@TABLES.register('prompts', words=Setting((), doc='of the classes'), template=Setting(TEMPLATE, doc='of a prompt'),
                 shots=Setting(0, doc='examples that are shown'))
def prompt(columns: dict, settings: Settings, rng) -> dict:
    """Prompts of texts, `[N, K]`; `shown/...`: texts, rows and labels that examples are taken from."""
    texts = columns['texts/text'] if 'texts/text' in columns else columns['text']
    shown = []
    if settings.shots:
        rows, labels = labelled(columns)
        picked = prompts.chosen(labels, settings.shots, rng)
        classes = labels if labels.ndim == 1 else labels.argmax(-1)
        shown = [(str(columns['pool/text'][rows[i]][0]), int(classes[i])) for i in picked]
    return {'text': prompts.prompts([str(row[0]) for row in texts], settings.words, settings.template, shown)}


def answers(columns: Mapping[str, np.ndarray], test: str) -> tuple[list[int], list[int]]:
    """Rows, and the class that the weak model says of each."""
    if test:
        given = columns.get(f'weak/{test}.top')
        found = columns['weak/values'].argmax(-1) if given is None else given[:, 0]
        return list(range(len(found))), found.tolist()
    rows, labels = labelled(columns)
    return rows.tolist(), (labels if labels.ndim == 1 else labels.argmax(-1)).tolist()


def labelled(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows `[n]` and their labels, `[n]` or `[n, K]`: of needs `rows` and `labels`, or of labels that say which rows
    they are of."""
    return (_first(columns, ('rows/values', 'rows/rows', 'labels/rows')),
            _first(columns, ('labels/values', 'labels/labels')))


def _first(columns: Mapping[str, np.ndarray], names) -> np.ndarray:
    """The first of these columns that is there."""
    return next(columns[name] for name in names if name in columns)


@TABLES.register('kept')
def kept(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Of a column of some rows of the pool those rows that a transform has kept. `column/labels` or `column/values`
    `[n, ...]`, of the rows `of/values`; `kept/rows`."""
    place = {row: i for i, row in enumerate(columns['of/values'].tolist())}
    at = np.array([place[row] for row in columns['kept/rows'].tolist()], int)
    return {'labels': _first(columns, ('column/labels', 'column/values'))[at]}


@TABLES.register('rows')
def rows_of(columns: Mapping[str, np.ndarray], settings: Settings, rng) -> dict:
    """Of features of inputs, `features/features` `[N, ...]`, those of the rows that are learned from, or all."""
    if 'features' in columns:  # the only need
        return {'labels': columns['features']}
    return {'labels': columns['features/features'][_first(columns, ('rows/values', 'rows/rows'))]}
