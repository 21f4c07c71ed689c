"""Tables of texts that models write: what is asked, and what was written, put together as pairs to learn from."""
import itertools

import numpy as np

from w2s_jax.errors import DataError
from w2s_jax.labels.texts import TABLES
from w2s_jax.registry import Setting, Settings

ANSWER = '\n\nAssistant:'


@TABLES.register('openings', most=Setting(0, 0, 10**9, doc='rows, the first so many; 0: all'))
def openings(columns: dict, settings: Settings, rng) -> dict:
    """Prompts `[n, 1]`: what the two texts of a pair begin with, a transcript up to its last answer. columns:
    `texts/text` `[N, 2]`, of the rows `rows/values` if they are there. Raises DataError for a row without a beginning.
    """
    texts = columns['texts/text'] if 'texts/text' in columns else columns['text']
    rows = columns.get('rows/values')
    rows = np.arange(len(texts)) if rows is None else rows
    out = np.empty((len(rows[:settings.most or None]), 1), object)
    for i, row in enumerate(rows[:len(out)]):
        out[i, 0] = beginning([str(text) for text in texts[row]])
        if not out[i, 0].strip():
            raise DataError(f'text of example {row}: nothing to ask with, expected two texts that begin '
                            'alike')
    return {'text': out}


def beginning(texts: list[str]) -> str:
    """What texts of one row begin with, whole words."""
    same = ''.join(x[0] for x in itertools.takewhile(lambda x: len(set(x)) == 1, zip(*texts, strict=False)))
    if ANSWER in same:
        return same[:same.rindex(ANSWER) + len(ANSWER)]
    return same if all(len(text) == len(same) or text[len(same)].isspace() for text in texts) else (
        same[:len(same) - len(same.split(' ')[-1])])


@TABLES.register('continuations', end=Setting('', doc='put behind texts that came to their end'),
                 between=Setting('', doc='a prompt and what follows it'),
                 every=Setting(False, doc='keeps also pairs of equal or empty texts'))
def continuations(columns: dict, settings: Settings, rng) -> dict:
    """Pairs `[m, 2]` of prompts with two continuations, the preferred one first, and their `labels` `[m, 2]`.

    columns: `prompts/text` `[n, 1]`; `chosen/text` and `rejected/text` `[n, S]` with `.../ended`, sample i against
    sample i. Pairs of equal texts, and with an empty one, are left out. Raises DataError if none is left.
    """
    prompts = [str(text) for text in columns['prompts/text'][:, 0]]
    chosen, rejected = (continued(prompts, columns, name, settings) for name in ('chosen', 'rejected'))
    text = np.stack([chosen, rejected], axis=-1).reshape(-1, 2)
    bare = np.repeat(np.array(prompts, object), chosen.shape[1])
    keep = (text[:, 0] != text[:, 1]) & (text[:, 0] != bare) & (text[:, 1] != bare)
    if not settings.every:
        if not keep.any():
            raise DataError(f'{len(text)} pairs of texts that models wrote: all equal, or one of them empty; expected '
                            'models that differ, or more method.steps')
        text = text[keep]
    return {'text': text, 'labels': np.tile(np.array([1, 0], np.float32), (len(text), 1))}


@TABLES.register('first')
def first(columns: dict, settings: Settings, rng) -> dict:
    """`text` and `ended` `[n, S]` with the first of each row in every place."""
    return {name: np.repeat(columns[name][:, :1], columns[name].shape[1], axis=1) for name in ('text', 'ended')}


@TABLES.register('ranked', best=Setting(True, doc='whether the best is taken, or the worst'))
def ranked(columns: dict, settings: Settings, rng) -> dict:
    """Of each prompt's texts, `texts/text` and `texts/ended` `[n, S]`, the one that a judge likes best, or least, `[n,
    1]`. columns: `scores/labels` `[n S, 2]`, the probability that it is better than one and the same other text."""
    scores = columns['scores/labels'][:, 0].reshape(columns['texts/ended'].shape)
    at = (scores.argmax(1) if settings.best else scores.argmin(1))[:, None]
    return {name: np.take_along_axis(columns[f'texts/{name}'], at, axis=1) for name in ('text', 'ended')}


def continued(prompts: list[str], columns: dict, name: str, settings: Settings) -> np.ndarray:
    """`[n, S]`: prompts with what was written after them; a bare prompt where that is nothing."""
    texts, ended = columns[f'{name}/text'], columns[f'{name}/ended']
    if len(texts) != len(prompts):
        raise DataError(f'{name}: {len(texts)} texts for {len(prompts)} prompts, expected as many')
    out = np.empty(texts.shape, object)
    for (i, j), text in np.ndenumerate(texts):
        more = str(text) + (settings.end if ended[i, j] else '')
        out[i, j] = prompts[i] + settings.between + more if more.strip() else prompts[i]
    return out
