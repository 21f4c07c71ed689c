"""Texts that are parts of others: phrases of one sentence on both sides of a cut are a leak."""
import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from w2s_jax.tasks.text.statements import Source


def without(source: Source, log: Callable[[str], None]) -> Source:
    """A source less the statements whose text is part of another's; says how many those are."""
    keep = whole([s.texts[0] for s in source.statements])
    log(f'{source.name}: {(~keep).sum()} of {len(keep)} texts are parts of others and left out')
    return dataclasses.replace(source, statements=[s for s, kept in zip(source.statements, keep, strict=True) if kept])


def whole(texts: Sequence[str]) -> np.ndarray:
    """`[N]` bool: which texts are not a run of words of a longer one among them; words are compared in lower case.

    A text is looked up under its rarest word, so that few others have to be read.
    """
    words = [text.lower().split() for text in texts]
    lines = [f' {" ".join(w)} ' for w in words]
    number = collections.Counter(token for w in words for token in set(w))
    having = collections.defaultdict(list)
    for row, w in enumerate(words):
        for token in set(w):
            having[token].append(row)
    keep = np.ones(len(texts), bool)
    for row, w in enumerate(words):
        if w:
            rarest = min(w, key=number.__getitem__)
            keep[row] = not any(len(lines[other]) > len(lines[row]) and lines[row] in lines[other]
                                for other in having[rarest])
    return keep
