"""Small things about text that every room may use."""
import hashlib
import json
import os
from typing import Any


def digest(value: Any) -> str:
    """The identity of a JSON value: 16 hex digits of the SHA-256 of its canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(',', ':'), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def one_line(error: BaseException | str) -> str:
    """A message without line breaks."""
    return ' '.join(str(error).split())


def plain(value: Any) -> Any:
    """A value with Python's own types in it: numbers of NumPy, paths and ranges as what they stand for."""
    if type(value).__module__ == 'numpy' and hasattr(value, 'tolist'):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tuple | list | range):
        return [plain(v) for v in value] if isinstance(value, list) else tuple(plain(v) for v in value)
    return value
