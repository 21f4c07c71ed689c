"""The NLP tasks of the paper (22), amazon_polarity, and a few that are at hand: binary statements about texts.

One row of `SPECS` is one task: where it is published, its template, what 0 and 1 mean. A multiple-choice question
becomes one statement with one candidate answer, right or wrong with even chance, and the answers are never shown
beside each other: what the text looks like must not tell the label (arXiv 2312.09390, section 4.1 and appendix A;
`leak` checks it). Classes are balanced, and rows that share a question or a passage stay together.

`task.path` is a folder (train.* and the test split's file, or files of any name) or a file, with the columns of the
hub or simplified ones: `question`, `options`, `answer_index` (from 0), or `text`, `label`. Without it the data come
from the hub. All hub ids are plain files; `PARQUET` is the hub's own conversion of data sets that were scripts.
"""
import dataclasses
import functools
from collections.abc import Callable

from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError
from w2s_jax.tasks.text import formats, phrases, shifts, statements, tables
from w2s_jax.tasks.text.statements import Statement

PARQUET = 'refs/convert/parquet'
LINES = ('dialogue',)  # columns that hold a list of texts, shown as lines
ANSWERED = 'Q: {question} A: {answer}'  # openai/weak-to-strong's wording for SciQ
IN_CONTEXT = 'Context: {context}\nQuestion: {question}\nAnswer: {answer}'  # and for Cosmos QA
WRONG_RIGHT = ('wrong answer', 'right answer')
ANSWERS = ('label', 'answer_index', 'options')  # columns that no template shows
NO_YES = ('no', 'yes')
NEGATIVE_POSITIVE = ('negative', 'positive')


@dataclasses.dataclass(frozen=True)
class Spec:
    """A task: where its rows are and how one becomes a statement.

    hub, config, revision, data_dir, train, test: the id and parts of it that hold pool and test set.
    template: its names are columns, or `answer` where `choices` gives candidates.  group: the column that related
    rows share, cut short by `group_of`.  columns: what else a row must have.  rename: published -> our column.
    choices: row -> (answers, place of the right one).  fields: (row, rng) -> (values of the template, class).
    label: row -> class, where neither is given.  classes: what 0, 1 ... mean.  optional: columns that may be empty.
    truncate: 'start' where what matters comes last.  phrases: some texts are parts of others; the pool has none of
    them.
    """
    hub: str
    template: str
    group: str
    classes: tuple[str, ...] = NO_YES
    columns: tuple[str, ...] = ('label',)
    choices: Callable[[dict], tuple[list[str], int]] | None = None
    fields: Callable | None = None
    label: Callable = formats.label
    group_of: Callable[[str], str] = str
    rename: tuple[tuple[str, str], ...] = ()
    optional: tuple[str, ...] = ()
    config: str = ''
    revision: str = ''
    data_dir: str = ''
    train: str = 'train'
    test: str = 'test'
    truncate: str = 'start'
    phrases: bool = False


def _choice(hub: str, template: str, group: str, choices: Callable, columns: tuple[str, ...], **more) -> Spec:
    return Spec(hub, template, group, WRONG_RIGHT, columns, choices, **more)


def _sentiment(hub: str, **more) -> Spec:
    return Spec(hub, '{text}', 'text', NEGATIVE_POSITIVE, truncate='end', **more)


def _ethics(part: str, template: str, group: str, classes: tuple[str, str], **more) -> Spec:
    return Spec('hendrycks/ethics', template, group, classes, revision=PARQUET, data_dir=part, **more)


_LETTERED = ('choices', 'answerKey')

SPECS: dict[str, Spec] = {
    # the paper's 22
    'boolq': Spec('google/boolq', 'Passage: {passage}\nQuestion: {question}', 'passage', rename=(('answer', 'label'),),
                  test='validation'),
    'cosmos_qa': _choice('allenai/cosmos_qa', IN_CONTEXT, 'context', formats.numbered('answer', '0123'),
                         ('answer0', 'answer1', 'answer2', 'answer3', 'label'), revision=PARQUET, test='validation'),
    'dream': _choice('dataset-org/dream', 'Dialogue:\n{dialogue}\nQuestion: {question}\nAnswer: {answer}', 'dialogue',
                     formats.dream, ('choice', 'answer'), revision=PARQUET),
    'ethics_justice': _ethics('justice', '{text}', 'text', ('unreasonable', 'reasonable'),
                              rename=(('scenario', 'text'),), group_of=formats.before_because),
    'ethics_deontology': _ethics('deontology', '{scenario}\n{excuse}', 'scenario', ('unreasonable', 'reasonable')),
    'ethics_virtue': _ethics('virtue', 'Scenario: {scenario}\nTrait: {trait}', 'scenario',
                             ('does not fit', 'fits'), fields=formats.virtue, group_of=formats.before_trait),
    'ethics_utilitarianism': _ethics('utilitarianism', 'First: {first}\nSecond: {second}\n'
                                     'Question: Is the first more pleasant than the second?', 'baseline', NO_YES,
                                     columns=('less_pleasant',), fields=formats.two('baseline', 'less_pleasant'),
                                     group_of=formats.first_sentence),
    'anli_r2': Spec('facebook/anli', 'Premise: {premise}\nHypothesis: {hypothesis}\n'
                    'Question: Does the premise entail the hypothesis?', 'premise', label=formats.entailment,
                    train='train_r2', test='test_r2'),
    'cola': Spec('nyu-mll/glue', '{text}', 'text', ('unacceptable', 'acceptable'), rename=(('sentence', 'text'),),
                 config='cola', test='validation', truncate='end'),
    'sst2': _sentiment('stanfordnlp/sst2', rename=(('sentence', 'text'),), test='validation', phrases=True),
    'hellaswag': _choice('Rowan/hellaswag', 'Context: {ctx}\nContinuation: {answer}', 'ctx',
                         formats.listed('endings', 'label'), ('endings', 'label'), test='validation'),
    'mc_taco': Spec('CogComp/mc_taco', 'Passage: {sentence}\nQuestion: {question}\nAnswer: {answer}', 'sentence',
                    ('implausible', 'plausible'), revision=PARQUET, train='test', test='validation'),
    'openbookqa': _choice('allenai/openbookqa', 'Q: {question_stem} A: {answer}', 'question_stem', formats.lettered,
                          _LETTERED, config='main'),
    'paws': Spec('google-research-datasets/paws', 'Sentence 1: {sentence1}\nSentence 2: {sentence2}\n'
                 'Question: Do they mean the same?', 'sentence1', config='labeled_final'),
    'quail': _choice('textmachinelab/quail', IN_CONTEXT, 'context', formats.listed('answers', 'correct_answer_id'),
                     ('answers', 'correct_answer_id'), test='validation'),
    'piqa': _choice('ybisk/piqa', 'Q: {goal} A: {answer}', 'goal', formats.numbered('sol', '12'),
                    ('sol1', 'sol2', 'label'), revision=PARQUET, test='validation'),
    'quartz': _choice('allenai/quartz', 'Passage: {para}\nQuestion: {question}\nAnswer: {answer}', 'para',
                      formats.lettered, _LETTERED),
    'sciq': _choice('allenai/sciq', ANSWERED, 'question', formats.sciq,
                    ('correct_answer', 'distractor1', 'distractor2', 'distractor3')),
    'social_i_qa': _choice('lighteval/siqa', IN_CONTEXT, 'context', formats.numbered('answer', 'ABC', first=1),
                           ('answerA', 'answerB', 'answerC', 'label'), test='validation'),
    'multirc': Spec('aps/super_glue', 'Passage: {paragraph}\nQuestion: {question}\nAnswer: {answer}', 'paragraph',
                    WRONG_RIGHT, revision=PARQUET, data_dir='multirc', test='validation'),
    'wic': Spec('aps/super_glue', 'Sentence 1: {sentence1}\nSentence 2: {sentence2}\n'
                'Question: Does "{word}" mean the same in both?', 'word', revision=PARQUET, data_dir='wic',
                test='validation'),
    'twitter_sentiment': _sentiment('EleutherAI/twitter-sentiment'),
    # more
    'amazon_polarity': Spec('fancyzhx/amazon_polarity', '{title} {content}', 'content', NEGATIVE_POSITIVE,
                            optional=('title',), truncate='end'),
    'rotten_tomatoes': _sentiment('cornell-movie-review-data/rotten_tomatoes'),
    'imdb': _sentiment('stanfordnlp/imdb'),
    'rte': Spec('nyu-mll/glue', 'Premise: {sentence1}\nHypothesis: {sentence2}\n'
                'Question: Does the premise entail the hypothesis?', 'sentence1', label=formats.entailment,
                config='rte', test='validation'),
    'arc_easy': _choice('allenai/ai2_arc', ANSWERED, 'question', formats.lettered, _LETTERED, config='ARC-Easy'),
    'ethics_commonsense': _ethics('commonsense', '{text}', 'text', ('not wrong', 'wrong'), rename=(('input', 'text'),)),
    'ag_news': Spec('fancyzhx/ag_news', '{text}', 'text', ('World', 'Sports', 'Business', 'Sci/Tech'),
                    label=functools.partial(formats.label, num_classes=4), truncate='end'),
}


def load(task, log=print) -> Dataset:
    """The task called `task.name`, balanced; see the module.

    task: path and test_path ('' = the hub's), template ('' = the task's own), train_size and test_size (0 = all,
    of the test set at most 10 000), seed (of candidate answers, cuts and choices), max_bad_rows, questions, shifted.
    Raises DataError for files that cannot be used, ConfigError where the hub cannot be reached.
    """
    spec = _with_template(SPECS[task.name], task.template)
    parts = tables.splits(task, spec.train, (spec.test, 'test', 'validation'), functools.partial(_from_hub, spec))
    number = task.get('questions') or 0  # only tasks with options have the setting
    make = functools.partial(statement, spec=spec, seed=task.seed, whole=number > 0)

    def found(tables_of):
        return statements.source([_prepared(t, spec) for t in tables_of], make, task, log)
    pool, test = found(parts[0]), found(parts[1]) if parts[1] else None
    further = {k: found(v) for k, v in shifts.read(task, spec.train, (spec.test, 'test', 'validation')).items()}
    if spec.phrases:
        pool = phrases.without(pool, log)
    return statements.dataset(task, task.name, list(spec.classes), pool, test, log, template=spec.template,
                        truncate=spec.truncate, questions=number, shifted=further)


def _with_template(spec: Spec, template: str) -> Spec:
    if not template:
        return spec
    names, own = statements.fields_of(template), statements.fields_of(spec.template)
    if not names or (spec.choices and 'answer' not in names) or (spec.fields and not set(names) <= set(own)):
        raise ConfigError(f'task.template: {template!r}, expected columns in braces as in {spec.template!r}')
    answers = {*spec.columns, *ANSWERS} - {*own, spec.group}
    if told := [name for name in names if name in answers]:
        raise ConfigError(f'task.template: shows the column {told[0]!r}, which says what is right: a model would read '
                          f'the answer; expected columns as in {spec.template!r}')
    return dataclasses.replace(spec, template=template)


def _from_hub(spec: Spec, split: str, needed: int, seed: int) -> tables.Table:
    return tables.from_hub(spec.hub, split, spec.config, spec.revision, spec.data_dir, needed, seed)


def _prepared(table: tables.Table, spec: Spec) -> tables.Table:
    """The table with our column names, checked to have them."""
    rename = dict(spec.rename)
    if _is_simplified(spec, table.columns):
        rename['question'] = spec.group
    new = {old: name for old, name in rename.items() if old in table.columns and name not in table.columns}
    rows = [{new.get(k, k): v for k, v in row.items()} for row in table.rows] if new else table.rows
    table = dataclasses.replace(table, rows=rows, columns=[new.get(c, c) for c in table.columns])
    more = ('options', 'answer_index') if _is_simplified(spec, table.columns) else spec.columns
    tables.check_columns(table, dict.fromkeys([*_shown(spec), *more], ''))
    return table


def _is_simplified(spec: Spec, columns) -> bool:
    return spec.choices is not None and 'options' in columns and 'answer_index' in columns


def _shown(spec: Spec) -> list[str]:
    """The columns that the template shows as they are, and the group's."""
    if spec.fields:
        return [spec.group]
    names = [n for n in statements.fields_of(spec.template) if not (n == 'answer' and spec.choices)]
    return names + [spec.group] * (spec.group not in names)


def statement(row: dict, spec: Spec, seed: int, whole: bool = False) -> Statement:
    """A row, with our column names, as a statement; `whole`: which knows all options. Raises ValueError where it cannot
    be used."""
    rng, every = statements.random_of(seed, row), None
    shown = {name: _value(row, name, spec.optional) for name in _shown(spec)}
    if spec.fields:
        values, truth = spec.fields(row, rng)
    elif spec.choices:
        pick = formats.simplified if _is_simplified(spec, row) else spec.choices
        options, right = pick(row)
        answer, truth = formats.draw(options, right, rng)
        values = shown | {'answer': answer}
        filled = functools.partial(statements.answered, spec.template, shown)
        every = functools.partial(formats.whole, options, right, filled)
    else:
        values, truth = shown, spec.label(row)
    shared = statements.normal(spec.group_of(shown[spec.group]))
    return Statement((statements.fill(spec.template, values).strip(),), truth, statements.group_id(shared),
                     whole=every if whole else None)


def _value(row: dict, name: str, optional: tuple[str, ...]) -> str:
    if name in optional and not row.get(name):
        return ''
    return formats.joined(row, name) if name in LINES else statements.text_of(row, name)
