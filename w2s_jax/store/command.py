"""Looks after a store: `python -m experiments.store` and `w2s store`; here or at a URL.

  w2s store verify --workdir=runs/grid [--delete]      checks the SHA-256 of every file; status 1 if one is damaged
  w2s store ls     --workdir=runs/grid                 what is in it
  w2s store gc     --workdir=runs/grid [--dry_run]     removes what no run and no grid needs any more
"""
import argparse
import contextlib
import dataclasses
import datetime
import json
import pathlib
import sys
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from w2s_jax.errors import ConfigError, StoreError, UserError
from w2s_jax.store import lease
from w2s_jax.store.artifacts import named, sha256
from w2s_jax.store.remote import Files, errors
from w2s_jax.text import digest

PLACES = ('named', 'leases', 'pending')  # folders of a store that are not artifacts
TIMES = ('mtime', 'LastModified', 'last_modified', 'updated', 'created')  # what file systems call the time of a file


@dataclasses.dataclass
class Folder:
    """A folder of a store: an artifact, pending work, a lease, or what a killed process left over."""
    name: str
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)  # file -> bytes
    changed: float = 0.0  # seconds since the epoch, of its newest file

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())

    @property
    def hours(self) -> float:
        return max(0.0, time.time() - self.changed) / 3600

    @property
    def identity(self) -> str:
        return self.name.rpartition('-')[2]


@dataclasses.dataclass
class Inventory:
    """All that is in a store. parts: what killed processes left half written."""
    artifacts: list[Folder]
    parts: list[Folder]
    pending: list[Folder]
    leases: list[Folder]
    named: dict[str, str]  # id -> work directory that names it, one of them


def take_stock(files: Files) -> Inventory:
    """Reads what is in a store. Raises StoreError if there is none."""
    with errors(files.url, 'read'):
        if not files.fs.isdir(''):
            raise StoreError(f'{files.url}: no store there, expected a folder or a URL that holds artifacts')
        found = files.fs.find('', detail=True)
    table: dict[str, Folder] = {}
    for path, info in found.items():
        parts = path.split('/')
        depth = 2 if parts[0] in PLACES else 1
        if len(parts) > depth:
            folder = table.setdefault('/'.join(parts[:depth]), Folder('/'.join(parts[:depth])))
            folder.sizes['/'.join(parts[depth:])] = info.get('size') or 0
            folder.changed = max(folder.changed, _time(info))
    def of(start):
        return [table[name] for name in sorted(table) if name.startswith(start)]
    artifacts = [f for f in of('') if not f.name.startswith(('.', *(f'{place}/' for place in PLACES)))]
    return Inventory(artifacts, of('.'), of('pending/'), of('leases/'), read_names(files))


def _time(info: dict) -> float:
    value: Any = next((info[k] for k in TIMES if info.get(k)), 0.0)
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime.datetime) else float(value)


def read_names(files: Files) -> dict[str, str]:
    """Every id that a run or a grid needs. Raises StoreError if a list is unreadable: it may name anything."""
    out: dict[str, str] = {}
    with errors(files.url, 'read'):
        paths = files.fs.find('named') if files.fs.isdir('named') else []
    for path in paths:
        if not path.endswith('.json') or path.rpartition('/')[2].startswith('.'):
            continue
        try:
            record = json.loads(files.fs.cat_file(path))
            out |= {str(i): str(record['workdir']) for i in record['ids']}
        except (OSError, ValueError, KeyError, TypeError):
            raise StoreError(f'{files.path(path)}: unreadable; run its experiment again, or delete it') from None
    return out


def damage(folder: Folder, files: Files) -> list[str]:
    """What is wrong with an artifact: files that are missing, changed or should not be there."""
    try:
        sums = dict(json.loads(files.fs.cat_file(f'{folder.name}/DONE')))
    except FileNotFoundError:
        return []  # removed meanwhile
    except (OSError, ValueError, TypeError):
        return ['DONE is unreadable']
    there = folder.sizes.keys() - {'DONE'}
    out = [] if (name := _own_name(folder, files)) in (folder.name, '') else [f'its config is that of {name}']
    out += [f'{name} is missing' for name in sorted(sums.keys() - there)]
    out += [f'{name} should not be there' for name in sorted(there - sums.keys())]
    return out + [f'{name} has changed' for name in sorted(there & sums.keys())
                  if _sum(files, f'{folder.name}/{name}') != sums[name]]


def _own_name(folder: Folder, files: Files) -> str:
    """The name that follows from its config; '' if that is no config."""
    try:
        return named(json.loads(files.fs.cat_file(f'{folder.name}/config.json')))
    except (OSError, ValueError, KeyError, TypeError):
        return ''


def _sum(files: Files, name: str) -> str:
    try:
        with files.fs.open(name, 'rb') as stream:
            return sha256(stream)
    except OSError as e:
        return f'unreadable ({e})'


def remove(folder: Folder, files: Files) -> None:
    """Removes a folder, DONE first, so that it is an artifact or none."""
    with errors(files.path(folder.name), 'removed'):
        if 'DONE' in folder.sizes:
            with contextlib.suppress(FileNotFoundError):
                files.fs.rm_file(f'{folder.name}/DONE')
        with contextlib.suppress(FileNotFoundError):
            files.fs.rm(folder.name, recursive=True)


def verify(files: Files, delete: bool) -> int:
    """Checks every artifact. Returns 1 if one is damaged and was not deleted, else 0."""
    whole = [f for f in take_stock(files).artifacts if 'DONE' in f.sizes]
    damaged = {f.name: found for f in whole if (found := damage(f, files))}
    for folder in whole:
        if folder.name in damaged:
            advice = f'delete {files.path(folder.name)} to compute it again'
            print(f'{folder.name}: {", ".join(damaged[folder.name])}; {"deleted" if delete else advice}')
            if delete:
                remove(folder, files)
    print(f'{_count(whole)} checked, {len(damaged)} damaged')
    return int(bool(damaged) and not delete)


def listing(files: Files) -> int:
    """Prints what is in a store: kind, id, size, age, who needs it. Returns 0."""
    stock = take_stock(files)
    for folder in stock.artifacts:
        notes = [f'needed by {stock.named[folder.identity]}' if folder.identity in stock.named else 'not needed',
                 *(['failed'] if 'FAILED' in folder.sizes else []),
                 *([] if 'DONE' in folder.sizes else ['not whole'])]
        kind = folder.name.rpartition('-')[0]
        print(f'{kind:<10} {folder.identity}  {_size(folder.bytes):>9}  {_age(folder):>5}  {", ".join(notes)}')
    for kind in sorted({f.name.rpartition('-')[0] for f in stock.artifacts}):
        print(_total(kind, [f for f in stock.artifacts if f.name.rpartition('-')[0] == kind]))
    print(_total('all', stock.artifacts) + f'; {_count(stock.pending, "unit")} pending, '
          f'{_size(sum(f.bytes for f in stock.pending))}')
    return 0


def collect(files: Files, older: float, dry_run: bool) -> int:
    """Removes what nothing needs and nobody touched for `older` hours. Returns 0."""
    stock = take_stock(files)
    rubbish = [f for f in (*stock.artifacts, *stock.parts, *stock.pending) if not needed(f, stock.named, files)]
    freed = []
    leases = [f for f in stock.leases if not held(f, files)]
    for folder in [f for f in (*rubbish, *leases) if f.hours > older]:
        if not dry_run:
            if needed(folder, read_names(files), files):  # a run that has begun meanwhile
                continue
            remove(folder, files)
        if folder not in stock.leases:
            freed.append(folder)
            print(f'{"would remove" if dry_run else "removed"} {folder.name}  {_size(folder.bytes)}  {_age(folder)}')
    print(f'{"would free" if dry_run else "freed"} {_size(sum(f.bytes for f in freed))} in {_count(freed, "folder")}')
    return 0


def needed(folder: Folder, named: dict[str, str], files: Files) -> bool:
    """Whether a run or a grid names an artifact, or one of the phases that a pending folder is for."""
    if not folder.name.startswith('pending/'):
        return folder.identity in named
    try:
        members = json.loads(files.fs.cat_file(f'{folder.name}/members.json'))
        return any(i in named for i in members)
    except (OSError, ValueError, TypeError):
        return False


def held(folder: Folder, files: Files) -> bool:
    """Whether a process that may live holds a lease."""
    last = max((name for name in folder.sizes if name.isdecimal()), key=int, default=None)
    try:
        return last is not None and lease.live(files.fs.cat_file(f'{folder.name}/{last}').decode(errors='replace'),
                                               folder.hours * 3600)
    except FileNotFoundError:  # just given back
        return False


def forget(files: Files, workdir: str) -> None:
    """Drops the list of what a work directory needs. Raises StoreError if there is none."""
    name = f'named/{digest(workdir)}.json'
    with errors(files.path(name), 'removed'):
        if not files.fs.exists(name):
            raise StoreError(f'{workdir}: names nothing in {files.url}, expected a work directory as `ls` prints it')
        files.fs.rm_file(name)


def _count(folders: Iterable, what: str = 'artifact') -> str:
    number = len(list(folders))
    return f'{number} {what}{"" if number == 1 else "s"}'


def _total(kind: str, folders: list[Folder]) -> str:
    return f'{kind + ":":<11} {_count(folders)}, {_size(sum(f.bytes for f in folders))}'


def _size(number: float) -> str:
    for unit in ('B', 'kB', 'MB', 'GB'):
        if number < 1000:
            return f'{number:.0f} {unit}' if unit == 'B' else f'{number:.1f} {unit}'
        number /= 1000
    return f'{number:.1f} TB'


def _age(folder: Folder) -> str:
    minutes = folder.hours * 60
    if minutes < 60:
        return f'{minutes:.0f}min'
    return f'{minutes / 60:.0f}h' if minutes < 48 * 60 else f'{minutes / 60 / 24:.0f}d'


class Parser(argparse.ArgumentParser):
    """Bad flags are an error in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parser() -> Parser:
    """The flags of the command."""
    out = Parser(prog='w2s store', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                 allow_abbrev=False)
    out.add_argument('action', choices=['verify', 'ls', 'gc'])
    place = out.add_mutually_exclusive_group(required=True)
    place.add_argument('--workdir', help='work directory of a run or a grid; its store is in it')
    place.add_argument('--store', help='folder or URL of a store')
    out.add_argument('--delete', action='store_true', help='verify: delete what is damaged')
    out.add_argument('--dry_run', action='store_true', help='gc: only say what would be removed')
    out.add_argument('--older_than_hours', type=float, default=1.0, help='gc: leave what is younger (default 1)')
    out.add_argument('--forget', metavar='WORKDIR', help='gc: a work directory whose needs do not count any more')
    return out


def run(arguments: list[str]) -> int:
    """Runs one action. Returns the exit status. Raises UserError."""
    args = parser().parse_args(arguments)
    if not args.older_than_hours >= 0:
        raise ConfigError(f'--older_than_hours={args.older_than_hours}: expected a number of hours, 0 or more')
    place = args.store or str(pathlib.Path(args.workdir).expanduser() / 'store')
    files = Files(place if '://' in place else str(pathlib.Path(place).expanduser().absolute()))
    if args.action == 'verify':
        return verify(files, args.delete)
    if args.action == 'ls':
        return listing(files)
    if args.forget and not args.dry_run:
        forget(files, args.forget)
    return collect(files, args.older_than_hours, args.dry_run)


def main(arguments: list[str] | None = None) -> int:
    """The entry point: `error: ...` in one line and status 2 for what the user can mend."""
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except UserError as e:
        print(f'error: {e}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
