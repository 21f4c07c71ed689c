"""The researcher's private folder: the key that signs, the secret that data are made of, and what no agent may see.

Modes are 700 and 600. That keeps other accounts out, and the sandbox keeps ideas out; an agent that runs outside of
the sandbox under the same account is kept out by nothing (docs/researcher.md).
"""
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import secrets
from typing import Any

from w2s_jax.api import StoreError

BYTES = 32


class Vault:
    """A private folder; made if it is not there. Raises StoreError if it cannot be used."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / 'scores').mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_mode & 0o077:
                raise StoreError(f'{folder}: open to others (mode {folder.stat().st_mode & 0o777:o}), expected 700')
            self.key, secret = self.token('key'), self.token('secret')
        except OSError as e:
            raise StoreError(f'{folder}: cannot be used ({e.strerror})') from None
        self.secret = int.from_bytes(secret[:16])

    def token(self, name: str) -> bytes:
        """32 random bytes that are drawn once; of several processes the first one's count."""
        path = self.folder / name
        if not path.exists():
            mine = self.folder / f'.{name}-{os.getpid()}-{secrets.token_hex(4)}'
            self.put(mine, secrets.token_bytes(BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(mine, path)
            mine.unlink()
        found = path.read_bytes()
        if len(found) != BYTES:
            raise StoreError(f'{path}: {len(found)} bytes, expected {BYTES}')
        return found

    def put(self, path: pathlib.Path, content: bytes) -> None:
        """Writes a file that others cannot read."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
            file.write(content)

    def sign(self, value: dict[str, Any]) -> str:
        """The signature of what a dict holds beside 'signature'."""
        return self.seal(canonical({k: v for k, v in value.items() if k != 'signature'}))

    def seal(self, content: bytes) -> str:
        """HMAC-SHA256 of bytes: an identity that tells nothing to who has not the key."""
        return hmac.new(self.key, content, hashlib.sha256).hexdigest()

    def holds(self, value: dict[str, Any]) -> bool:
        """Whether a dict has been signed here and not been changed since."""
        given = value.get('signature')
        return isinstance(given, str) and hmac.compare_digest(given.encode(), self.sign(value).encode())

    def write(self, name: str, value: dict[str, Any]) -> None:
        """A signed dict into a private file, whole or not at all."""
        path = self.folder / f'{name}.json'
        part = path.with_name(f'.{path.name}-{os.getpid()}-{secrets.token_hex(4)}')
        self.put(part, canonical(value | {'signature': self.sign(value)}))
        part.rename(path)

    def read(self, name: str) -> dict[str, Any] | None:
        """That dict; None if there is none. Raises StoreError if it was changed."""
        path = self.folder / f'{name}.json'
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            found = {}
        if not isinstance(found, dict) or not self.holds(found):
            raise StoreError(f'{path}: was not written by this researcher, or changed since; delete it')
        return found


def canonical(value: dict[str, Any]) -> bytes:
    """The one spelling of a dict as JSON."""
    return json.dumps(value, sort_keys=True, separators=(',', ':'), allow_nan=False).encode()
