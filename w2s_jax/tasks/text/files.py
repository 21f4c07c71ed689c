"""The user's own data: texts with labels, questions with options, or pairs, from csv, tsv, jsonl, json or parquet.

With `task.text` (or a template of columns) and `task.label` the classes are those of the label column. With
`task.question`, `task.options` and `task.answer` each question becomes one statement with one candidate answer, right
or wrong with even chance, as in `nlp`. With `task.chosen` and `task.rejected` the two texts are a preference pair.
Rows with the same text, question or `task.group` stay together. `task.shifted` names further test sets of that form.
"""
import dataclasses
import functools
import itertools
from collections.abc import Callable

from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError
from w2s_jax.tasks import difficulty, preference
from w2s_jax.tasks.text import cells, classes, nlp, questions, shifts, statements, tables
from w2s_jax.tasks.text.classes import Labels
from w2s_jax.tasks.text.statements import Statement
from w2s_jax.tasks.text.tables import Table

# What kind of data a field stands for -> (fields that must be set beside it, fields that may be).
FORMS = {'text': (('label',), ('weak', 'classes', 'group', 'balance', 'difficulty')),
         'question': (('options', 'answer'), ('classes', 'group', 'difficulty')),
         'chosen': (('rejected',), ('prompt', 'group'))}
SPLITS = ('test', 'validation')
QUESTIONS = 500  # the default of task.questions
OWN = {'label', 'weak', 'classes', 'group', 'balance', 'options', 'answer', 'rejected', 'prompt', 'difficulty'}


def load(task, log=print) -> Dataset:
    """Examples from `task.path`, a file or a folder of them.

    task: path, test_path ('' = a file called test in the folder, else a fifth of the rows), train_size, test_size,
    seed, max_bad_rows, template (of {column}s, and {answer}), group, and

    - text (a column, or several 'a,b', which are joined by blank lines), label (classes; probabilities of the second of
      two; lists of K probabilities: the likeliest class is then the truth), weak (the same, and kept soft; several
      'a,b' of as many teachers), classes (their names in order, comma separated; '' = as the labels say), balance
      (drops rows of larger classes);
    - question, options (a column of lists, or several columns 'a,b,c'), answer (an index from 0, or from 1 if that is
      certain, a letter, an option's text, or the right answer itself beside wrong options), questions;
    - chosen, rejected, prompt;
    - beside text or question: difficulty (a column of numbers), cut, train and bands (`difficulty.py`).
    Raises ConfigError for fields that contradict each other, DataError for files that cannot be used.
    """
    form = _form(task)
    if form == 'chosen':
        return preference.load(task, log)
    parts = tables.splits(task, 'train', SPLITS, None)
    return (_questions if form == 'question' else _texts)(task, parts, shifts.read(task, 'train', SPLITS), log)


def _form(task) -> str:
    """Which of FORMS the data have. Raises ConfigError for fields that do not go together."""
    given = [form for form in FORMS if task[form]] or ['text'] * bool(task.template and task.label)
    if len(given) != 1:
        raise ConfigError(', '.join(f'task.{form}: {task[form]!r}' for form in FORMS) + ', expected one of them')
    form, (wanted, more) = given[0], FORMS[given[0]]
    for name in wanted:
        if not task[name]:
            raise ConfigError(f'task.{name}: empty, expected a column, as task.{form} is set')
    for name in sorted(OWN - {*wanted, *more}):
        if task[name]:
            raise ConfigError(f'task.{name}: {task[name]!r}, expected {type(task[name])()!r}, as task.{form} is set')
    if task.text and task.template:
        raise ConfigError(f"task.text: {task.text!r}, expected '' as task.template is set, which says what is shown")
    difficulty.wanted(task)
    if form != 'question' and task.questions != QUESTIONS:
        raise ConfigError(f'task.questions: {task.questions}, expected {QUESTIONS} as task.{form} is set, which has no '
                          'options')
    if form != 'chosen':
        _check_template(task)
    return form


def _check_template(task) -> None:
    if task.question and task.template and 'answer' not in statements.fields_of(task.template):
        raise ConfigError(f'task.template: {task.template!r}, expected {{answer}} in it, which the candidate replaces')
    if task.template and not statements.fields_of(task.template):
        raise ConfigError(f'task.template: {task.template!r}, expected {{column}}s in it')


def _check_answers(task, shown: dict[str, str], weak: list[str]) -> None:
    """Raises ConfigError for an answer among what a model is shown. shown: column -> the field that shows it.  weak:
    columns of weak labels."""
    told = {task[field]: f'task.{field}' for field in ('label', 'answer') if task[field]}
    for name, field in (told | dict.fromkeys(weak, 'task.weak')).items():
        if name in shown:
            raise ConfigError(f'{shown[name]}: shows the column {name!r}, which is {field}: a model would read the '
                              'answer; expected other columns')


def _check_columns(task, everything: list[Table], fields: tuple[str, ...], several: dict[str, list[str]]) -> None:
    """Raises DataError for a column that is not there. several: field -> the columns that it names."""
    asked = {name: 'task.template' for name in statements.fields_of(task.template)
             if not (name == 'answer' and task.question)}
    _check_answers(task, asked | {name: f'task.{f}' for f, names in several.items() for name in names
                                  if f not in ('options', 'weak')} | (
        {task.question: 'task.question'} if task.question else {}), several.get('weak', []))
    asked |= {task[f]: f'task.{f}' for f in (*fields, 'group', difficulty.KEY) if task[f]}
    asked |= {name: f'task.{f}' for f, names in several.items() for name in names}
    for table in everything:
        tables.check_columns(table, asked)


def _sources(task, parts, further: dict[str, list[Table]], make: Callable[[dict], Statement], log):
    """(pool, test set or None, further test sets by name) of the rows of all splits."""
    def levelled(row):
        return dataclasses.replace(make(row), difficulty=cells.number(row, task.difficulty))
    read = levelled if difficulty.wanted(task) else make
    pool, test = (statements.source(part, read, task, log) if part else None for part in parts)
    return pool, test, {k: statements.source(part, read, task, log) for k, part in further.items()}


def _texts(task, parts, further: dict[str, list[Table]], log) -> Dataset:
    everything = parts[0] + (parts[1] or [])
    columns = cells.columns(task.text, everything)
    said = cells.columns(task.weak, everything) if task.weak else []
    _check_columns(task, [*everything, *itertools.chain(*further.values())], ('label',),
                   {'text': columns, 'weak': said})
    labels = classes.read(everything, task)
    make = functools.partial(labelled, task=task, columns=columns, labels=labels,
                             weak=classes.read_weak(everything, task, labels))
    pool, test, shifted = _sources(task, parts, further, make, log)
    shown = task.template or '\n\n'.join(f'{{{c}}}' for c in columns)
    found = statements.dataset(task, 'files', classes.names(task.classes, list(labels.names)), pool, test, log,
                               balanced=task.balance, template=shown, shifted=shifted,
                               truncate='start' if len(statements.fields_of(task.template) or columns) > 1 else 'end')
    if labels.kind != 'class':
        found.notes['truth'] = _likeliest(everything, labels)
        log(f'files: the truth is {found.notes["truth"]}')
    return found


def _likeliest(everything: list[Table], labels: Labels) -> str:
    """What stands for the truth where labels are probabilities."""
    ties = 0
    for _, _, row in tables.numbered(everything):
        try:
            ties += labels.is_tie(row.get(labels.column))
        except ValueError:
            continue
    return (f'the likeliest class by the probabilities in column {labels.column!r}'
            + (f' (of {ties} ties the first)' if ties else ''))


def labelled(row: dict, task, columns: list[str], labels: Labels, weak: list[Labels]) -> Statement:
    """A row with its label as its class, and its weak labels. Raises ValueError where it cannot be used."""
    truth = labels.truth(row.get(labels.column))
    if task.template:
        values = {n: cells.shown(row, n) for n in statements.fields_of(task.template)}
        text = statements.fill(task.template, values).strip()
    else:
        text = cells.joined(row, columns)
    said = tuple(one.probabilities(row.get(one.column)) for one in weak)
    return Statement((text,), truth, cells.group(row, task.group, text), (said if len(said) > 1 else said[0])
                     if said else None)


def _questions(task, parts, further: dict[str, list[Table]], log) -> Dataset:
    everything = parts[0] + (parts[1] or [])
    template = task.template or nlp.ANSWERED.replace('{question}', f'{{{task.question}}}')
    options = cells.columns(task.options, everything)
    _check_columns(task, [*everything, *itertools.chain(*further.values())], ('question', 'answer'),
                   {'options': options})
    way = questions.read(everything, options, task.answer)
    make = functools.partial(questions.statement, task=task, template=template, columns=options, way=way)
    pool, test, shifted = _sources(task, parts, further, make, log)
    found = statements.dataset(task, 'files', classes.names(task.classes, list(nlp.WRONG_RIGHT)), pool, test, log,
                               template=template, truncate='start', questions=task.questions,
                               shifted=shifted)
    found.notes['answers'] = f'column {task.answer!r} holds {way.said}'
    log(f'files: {found.notes["answers"]}')
    return found
