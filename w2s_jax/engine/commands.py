"""The console script `w2s`: hands its arguments to the command they name.

  w2s run|grid|report|export ...  is python -m experiments.run ... (of a checkout)
  w2s store verify|ls|gc ...      looks after a store
  w2s list [NAME]                 what is registered, with its settings
  w2s idea check|score FILE ...   is python -m researcher
"""
import importlib
import importlib.util
import os
import runpy
import sys

from w2s_jax.engine import listing
from w2s_jax.errors import UserError

ENTRY_POINTS = ('run', 'grid', 'report', 'export')
COMMANDS = (*ENTRY_POINTS, 'store', 'list', 'idea')


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status; `error: ...` in one line and 2 for what the user can mend."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ['']
    if command in ('-h', '--help', 'help'):
        print(__doc__.strip())
        return 0
    if command in ENTRY_POINTS:
        return entry_point(command, rest)
    if command == 'store':
        from w2s_jax.store import command as store
        return store.main(rest)
    if command == 'idea':
        return idea(rest)
    if command != 'list':
        return refuse(f'{command or "no command"}: expected w2s {"|".join(COMMANDS)}')
    try:
        return listed(rest)
    except UserError as e:
        return refuse(str(e))


def listed(rest: list[str]) -> int:
    """`w2s list`, which may end in a pipe that is closed early (`| head`). Raises ConfigError."""
    sys.path.insert(0, os.getcwd())  # a plug-in beside the user, as with python -m
    try:
        status = listing.run(rest)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    finally:
        sys.path.remove(os.getcwd())


def entry_point(command: str, rest: list[str]) -> int:
    """Runs `python -m experiments.COMMAND` in this process; only the package itself is installed."""
    if '' not in sys.path:
        sys.path.insert(0, os.getcwd())  # configs and entry points of the checkout, as with python -m
    try:
        found = importlib.util.find_spec(f'experiments.{command}')
    except ModuleNotFoundError:
        found = None
    if found is None:
        return refuse(f'w2s {command}: no experiments/{command}.py here, expected to be called in the folder of a '
                      'checkout of w2s_jax')
    sys.argv = [f'w2s {command}', *rest]
    runpy.run_module(f'experiments.{command}', run_name='__main__', alter_sys=False)
    return 0


def idea(rest: list[str]) -> int:
    """Runs `python -m researcher`, a package that is built on this one."""
    if importlib.util.find_spec('researcher') is None:
        return refuse('w2s idea: the package researcher is not installed, expected it beside w2s_jax')
    return importlib.import_module('researcher.commands').main(rest)


def refuse(message: str) -> int:
    """One line, and exit status 2."""
    print(f'error: {message}', file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main())
