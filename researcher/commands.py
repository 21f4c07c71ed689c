"""The commands. At most 40 lines each, and with --plain nothing but `name: value` lines; what is long is named by path.

  python -m researcher check FILE                                      is it an idea, and does it train? 20 s
  python -m researcher score FILE --track=t2 --workdir=runs/researcher  its signed record
                                                    (--again: also if there is one)
  python -m researcher verify RECORD --workdir=...                     whether a record is this researcher's
  python -m researcher replay RECORD --workdir=...                     the same numbers to the bit, or what differs
  python -m researcher canary --workdir=...                            planted leaks: each must be refused and logged
  python -m researcher search --driver=evolution --budget=40 --workdir=...   agents propose, a ladder answers; resumes
  python -m researcher enter FILE... --workdir=...                     onto the leaderboard, past the ladder
  python -m researcher board --workdir=... [--confirm] [--final]       the leaderboard: text, page and JSON
  python -m researcher tracks
"""
import argparse
import json
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
        if name == 'enter':
            one.add_argument('file', type=pathlib.Path, nargs='+')
            one.add_argument('--agent', default='judge')
        if name == 'search':
            one.add_argument('--driver', default='evolution')
            for word, usual in (('budget', 40), ('agents', 1), ('seed', 0)):
                one.add_argument(f'--{word}', type=int, default=usual)
            one.add_argument('--option', action='append', default=[])
            one.add_argument('--shuffled', action='store_true')
        if name == 'board':
            one.add_argument('--confirm', action='store_true')
            one.add_argument('--final', action='store_true')
        one.add_argument('--plain', action='store_true')
        if name != 'tracks':
            one.add_argument('--track', default='t2')
            one.add_argument('--trust', action='store_true')
        if name == 'score':
            one.add_argument('--again', action='store_true')
        if name not in ('check', 'tracks'):
            one.add_argument('--workdir', type=pathlib.Path, required=True)
    return every


def say(found: dict[str, Any], plain: bool) -> None:
    """Prints names and values, a line each, cut to a width and a number of lines; what has no name, as it is."""
    lines = []
    for name, value in found.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            text = ' '.join(str(one).split()) if name else str(one)
            if not name:
                lines.append(text)
                continue
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
    from researcher import campaign
    if campaign.is_on(told.workdir, told.track):
        raise ConfigError(f'--workdir: in {told.workdir} a search on {told.track} has begun, where only its ladder '
                          'answers; expected another folder (or enter, for the judge)')
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


def search(told) -> tuple[dict, int]:
    """Agents propose until the budget is spent. Says nothing but what agents may know."""
    from researcher import campaign
    plan = campaign.Plan(told.driver, told.budget, told.agents, told.seed, told.shuffled, options(told.option))
    campaign.check(plan)
    log = (lambda line: None) if told.plain else (lambda line: print(line, file=sys.stderr))
    one = campaign.Campaign(made(told, hidden=True), plan, log)
    entries = one.run()
    answered = [e for e in entries if e['answer'] is not None]
    better = [e for e in answered if e.get('improved')]
    return {'driver': plan.driver, 'proposals': len(entries), 'answered': len(answered),
            'failed': len(entries) - len(answered), 'improved': len(better),
            'answer': f'{answered[-1]["answer"]:.2f}' if answered else 'none',
            'best': better[-1]['delta'] if better else 'naive', 'notebook': one.notebook}, 0


def options(words: list[str]) -> dict[str, Any]:
    """Settings of a driver from NAME=VALUE, a value being JSON or a text. Raises ConfigError."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition('=')
        if not equals:
            raise ConfigError(f'--option: {word!r}, expected NAME=VALUE')
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def enter(told) -> tuple[dict, int]:
    """Puts ideas onto the leaderboard past the ladder, with the status of each and no number."""
    from researcher import campaign, idea
    ideas = [idea.load(path) for path in told.file]
    engine = made(told, hidden=True)
    found = [campaign.enter(engine, one, told.agent) for one in ideas]
    return {'entered': [f'{r.name} {r.status} {r.reason}' for r in found],
            'records': engine.records}, int(not all(r.scored for r in found))


def board(told) -> tuple[dict, int]:
    """The leaderboard, for the judge: as text, page and JSON."""
    from researcher import board as pages
    from researcher import campaign, leaderboard
    existing(told.workdir)
    engine, notes = made(told, hidden=True), []
    if told.confirm:
        notes += campaign.confirm(made(told, hidden=True, seeds=leaderboard.HOUSE.fresh))
    if told.final:
        gain = campaign.gain_of(campaign.final(engine))
        notes.append(f'final, on the third data set: the first of {told.track} is {gain.mean:+.2f} PGR over naive, at '
                     f'least {gain.low:+.2f} (p {gain.p:.2g})')
    rows = campaign.standings(engine)
    if due := leaderboard.due(rows):
        notes.append(f'{len(due)} due for fresh seeds: --confirm')
    page = pages.write(rows, engine.vault.folder / 'board')
    return {'': pages.plain(rows, (*notes, f'page: {page}')).splitlines()}, 0


def listed(told) -> tuple[dict, int]:
    """The tracks."""
    from researcher.tracks import TRACKS
    return {name: track.doc for name, track in TRACKS.items()}, 0


def made(told, hidden: bool = False, seeds: tuple[int, ...] | None = None):
    """The engine that the arguments describe."""
    from researcher.engine import Engine
    return Engine(told.track, told.workdir, told.trust, seeds, hidden=hidden)


def existing(folder: pathlib.Path) -> pathlib.Path:
    """A work directory. Raises StoreError if it is none: no key is to be made just to refuse."""
    if not (folder / 'private' / 'key').is_file():
        raise StoreError(f'--workdir: {folder} holds no researcher')
    return folder.absolute()


COMMANDS = {'check': check, 'score': score, 'verify': verify, 'replay': replay, 'canary': canary, 'search': search,
            'enter': enter, 'board': board, 'tracks': listed}
