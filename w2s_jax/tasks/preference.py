"""Preference pairs: two texts, the class is the place of the preferred one (a Bradley-Terry model's two logits).

`anthropic_hh`: transcripts as published (Bai et al. 2022, arXiv 2204.05862): columns `chosen` and `rejected`, each
"\\n\\nHuman: ...\\n\\nAssistant: ..." and equal up to the last answer. `preference`: files of one's own with `chosen`
and `rejected`, and `prompt` unless they are whole transcripts; lists of chat messages are written out the same way.
Only the order of the two is random, so what tells them apart is in the texts.
"""
import dataclasses
import functools
import itertools

from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks.text import cells, shifts, statements, tables
from w2s_jax.tasks.text.statements import Statement

HUB = 'Anthropic/hh-rlhf'
HUMAN, ASSISTANT = '\n\nHuman: ', '\n\nAssistant:'
TEMPLATE = '\n\nHuman: {prompt}\n\nAssistant: {completion}'
SPEAKERS = {'user': HUMAN, 'human': HUMAN, 'assistant': f'{ASSISTANT} ', 'gpt': f'{ASSISTANT} ',
            'system': '\n\nSystem: '}
CLASSES = ['the first', 'the second']


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where a pair is in a row; prompt '' where the two texts are whole transcripts."""
    prompt: str
    chosen: str
    rejected: str
    template: str = TEMPLATE
    group: str = ''  # '': pairs that start with the same words of the human
    transcripts: bool = False  # both must have an assistant's turn


def load_hh(task, log=print) -> Dataset:
    """Anthropic's pairs, from the hub or from `task.path` (a folder or a file in the published format)."""
    parts = tables.splits(task, 'train', ('test', 'validation'), _from_hub)
    return _dataset(task, parts, Columns('', 'chosen', 'rejected', transcripts=True), log)


def load(task, log=print) -> Dataset:
    """Pairs from files. task: path, test_path, prompt, chosen, rejected (columns; '' = those of these names, the
    prompt only where there is one), group, template (of {prompt} and {completion}), train_size, test_size, seed,
    max_bad_rows."""
    parts = tables.splits(task, 'train', ('test', 'validation'), None)
    prompt = task.prompt or ('prompt' if 'prompt' in parts[0][0].columns else '')
    columns = Columns(prompt, task.chosen or 'chosen', task.rejected or 'rejected', task.template or TEMPLATE,
                      task.group)
    if task.template:
        _check_template(task.template, prompt)
    if columns.chosen == columns.rejected or prompt in (columns.chosen, columns.rejected):
        raise ConfigError(f'task.prompt, task.chosen, task.rejected: {prompt!r}, {columns.chosen!r}, '
                          f'{columns.rejected!r}, expected different columns')
    return _dataset(task, parts, columns, log)


def _from_hub(split: str, needed: int, seed: int) -> tables.Table:
    return tables.from_hub(HUB, split, needed=needed, seed=seed)


def _check_template(template: str, prompt: str) -> None:
    if not prompt:
        raise ConfigError(f"task.template: {template!r}, expected '' as there is no column of prompts, and texts are "
                          'shown as they are')
    expected = {'prompt', 'completion'}
    if set(statements.fields_of(template)) != expected:
        raise ConfigError(f'task.template: {template!r}, expected '
                               + ' and '.join(f'{{{name}}}' for name in sorted(expected, reverse=True)))


def _dataset(task, parts, columns: Columns, log) -> Dataset:
    pool, test = parts
    fields = {getattr(columns, name): f'task.{name}' if task.get(name) else ''  # the section of some has no columns
              for name in ('chosen', 'rejected', 'prompt', 'group') if getattr(columns, name)}
    further = shifts.read(task, 'train', ('test', 'validation'))
    for table in (*pool, *(test or []), *itertools.chain(*further.values())):
        tables.check_columns(table, fields)
    same, apart = 0, []
    for split in (pool, test or []):
        kept = [_distinct(table, columns) for table in split]
        same += sum(len(t.rows) - len(k.rows) for t, k in zip(split, kept, strict=True))
        apart.append([k for k in kept if k.rows])
    if not apart[0] or (test and not apart[1]):
        raise DataError(f'{(pool if not apart[0] else test)[0].source}: every pair is two identical texts')
    make = functools.partial(pair, columns=columns, seed=task.seed)
    shifted = {k: statements.source([_distinct(t, columns) for t in part], make, task, log)
               for k, part in further.items()}
    found = statements.dataset(task, task.name, CLASSES, statements.source(apart[0], make, task, log),
                               statements.source(apart[1], make, task, log) if test else None, log, truncate='start',
                               template=columns.template if columns.prompt else '{chosen} | {rejected}',
                               shifted=shifted)
    found.notes['identical'] = same
    return found


def _distinct(table: tables.Table, columns: Columns) -> tables.Table:
    """The table without pairs of identical texts."""
    keep = [(row, number) for row, number in zip(table.rows, table.numbers, strict=True)
            if row.get(columns.chosen) is None or row.get(columns.chosen) != row.get(columns.rejected)]
    return dataclasses.replace(table, rows=[row for row, _ in keep], numbers=[number for _, number in keep])


def pair(row: dict, columns: Columns, seed: int) -> Statement:
    """A row as two texts in an order drawn for it. Raises ValueError where it cannot be used.

    Pairs that start with the same words of the human are a group, unless a column says what is: turns of one
    conversation stay together.
    """
    chosen, rejected = (_transcript(row, c) for c in (columns.chosen, columns.rejected))
    if columns.prompt:
        opening = _transcript(row, columns.prompt).removeprefix(HUMAN.strip()).strip()
        chosen, rejected = (_after_prompt(opening, t, columns.template) for t in (chosen, rejected))
    else:
        opening = _opening(chosen, rejected, columns)
    if chosen == rejected:
        raise ValueError(f'{columns.chosen} and {columns.rejected} are the same')
    truth = statements.random_of(seed, row).randrange(2)
    return Statement((rejected, chosen) if truth else (chosen, rejected), truth,
                     cells.group(row, columns.group, opening))


def _after_prompt(prompt: str, completion: str, template: str) -> str:
    """The two in the template; the completion alone where it is a transcript that begins with the prompt."""
    if completion.removeprefix(HUMAN.strip()).strip().startswith(prompt):
        return completion
    completion = completion.removeprefix(ASSISTANT.strip()).strip()
    return statements.fill(template, {'prompt': prompt, 'completion': completion}).strip()


def _opening(chosen: str, rejected: str, columns: Columns) -> str:
    """What the human says first where both transcripts begin with it, else the preferred text."""
    for name, transcript in ((columns.chosen, chosen), (columns.rejected, rejected)):
        if columns.transcripts and ASSISTANT.strip() not in transcript:
            raise ValueError(f'{name} has no turn that starts with "Assistant:"')
    first, turn, _ = chosen.partition(ASSISTANT)
    return first if turn and rejected.startswith(first) else chosen


def _transcript(row: dict, column: str) -> str:
    """A text, or a list of chat messages ({role, content} or {from, value}) as a transcript."""
    value = row.get(column)
    if not isinstance(value, list):
        return statements.text_of(row, column)
    turns = []
    for message in value:
        if not isinstance(message, dict):
            raise ValueError(f'{column}: message {str(message)[:40]!r}, expected an object with role and content')
        role = str(message.get('role') or message.get('from'))
        if role not in SPEAKERS:
            raise ValueError(f'{column}: role {role!r}, expected one of {", ".join(SPEAKERS)}')
        said = {column: message.get('content') or message.get('value')}
        turns.append(SPEAKERS[role] + statements.text_of(said, column))
    if not turns:
        raise ValueError(f'{column} has no messages')
    return ''.join(turns).strip()
