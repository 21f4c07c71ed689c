"""The commands. At most 40 lines each, and with --plain nothing but `name: value` lines; what is long is named by path.

  python -m researcher check FILE                                      is it an idea, and does it train? 20 s
  python -m researcher score FILE --track=t2 --workdir=runs/researcher  its signed record
                                                    (--again: also if there is one)
  python -m researcher verify RECORD --workdir=...                     whether a record is this researcher's
  python -m researcher replay RECORD --workdir=...                     the same numbers to the bit, or what differs
  python -m researcher canary --workdir=...                            planted leaks: each must be refused and logged
  python -m researcher tracks
"""
import argparse
import pathlib
import sys
import tempfile
from typing import Any

from w2s_jax.api import ConfigError, StoreError, UserError

WIDEST, MOST = 160, 40  # characters of a line, lines of a command


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 for an idea that could not be scored, or a replay that differs; 2, and `error: ...`
    in one line, for what the user can mend."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ('-h', '--help', 'help'):
        print((__doc__ or '').strip())
        return 0
    try:
        told = parser().parse_args(words)
        if told.command != 'tracks':
            prepare()
        found, status = COMMANDS[told.command](told)
    except UserError as e:
        print(f'error: {e}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; run the same command again to resume', file=sys.stderr)
        return 130
    say(found, told.plain)
    return status


def prepare() -> None:
    """This process as the commands of w2s have it."""
    from w2s_jax import api
    api.quiet()
    api.keep_freed_memory()


class Parser(argparse.ArgumentParser):
    """One whose errors are a line."""

    def error(self, message: str):
        raise ConfigError(f'researcher: {message}')


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    every = Parser(prog='researcher', add_help=False, allow_abbrev=False)
    commands = every.add_subparsers(dest='command', required=True, parser_class=Parser)
    for name in COMMANDS:
        one = commands.add_parser(name, add_help=False, allow_abbrev=False)
        if name in ('check', 'score', 'verify', 'replay'):
            one.add_argument('file', type=pathlib.Path)
        one.add_argument('--plain', action='store_true')
        if name != 'tracks':
            one.add_argument('--track', default='t2')
            one.add_argument('--trust', action='store_true')
        if name == 'score':
            one.add_argument('--again', action='store_true')
        if name in ('score', 'verify', 'replay', 'canary'):
            one.add_argument('--workdir', type=pathlib.Path, required=True)
    return every


def say(found: dict[str, Any], plain: bool) -> None:
    """Prints names and values, a line each, cut to a width and a number of lines."""
    lines = []
    for name, value in found.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            text = ' '.join(str(one).split())
            lines.append(f'{name}: {text}' if plain else f'{name:<10} {text}')
    for line in lines[:MOST - 1]:
        print(''.join(c for c in line if c.isprintable())[:WIDEST])
    if len(lines) > MOST - 1:
        print(f'... {len(lines) - MOST + 1} lines more')


def check(told) -> tuple[dict, int]:
    """Trains an idea a little on a small data set that is made for it; nothing is scored and nothing stays."""
    from researcher import idea
    from researcher.engine import FEW, SECONDS, Engine
    from researcher.sandbox import Limits
    one = idea.load(told.file)
    with tempfile.TemporaryDirectory(prefix='researcher-') as folder:
        engine = Engine(told.track, folder, told.trust, FEW, Limits(seconds=SECONDS), small=True)
        try:
            _, _, outcome = engine.students(one)
        except UserError as e:
            tried = getattr(e, 'outcome', None)
            return {'idea': one.name, 'status': 'refused', 'reason': e, 'tried': tried.attempts if tried else []}, 1
    return {'idea': one.name, 'hash': one.hash, 'sets': [f'{k} = {v!r}' for k, v in one.delta.items()],
            'status': 'fine', 'tried': outcome.attempts}, 0


def score(told) -> tuple[dict, int]:
    """Scores an idea, or reads the record that there is."""
    from researcher import idea
    one = idea.load(told.file)
    found = made(told).score(one, told.again)
    if not found.scored:
        return {'idea': found.name, 'id': found.id, 'status': found.status, 'reason': found.reason,
                'alarm': found.alarms, 'record': found.path}, 1
    return {'idea': found.name, 'id': found.id, 'status': found.status, 'pgr': f'{found.pgr:.2f}',
            'naive': f'{found.naive:.2f}', 'seeds': len(found.pgr_seeds), 'seconds': found.all['seconds'],
            'alarm': found.alarms, 'record': found.path}, 0


def verify(told) -> tuple[dict, int]:
    """Whether a record was signed here and is unchanged."""
    from researcher import record
    from researcher.vault import Vault
    found = record.read(told.file.absolute(), Vault(existing(told.workdir) / 'private'))
    return {'record': found.path, 'status': 'signed here and unchanged', 'pgr': found.pgr}, 0


def replay(told) -> tuple[dict, int]:
    """Computes a record again."""
    from researcher import record
    existing(told.workdir)
    engine = made(told)
    found = record.read(told.file.absolute(), engine.vault)
    different = engine.replay(found)
    return {'record': found.path, 'status': 'differs' if different else 'the same to the bit',
            'differs': different}, int(bool(different))


def canary(told) -> tuple[dict, int]:
    """Planted leaks."""
    from researcher import canaries
    found = canaries.run(made(told))
    bad = [name for name, refused in found.items() if not refused]
    return {name: refused or 'NOT REFUSED' for name, refused in found.items()} | {'refused': f'{len(found) - len(bad)} '
                                                                                  f'of {len(found)}'}, int(bool(bad))


def listed(told) -> tuple[dict, int]:
    """The tracks."""
    from researcher.tracks import TRACKS
    return {name: track.doc for name, track in TRACKS.items()}, 0


def made(told):
    """The engine that the arguments describe."""
    from researcher.engine import Engine
    return Engine(told.track, told.workdir, told.trust)


def existing(folder: pathlib.Path) -> pathlib.Path:
    """A work directory. Raises StoreError if it is none: no key is to be made just to refuse."""
    if not (folder / 'private' / 'key').is_file():
        raise StoreError(f'--workdir: {folder} holds no researcher')
    return folder.absolute()


COMMANDS = {'check': check, 'score': score, 'verify': verify, 'replay': replay, 'canary': canary, 'tracks': listed}
