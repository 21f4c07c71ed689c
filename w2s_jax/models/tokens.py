"""Texts to token ids, once for each tokenizer, through transformers' fast tokenizers."""
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from w2s_jax.data import Inputs
from w2s_jax.errors import DataError, WeightsError

_FILES = ('tokenizer.json', 'vocab.txt', 'vocab.json', 'tokenizer.model', 'spiece.model')
_CHUNK = 2000  # texts at a time: bounds what is held as Python objects


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer and the identity of what it does (SHA-256 of its rules without truncation and padding)."""
    backend: Any
    fingerprint: str


@functools.lru_cache(maxsize=4)
def load(folder: pathlib.Path) -> Tokenizer:
    """The tokenizer of a model folder. Raises WeightsError where there is none, or only a slow one."""
    if not any((folder / name).exists() for name in _FILES):
        raise WeightsError(f'{folder}: no tokenizer, expected one of {", ".join(_FILES)}')
    os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')  # that there is no torch
    import transformers  # seconds, and only language models need it
    transformers.logging.set_verbosity_error()
    try:
        found = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as e:  # whatever a damaged file makes it raise
        reason = f'{type(e).__name__}: {" ".join(str(e).split())[:200]}'
        raise WeightsError(f'{folder}: unreadable tokenizer ({reason})') from None
    if not found.is_fast:
        raise WeightsError(f'{folder}: only a slow tokenizer, expected a tokenizer.json')
    backend = found.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    rules = json.dumps(json.loads(backend.to_str()), sort_keys=True)
    return Tokenizer(backend, hashlib.sha256(rules.encode()).hexdigest())


def encode(tokenizer: Tokenizer, texts: np.ndarray, max_length: int, truncate: str) -> tuple[Inputs, dict]:
    """Token ids with the tokenizer's own special tokens, padded at the right with 0.

    Where a text ends is kept as a number, so a token that happens to have the padding's id changes nothing.

    Args:
      texts: `[N, S]` str.  max_length: tokens, the special ones included.  truncate: the end that a longer text
        loses, 'end' or 'start'; the special tokens stay.
    Returns: {'tokens': `[N, S, L]` int32, 'length': `[N, S]` int32}, L the longest; and counts of texts,
      truncated ones and tokens. Raises DataError for a text without tokens.
    """
    backend = tokenizer.backend
    backend.enable_truncation(max_length, strategy='longest_first',
                              direction={'end': 'right', 'start': 'left'}[truncate])
    try:
        flat, ids, truncated = texts.ravel().tolist(), [], 0
        for start in range(0, len(flat), _CHUNK):
            for encoding in backend.encode_batch(flat[start:start + _CHUNK]):
                ids.append(np.array(encoding.ids, np.int32))
                truncated += bool(encoding.overflowing)
    finally:
        backend.no_truncation()
    length = np.array([len(x) for x in ids], np.int32)
    if not length.all():
        raise DataError(f'text of example {int(np.flatnonzero(length == 0)[0]) // texts.shape[1]} has no tokens: '
                        f'{flat[int(np.flatnonzero(length == 0)[0])]!r}')
    tokens = np.zeros((len(ids), int(length.max())), np.int32)
    for row, x in zip(tokens, ids, strict=True):
        row[:len(x)] = x
    counts = {'texts': len(ids), 'truncated': truncated, 'tokens': int(length.sum()), 'longest': int(length.max())}
    return {'tokens': tokens.reshape(*texts.shape, -1), 'length': length.reshape(texts.shape)}, counts
