"""Small things about text that every room may use."""
import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """The identity of a JSON value: 16 hex digits of the SHA-256 of its canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(',', ':'), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def one_line(error: BaseException | str) -> str:
    """A message without line breaks."""
    return ' '.join(str(error).split())
