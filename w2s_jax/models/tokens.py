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
from w2s_jax.errors import ConfigError, DataError, WeightsError
from w2s_jax.models import chat
from w2s_jax.store import arrays

_FILES = ('tokenizer.json', 'vocab.txt', 'vocab.json', 'tokenizer.model', 'spiece.model')
BETWEEN = '\n\n'  # texts that are packed into one row
_CHUNK = 2000  # texts at a time: bounds what is held as Python objects


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer and the identity of what it does (SHA-256 of its rules without truncation and padding).

    ends: tokens that end what its model writes.  template: of a chat, as it was published (Jinja, which transformers
    runs in its sandbox), '' without one.  render: (messages, add_generation_prompt) -> text in that template.
    """
    backend: Any
    fingerprint: str
    ends: tuple[int, ...] = ()
    template: str = ''
    render: Any = None


@functools.lru_cache(maxsize=4)
def load(folder: pathlib.Path) -> Tokenizer:
    """The tokenizer of a model folder. Raises WeightsError where there is none, or only a slow one."""
    if not any((folder / name).exists() for name in _FILES):
        raise WeightsError(f'{folder}: no tokenizer, expected one of {", ".join(_FILES)}')
    os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')  # that there is no torch
    import transformers  # seconds, and only language models need it
    verbosity = transformers.logging.get_verbosity()
    try:
        transformers.logging.set_verbosity_error()
        found = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as e:  # whatever a damaged file makes it raise
        reason = f'{type(e).__name__}: {" ".join(str(e).split())[:200]}'
        raise WeightsError(f'{folder}: unreadable tokenizer ({reason})') from None
    finally:
        transformers.logging.set_verbosity(verbosity)
    if not found.is_fast:
        raise WeightsError(f'{folder}: only a slow tokenizer, expected a tokenizer.json')
    backend = found.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    rules = json.dumps(json.loads(backend.to_str()), sort_keys=True)
    template = found.chat_template if isinstance(found.chat_template, str) else ''
    return Tokenizer(backend, hashlib.sha256(rules.encode()).hexdigest(), _ends(folder, found.eos_token_id), template,
                     functools.partial(found.apply_chat_template, tokenize=False))


def _ends(folder: pathlib.Path, end: int | None) -> tuple[int, ...]:
    """The tokenizer's own end of a text, and those that a model's generation_config.json names."""
    path = folder / 'generation_config.json'
    try:
        more = json.loads(path.read_text()).get('eos_token_id') if path.exists() else None
    except (OSError, ValueError, AttributeError) as e:
        raise WeightsError(f'{path}: unreadable ({type(e).__name__})') from None
    ids = [end, *(more if isinstance(more, list) else [more])]
    return tuple(sorted({i for i in ids if isinstance(i, int)}))


def token_id(tokenizer: Tokenizer, token: str, field: str) -> int:
    """The number of a token by its name, or of the one token that a string is. Raises ConfigError."""
    known = tokenizer.backend.token_to_id(token)
    if known is not None:
        return known
    ids = tokenizer.backend.encode(token, add_special_tokens=False).ids
    if len(ids) != 1:
        raise ConfigError(f'{field}: {token!r} is {len(ids)} tokens of this tokenizer, expected one')
    return ids[0]


def continued(tokenizer: Tokenizer, prompts: list[list[int]], drawn: list[list[list[int]]]) -> list[list[str]]:
    """What was written after each prompt, as text. A tokenizer may write the first token of a text in another way (less
    the space before it), so that prompt and continuation are decoded together and the prompt is taken off."""
    decode, out = tokenizer.backend.decode_batch, []
    for prompt, before, texts in zip(prompts, decode(prompts), drawn, strict=True):
        whole = decode([prompt + text for text in texts])
        out.append([text[len(before):] if text.startswith(before) else alone
                    for text, alone in zip(whole, decode(texts), strict=True)])
    return out


def encode(tokenizer: Tokenizer, texts: np.ndarray | arrays.Texts, max_length: int, truncate: str,
           folder: pathlib.Path | None = None, vocab_size: int = 0, special: bool = True) -> tuple[Inputs, dict]:
    """Token ids with the tokenizer's own special tokens (`special`), padded at the right with 0.

    Where a text ends is kept as a number, so a token that happens to have the padding's id changes nothing. The ids are
    written to files without a name in `folder` as they come, and mapped: memory holds a chunk of them.

    Args:
      texts: `[N, S]` str, an array or `disk.Texts`.  max_length: tokens, the special ones included.  truncate: the end
        that a longer text loses, 'end' or 'start'; the special tokens stay.
      vocab_size: rows of the embedding; 0: not known.
    Returns: {'tokens': `[N, S, L]` int32, 'length': `[N, S]` int32}, L the longest; and counts of texts,
      truncated ones and tokens. Raises DataError for a text without tokens, or with one that has no row.
    """
    ids, length, truncated = arrays.Growing(np.int32, folder), [], 0
    for start, encodings in _encoded(tokenizer.backend, texts, max_length, truncate, special):
        length.append(np.array([len(e) for e in encodings], np.int32))
        if not length[-1].all():
            row, column = divmod(int(np.flatnonzero(length[-1] == 0)[0]), texts.shape[1])
            raise DataError(f'text of example {start + row} has no tokens: {texts[start + row][column]!r}')
        ids.append(found := np.concatenate([np.array(e.ids, np.int32) for e in encodings]))
        if vocab_size and found.max() >= vocab_size:
            _refuse(tokenizer, int(found.max()), vocab_size, start, encodings, texts.shape[1])
        truncated += sum(bool(e.overflowing) for e in encodings)
    lengths = np.concatenate(length)
    counts = {'texts': len(lengths), 'truncated': truncated, 'tokens': int(lengths.sum()),
              'longest': int(lengths.max())}
    return {'tokens': _padded(ids.array(-1), lengths, folder).reshape(*texts.shape, -1),
            'length': lengths.reshape(texts.shape)}, counts


def _refuse(tokenizer: Tokenizer, token: int, vocab_size: int, start: int, encodings, width: int) -> None:
    row = start + next(i for i, e in enumerate(encodings) if token in e.ids) // width
    raise DataError(f'text of example {row}: token {tokenizer.backend.id_to_token(token)!r} has id {token}, but the '
                    f"model's embedding has {vocab_size} rows; expected a tokenizer without tokens that were added "
                    'after the model')


def in_chat(tokenizer: Tokenizer, texts: np.ndarray | arrays.Texts, max_length: int,
            answered: bool) -> np.ndarray:
    """Texts `[N, S]` in the tokenizer's chat template (chat.py). answered: whether each must end with an answer. Raises
    DataError, naming the row."""
    def count(text: str) -> int:
        return len(tokenizer.backend.encode(text, add_special_tokens=False).ids)

    out = np.empty(texts.shape, object)
    for row in range(len(texts)):
        for column, text in enumerate(texts[row]):
            try:
                out[row, column] = chat.rendered(tokenizer.render, count, str(text), max_length, answered)
            except DataError as e:
                raise DataError(f'text of example {row}: {e}') from None
    return out


def _encoded(backend, texts, max_length: int, truncate: str, special: bool = True):
    """(number of the first row, encodings) of so many rows at a time that they have about _CHUNK texts."""
    backend.enable_truncation(max_length, strategy='longest_first',
                              direction={'end': 'right', 'start': 'left'}[truncate])
    try:
        step = max(1, _CHUNK // texts.shape[1])
        for start in range(0, len(texts), step):
            yield start, backend.encode_batch(texts[start:start + step].ravel().tolist(),
                                              add_special_tokens=special)
    finally:
        backend.no_truncation()


def _padded(ids: np.ndarray, length: np.ndarray, folder: pathlib.Path | None) -> np.ndarray:
    """Sequences that lie one behind the other in `ids`, as rows `[N, L]` with zeros after their ends, mapped."""
    longest, out, begin = int(length.max()), arrays.Growing(np.int32, folder), 0
    for start in range(0, len(length), _CHUNK):
        part = length[start:start + _CHUNK]
        rows, end = np.zeros((len(part), longest), np.int32), begin + int(part.sum())
        rows[np.arange(longest) < part[:, None]] = ids[begin:end]
        out.append(rows)
        begin = end
    return out.array(-1, longest)


def one_each(texts: np.ndarray, end: str) -> np.ndarray:
    """Texts `[N, S]` as rows `[N S, 1]` of one, each with `end` behind it."""
    out = np.empty((texts.size, 1), object)
    out[:, 0] = [text + end for text in np.asarray(texts).ravel().tolist()]
    return out


def packed(inputs: Inputs, size: int) -> Inputs:
    """Token ids `[N, 1, L]` one text behind the other, cut into rows `[M, 1, size]` that are full: what is left of the
    last one is lost, unless it is the only one."""
    tokens, length = inputs['tokens'].reshape(-1, inputs['tokens'].shape[-1]), inputs['length'].reshape(-1)
    ids = np.concatenate([row[:n] for row, n in zip(tokens, length, strict=True)])
    size = min(size, len(ids))
    rows = len(ids) // size
    return {'tokens': ids[:rows * size].reshape(rows, 1, size).astype(np.int32),
            'length': np.full((rows, 1), size, np.int32)}
