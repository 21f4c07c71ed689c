"""Texts as prompts: each once with every answer behind it, and examples before it. Pure functions of strings."""
from collections.abc import Sequence

import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.registry import Settings

BETWEEN = '\n\n'
TEMPLATE = '{text}\nAnswer: {answer}'


def check_template(field: str, settings: Settings) -> None:
    """Raises ConfigError for a `template` that is none, or `words` that are none."""
    template = settings.template
    if template.count('{text}') != 1 or template.count('{answer}') != 1 or not template.endswith('{answer}'):
        raise ConfigError(f'{field}.template: {template!r}, expected {{text}} once, and {{answer}} once at its end')
    if not all(isinstance(word, str) and word for word in settings.words):
        raise ConfigError(f'{field}.words: {settings.words}, expected words')


def prompts(texts: Sequence[str], words: Sequence[str], template: str, shown: Sequence[tuple[str, int]] = ()
            ) -> np.ndarray:
    """`[N, K]` str: examples, then a text with each of K answers.

    Args:
      texts: N.  words: K, how the classes are called.  template: of {text} and {answer}, the answer last.
      shown: (text, class) of the examples, in order.
    """
    before = ''.join(filled(template, text, words[answer]) + BETWEEN for text, answer in shown)
    out = np.empty((len(texts), len(words)), object)
    for i, text in enumerate(texts):
        out[i] = [before + filled(template, text, word) for word in words]
    return out


def filled(template: str, text: str, answer: str) -> str:
    """A template with its text and answer; braces of theirs stay as they are."""
    before, after = template.split('{text}')
    return before + text + after.replace('{answer}', answer)


def chosen(labels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Which of `[n]` or `[n, K]` labels to show: `number` rows, of each class in turn as long as it has rows, the
    surest half of a class where labels are soft; in random order."""
    classes = labels if labels.ndim == 1 else labels.argmax(-1)
    sure = np.ones(len(labels)) if labels.ndim == 1 else labels.max(-1)
    pools = []
    for answer in np.unique(classes):
        rows = np.flatnonzero(classes == answer)
        best = rows[np.argsort(-sure[rows], kind='stable')[:max(number, len(rows) // 2)]]
        pools.append(list(rng.permutation(best)))
    found: list[int] = []
    while len(found) < number and any(pools):
        found += [pool.pop() for pool in pools if pool]
    return rng.permutation(np.array(found[:number], int)) if found else np.zeros(0, int)
