"""Further test sets of a task: rows of other files, in the task's own form, none of which the pool knows."""
import re

from w2s_jax.errors import ConfigError
from w2s_jax.tasks.text import tables
from w2s_jax.tasks.text.tables import Table

MOST = 50_000  # rows that are read of a file, at least four times as many as are measured
TAKEN = ('test', 'questions', 'easy', 'hard')  # what test sets of other settings are called


def read(task, train: str, tests: tuple[str, ...]) -> dict[str, list[Table]]:
    """Name -> the tables of each test set that `task.shifted` names, 'NAME=PATH'; of a folder with several splits the
    first of `tests` that is there.

    Raises ConfigError for an entry that is none, DataError for files that cannot be used.
    """
    found: dict[str, list[Table]] = {}
    for entry in task.shifted:
        name, _, path = str(entry).partition('=')
        plain = re.fullmatch('[a-z][a-z0-9_]*', name) and not name.startswith('band_')
        if not path or not plain or name in (*TAKEN, *found):
            raise ConfigError(f'task.shifted: {entry!r}, expected NAME=PATH, a name of its own for each: small '
                              'letters, digits and _')
        pool, test = tables.files_of(path, 'task.shifted', train, tests)
        found[name] = [tables.read(f, MOST, task.seed) for f in test or pool]
    return found
