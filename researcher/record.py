"""The record of a score: what was run on what, and its number, signed; and the page of it that only judges read."""
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from typing import Any

from researcher.vault import Vault
from w2s_jax.api import StoreError, write_json

FORMAT = 1
LIBRARIES = ('jax', 'jaxlib', 'numpy', 'optax', 'flax')


@dataclasses.dataclass(frozen=True)
class Record:
    """A score that this researcher has signed.

    id: of idea, track and code.  status: 'scored' or 'failed', reason: why, one line.  pgr: the mean over seeds on the
    public half, rounded to .01; pgr_seeds: each.  naive: that of the naive student.  alarms: what makes it rankless as
    long as nobody has looked.  path: of its file.  all: everything that is signed.
    """
    id: str
    idea: str
    name: str
    status: str
    reason: str
    pgr: float | None
    pgr_seeds: tuple[float, ...]
    naive: float | None
    alarms: tuple[str, ...]
    path: pathlib.Path
    all: dict[str, Any]

    @property
    def scored(self) -> bool:
        """Whether it has a number."""
        return self.status == 'scored'


def write(folder: pathlib.Path, vault: Vault, value: dict[str, Any]) -> Record:
    """Signs a record and writes it. Raises StoreError."""
    value = value | {'format': FORMAT}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{value["id"]}.json'
    write_json(path, value | {'signature': vault.sign(value)})
    return read(path, vault)


def read(path: pathlib.Path, vault: Vault) -> Record:
    """A record from its file. Raises StoreError unless exactly that was signed here."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise StoreError(f'{path}: unreadable ({type(e).__name__})') from None
    if not isinstance(found, dict) or not vault.holds(found) or found.get('id') != path.stem:
        raise StoreError(f'{path}: not signed by this researcher, or changed since; its numbers do not count')
    public = found['public']
    return Record(found['id'], found['idea']['hash'], found['idea']['name'], found['status'], found['reason'],
                  public.get('pgr'), tuple(public.get('pgr_seeds', ())), public.get('naive'), tuple(found['alarms']),
                  path, found)


def code_hash() -> str:
    """16 hex digits over the sources of both packages and the versions of what computes."""
    here = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for folder in (here, here.parent / 'w2s_jax'):
        for path in sorted(p for p in folder.rglob('*.py') if p.parent != here / 'ideas'):
            digest.update(f'{path.relative_to(here.parent)}\0'.encode() + path.read_bytes() + b'\0')
    for name in LIBRARIES:
        digest.update(f'{name} {importlib.metadata.version(name)}\0'.encode())
    return digest.hexdigest()[:16]
