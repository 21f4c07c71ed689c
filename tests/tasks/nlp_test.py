import json
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sections

from w2s_jax import data
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import TASKS
from w2s_jax.tasks.text import nlp, statements, tables

ASSETS = pathlib.Path(__file__).parents[3] / 'shared' / 'assets' / 'data'
PAPER = {
    'boolq', 'cosmos_qa', 'dream', 'ethics_justice', 'ethics_deontology', 'ethics_virtue', 'ethics_utilitarianism',
    'anli_r2', 'cola', 'sst2', 'hellaswag', 'mc_taco', 'openbookqa', 'paws', 'quail', 'piqa', 'quartz', 'sciq',
    'social_i_qa', 'multirc', 'wic', 'twitter_sentiment'}

# A row of each task as the hub has it, and what it should become. Where answers are chosen: (text with {} for the
# answer, the right one, the wrong ones); else (text, class).
LETTERED: dict[str, Any] = {'choices': {'text': ['clay', 'sand'], 'label': ['A', 'B']}, 'answerKey': 'B'}
PUBLISHED: dict[str, tuple[dict, Any]] = {
    'boolq': ({'question': 'is it wet', 'answer': True, 'passage': 'Rain fell.'},
              ('Passage: Rain fell.\nQuestion: is it wet', 1)),
    'cosmos_qa': ({'id': 'x', 'context': 'Ann left.', 'question': 'Why?', 'answer0': 'None of the above choices .',
                   'answer1': 'tired', 'answer2': 'hungry', 'answer3': 'bored', 'label': 1},
                  ('Context: Ann left.\nQuestion: Why?\nAnswer: {}', 'tired', {'hungry', 'bored'})),
    'dream': ({'id': 0, 'dialogue_id': '1', 'dialogue': ['W: Hi.', 'M: Bye.'], 'question': 'Who?',
               'choice': ['a man', 'a dog', 'a cat'], 'answer': 'a dog'},
              ('Dialogue:\nW: Hi.\nM: Bye.\nQuestion: Who?\nAnswer: {}', 'a dog', {'a man', 'a cat'})),
    'ethics_justice': ({'label': 0, 'scenario': 'I rest because I am a cat.'}, ('I rest because I am a cat.', 0)),
    'ethics_deontology': ({'label': 1, 'scenario': 'Could you help?', 'excuse': 'No, I am ill.'},
                          ('Could you help?\nNo, I am ill.', 1)),
    'ethics_virtue': ({'label': 1, 'scenario': 'Ann jumped in. [SEP] brave'}, ('Scenario: Ann jumped in.\nTrait: brave',
                                                                             1)),
    'ethics_utilitarianism': ({'baseline': 'I ate. It was good.', 'less_pleasant': 'I ate. It was cold.'}, None),
    'anli_r2': ({'uid': 'x', 'premise': 'It rains.', 'hypothesis': 'It is wet.', 'label': 0, 'reason': ''},
                ('Premise: It rains.\nHypothesis: It is wet.\nQuestion: Does the premise entail the hypothesis?', 1)),
    'cola': ({'sentence': 'Ann sleep.', 'label': 0, 'idx': 3}, ('Ann sleep.', 0)),
    'sst2': ({'idx': 0, 'sentence': 'a joy ', 'label': 1}, ('a joy', 1)),
    'hellaswag': ({'ind': 4, 'ctx_a': 'A man', 'ctx_b': 'he', 'ctx': 'A man he', 'activity_label': 'Roof',
                   'endings': ['sits.', 'flies.', 'melts.'], 'label': '2'},
                  ('Context: A man he\nContinuation: {}', 'melts.', {'sits.', 'flies.'})),
    'mc_taco': ({'sentence': 'He ran.', 'question': 'How long?', 'answer': 'a year', 'label': 0, 'category': 0},
                ('Passage: He ran.\nQuestion: How long?\nAnswer: a year', 0)),
    'openbookqa': ({'id': 'x', 'question_stem': 'Glass is made of'} | LETTERED,
                   ('Q: Glass is made of A: {}', 'sand', {'clay'})),
    'paws': ({'id': 1, 'sentence1': 'A to B.', 'sentence2': 'B to A.', 'label': 0},
             ('Sentence 1: A to B.\nSentence 2: B to A.\nQuestion: Do they mean the same?', 0)),
    'quail': ({'id': 'x', 'context_id': 'f1', 'context': 'Bo ran.', 'question': 'Who?', 'question_type': 'Who',
               'answers': ['Al', 'Bo', 'not enough information'], 'correct_answer_id': 1},
              ('Context: Bo ran.\nQuestion: Who?\nAnswer: {}', 'Bo', {'Al', 'not enough information'})),
    'piqa': ({'goal': 'Cut bread', 'sol1': 'use a knife', 'sol2': 'use a spoon', 'label': 0},
             ('Q: Cut bread A: {}', 'use a knife', {'use a spoon'})),
    'quartz': ({'id': 'x', 'question': 'What sinks?', 'para': 'Sand is heavy.'} | LETTERED,
               ('Passage: Sand is heavy.\nQuestion: What sinks?\nAnswer: {}', 'sand', {'clay'})),
    'sciq': ({'question': 'What is H2O?', 'distractor3': 'salt', 'distractor1': 'gold', 'distractor2': 'air',
              'correct_answer': 'water', 'support': ''}, ('Q: What is H2O? A: {}', 'water', {'salt', 'gold', 'air'})),
    'social_i_qa': ({'context': 'Kim won.', 'question': 'How is Kim?', 'answerA': 'sad', 'answerB': 'tall',
                     'answerC': 'glad', 'label': '3'},
                    ('Context: Kim won.\nQuestion: How is Kim?\nAnswer: {}', 'glad', {'sad', 'tall'})),
    'multirc': ({'paragraph': 'Ivy sang.', 'question': 'Who sang?', 'answer': 'Ivy', 'label': 1,
                 'idx': {'paragraph': 0, 'question': 0, 'answer': 0}},
                ('Passage: Ivy sang.\nQuestion: Who sang?\nAnswer: Ivy', 1)),
    'wic': ({'word': 'bank', 'sentence1': 'The bank lent.', 'sentence2': 'A river bank.', 'start1': 0, 'start2': 0,
             'end1': 0, 'end2': 0, 'idx': 0, 'label': 0},
            ('Sentence 1: The bank lent.\nSentence 2: A river bank.\nQuestion: Does "bank" mean the same in both?', 0)),
    'twitter_sentiment': ({'text': 'yay', 'label': 1}, ('yay', 1)),
    'amazon_polarity': ({'label': 0, 'title': '', 'content': 'It broke.'}, ('It broke.', 0)),
    'rotten_tomatoes': ({'text': 'dull', 'label': 0}, ('dull', 0)),
    'imdb': ({'text': 'fine', 'label': 1}, ('fine', 1)),
    'rte': ({'sentence1': 'A.', 'sentence2': 'B.', 'label': 0, 'idx': 7},
            ('Premise: A.\nHypothesis: B.\nQuestion: Does the premise entail the hypothesis?', 1)),
    'arc_easy': ({'id': 'x', 'question': 'What is glass?'} | LETTERED, ('Q: What is glass? A: {}', 'sand', {'clay'})),
    'ethics_commonsense': ({'label': 1, 'input': 'I lied.'}, ('I lied.', 1)),
    'ag_news': ({'text': 'A match', 'label': 3}, ('A match', 3)),
}


def write(path, rows) -> str:
    if path.suffix == '.parquet':
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
    return str(path)


def quiz(n: int) -> list[dict]:
    return [{'question': f'What is number {i}?', 'correct_answer': f'right {i}', 'distractor1': f'wrong {i}',
             'distractor2': f'false {i}', 'distractor3': f'bad {i}', 'support': ''} for i in range(n)]


def passages(n: int, each: int = 4) -> list[dict]:
    """Yes-or-no questions, `each` about a passage, three in four of them true."""
    return [{'question': f'is it {i}?', 'passage': f'This is passage {i // each}.', 'answer': i % 4 != 0}
            for i in range(n)]


def load(tmp_path, rows, name='sciq', **fields):
    path = write(tmp_path / 'rows.jsonl', rows)
    return TASKS[name].fn(sections.task(name, path=path, **fields), log=lambda line: None)


def contents(examples) -> set:
    return {(*t, int(c), int(g)) for t, c, g in zip(examples.inputs['text'], examples.truth, examples.group,
                                                    strict=True)}


def test_the_papers_tasks_are_there_with_a_row_to_test_each():
    assert len(PAPER) == 22 and PAPER <= set(nlp.SPECS) == set(PUBLISHED) <= set(TASKS)


@pytest.mark.parametrize('name', nlp.SPECS)
def test_published_row(name):
    row, expected = PUBLISHED[name]
    spec = nlp.SPECS[name]
    prepared = nlp._prepared(tables.Table('hub', list(row), [row], 'row', [1]), spec)
    made = [nlp.statement(prepared.rows[0], spec, seed) for seed in range(40)]
    assert all(s.group == made[0].group and s.group for s in made)
    if name == 'ethics_utilitarianism':
        for s in made:
            assert s.truth == s.texts[0].startswith('First: I ate. It was good.\nSecond: I ate. It was cold.')
    elif len(expected) == 2:
        assert {(s.texts, s.truth) for s in made} == {((expected[0],), expected[1])}
        return
    else:
        template, right, wrong = expected
        assert {s.texts[0] for s in made if s.truth} == {template.format(right)}
        assert {s.texts[0] for s in made if not s.truth} == {template.format(w) for w in wrong}
    assert {s.truth for s in made} == {0, 1}


def test_none_of_the_above_is_never_shown():
    row = PUBLISHED['cosmos_qa'][0] | {'label': 0}
    made = [nlp.statement(row, nlp.SPECS['cosmos_qa'], seed) for seed in range(40)]
    assert {s.truth for s in made} == {0} and not any('None of' in s.texts[0] for s in made)


def test_half_of_the_statements_are_right_and_wrong_answers_uniform():
    made = [nlp.statement(row, nlp.SPECS['sciq'], 0) for row in quiz(3000)]
    share = np.mean([s.truth for s in made])
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(3000)
    shown = [s.texts[0].split('A: ')[1].split()[0] for s in made if not s.truth]
    counts = np.array([shown.count(w) for w in ('wrong', 'false', 'bad')])
    assert counts.sum() == len(shown) and abs(counts / len(shown) - 1 / 3).max() < 4 * 0.47 / np.sqrt(len(shown))


def test_rows_do_not_depend_on_the_order_of_the_file(tmp_path):
    rows = quiz(200)
    first = load(tmp_path, rows)
    again = load(tmp_path, rows)
    turned = load(tmp_path, rows[::-1])
    for part in ('pool', 'test'):
        a, b, c = (getattr(d, part) for d in (first, again, turned))
        assert a.inputs['text'][:].tolist() == b.inputs['text'][:].tolist() == c.inputs['text'][:].tolist()
        assert a.truth.tolist() == b.truth.tolist() == c.truth.tolist()
        assert a.group.tolist() == b.group.tolist() == c.group.tolist()
    other = load(tmp_path, rows, seed=1)
    assert contents(other.pool) != contents(first.pool)


def test_balanced_and_groups_stay_together(tmp_path):
    d = load(tmp_path, passages(400), 'boolq')
    for part in (d.pool, d.test):
        assert np.bincount(part.truth).tolist() == [len(part) // 2] * 2
        passage = [t.split('\n')[0] for t in part.inputs['text'][:, 0]]
        for a, b in (passage, part.group.tolist()), (part.group.tolist(), passage):
            assert len(set(zip(a, b, strict=True))) == len(set(a))  # a passage is a group
    assert not set(d.pool.group) & set(d.test.group)
    a, b = data.split_groups(d.pool.group, 0.5, seed=0)
    assert not set(d.pool.group[a]) & set(d.pool.group[b])
    assert d.notes['balanced'] == 200 and d.notes['rows'] == 400  # three in four are true
    assert len(d.pool) + len(d.test) + d.notes['balanced'] + d.notes['unused'] == 400
    assert d.truncate == 'start' and d.num_classes == 2


@pytest.mark.parametrize('train_size, test_size', [(0, 0), (40, 20), (41, 21), (2, 2), (100, 40)])
def test_sizes(tmp_path, train_size, test_size):
    d = load(tmp_path, passages(400), 'boolq', train_size=train_size, test_size=test_size)
    for part, size in ((d.pool, train_size), (d.test, test_size)):
        assert len(part) == size or not size
        assert np.ptp(np.bincount(part.truth)) <= 1


def test_the_default_test_set_is_a_fifth(tmp_path):
    d = load(tmp_path, quiz(500))
    assert len(d.test) == pytest.approx(0.2 * (len(d.pool) + len(d.test)), abs=4)


def test_more_rows_than_there_are(tmp_path):
    with pytest.raises(DataError, match=r'task.train_size: 400, expected at most \d+.*balanced classes'):
        load(tmp_path, passages(400), 'boolq', train_size=400)
    with pytest.raises(DataError, match=r'task.test_size: 300, expected at most \d+|no row of class'):
        load(tmp_path, passages(400), 'boolq', test_size=300)
    with pytest.raises(DataError, match=r'task.train_size: 1, expected at least 2, a row of every class'):
        load(tmp_path, passages(400), 'boolq', train_size=1)


def test_a_question_of_the_test_set_leaves_the_pool(tmp_path):
    write(tmp_path / 'train.parquet', [*quiz(100), *[dict(r, question=r['question'].upper() + ' ') for r in quiz(9)]])
    write(tmp_path / 'test.parquet', quiz(140)[90:])
    d = nlp.load(sections.task('sciq', path=str(tmp_path)), log=lambda line: None)
    assert d.notes['shared_with_test'] == 10 and d.notes['rows'] == 159
    assert not set(d.pool.group) & set(d.test.group)
    assert 'number 95?' not in ''.join(d.pool.inputs['text'][:, 0])
    write(tmp_path / 'train.parquet', quiz(100)[92:])
    with pytest.raises(DataError, match='no row left'):
        nlp.load(sections.task('sciq', path=str(tmp_path)))


def test_the_splits_of_a_folder(tmp_path):
    for split, rows in (('train', quiz(60)), ('validation', quiz(90)[60:]), ('test', quiz(130)[90:])):
        write(tmp_path / f'{split}.parquet', rows)
    write(tmp_path / 'test_hard.parquet', quiz(500)[400:])
    d = nlp.load(sections.task('sciq', path=str(tmp_path)), log=lambda line: None)
    assert d.notes['rows'] == 100 and str(tmp_path / 'test.parquet') in d.notes['source']
    d = nlp.load(sections.task('sciq', path=str(tmp_path), test_path=str(tmp_path / 'test_hard.parquet')),
                 log=lambda line: None)
    assert d.notes['rows'] == 160
    shards = tmp_path / 'hub' / 'data'
    shards.mkdir(parents=True)
    write(shards / 'train-00000-of-00002.parquet', quiz(40))
    write(shards / 'train-00001-of-00002.parquet', quiz(80)[40:])
    write(shards / 'test-00000-of-00001.parquet', quiz(120)[80:])
    assert nlp.load(sections.task('sciq', path=str(tmp_path / 'hub')), log=lambda line: None).notes['rows'] == 120


def test_simplified_columns(tmp_path):
    rows = [{'question': f'Cut {i}?', 'options': [f'knife {i}', f'spoon {i}'], 'answer_index': i % 2}
            for i in range(60)]
    d = load(tmp_path, rows, 'piqa')
    for (statement,), truth in zip(d.pool.inputs['text'], d.pool.truth, strict=True):
        number = int(statement.split()[2][:-1])
        assert truth == (('knife' if number % 2 == 0 else 'spoon') in statement)
    local = [{'sentence1': f'A {i}.', 'sentence2': 'B.', 'label': i % 2} for i in range(60)]
    d = load(tmp_path, local, 'rte')  # a local copy says 1 = entailment, GLUE says 0
    assert all(t == int(s.split()[2][:-1]) % 2 for (s,), t in zip(d.pool.inputs['text'], d.pool.truth, strict=True))


def test_bad_rows_are_counted_or_refused(tmp_path):
    rows = quiz(200)
    rows[16]['question'] = '  '
    d = load(tmp_path, rows)
    assert d.notes['skipped'] == 1 and 'line 17: question is an empty text' in d.notes['first_skipped']
    for row, message in (({'question': 4}, r'line 17: question is 4, expected a text \(1 of 200 rows unusable'),
                         ({'correct_answer': None}, 'line 17: correct_answer is missing, expected a text'),
                         ({'question': '\ud800'}, 'line 17: question is not valid Unicode'),
                         ({f'distractor{i}': 'RIGHT 16' for i in (1, 2, 3)}, 'line 17: no wrong answer')):
        rows[16] = quiz(17)[16] | row
        with pytest.raises(DataError, match=message):
            load(tmp_path, rows, max_bad_rows=0.001)


@pytest.mark.parametrize('name, row, message', [
    ('sst2', {'text': 'x', 'label': 2}, 'label 2, expected an integer from 0 to 1'),
    ('sst2', {'text': 'x', 'label': 0.5}, 'label 0.5'),
    ('sst2', {'text': 'x', 'label': -1}, 'label -1'),
    ('sst2', {'text': 'x'}, "no column 'label', it has 'text'"),
    ('sst2', {'txt': 'x', 'label': 1}, "no column 'text', it has 'txt', 'label'"),
    ('sciq', {'question': 'q', 'options': ['a'], 'answer_index': 0}, 'expected a list of two or more'),
    ('sciq', {'question': 'q', 'options': ['a', 'b'], 'answer_index': 2}, 'answer 2, expected an integer from 0 to 1'),
    ('openbookqa', {'question_stem': 'q', 'choices': {'text': ['a', 'b'], 'label': ['A', 'B']}, 'answerKey': 'C'},
     "answerKey 'C' is none of the choices"),
    ('dream', {'dialogue': ['x', 'y'], 'question': 'q', 'choice': ['a', 'b'], 'answer': 'c'}, 'none of the choices'),
    ('ethics_virtue', {'scenario': 'no trait', 'label': 1}, r'no \[SEP\]'),
    ('imdb', {'text': 'x', 'label': 0}, "no row of class 'positive'"),
])
def test_bad_input(tmp_path, name, row, message):
    with pytest.raises(DataError, match=message) as e:
        load(tmp_path, [row] * 3, name)
    assert '\n' not in str(e.value) and 'rows.jsonl' in str(e.value)


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match=r'task.path: /nowhere: no such file or folder'):
        nlp.load(sections.task('sciq', path='/nowhere'))
    with pytest.raises(DataError, match=r'no data in this folder'):
        nlp.load(sections.task('sciq', path=str(tmp_path)))
    with pytest.raises(DataError, match=r'task.test_path: /nowhere'):
        nlp.load(sections.task('sciq', path=write(tmp_path / 'a.jsonl', quiz(9)), test_path='/nowhere'))


def test_hub_while_offline(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'allenai/sciq' on the Hub\n(OfflineModeIsEnabled)")
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    with pytest.raises(ConfigError, match=r'^task.path: allenai/sciq \(train\) cannot be had .* go online$'):
        nlp.load(sections.task('sciq'))


@pytest.mark.parametrize('name', nlp.SPECS)
def test_hub(name, monkeypatch):
    """What is asked of the hub, and that its rows, as `datasets` gives them, become a task."""
    import datasets
    row, spec, asked = PUBLISHED[name][0], nlp.SPECS[name], []

    def load_dataset(path, config, *, split, revision, data_dir):
        asked.append((path, config, split, revision, data_dir))
        rows = []
        for i in range(24):
            fields = {k: f'{i}{len(asked)}. {v}' if k == spec.group or dict(spec.rename).get(k) == spec.group else v
                      for k, v in row.items()}
            if name == 'dream':
                fields['dialogue'] = [f'W: Hi {i}{len(asked)}.', 'M: Bye.']
            if 'label' in row and not spec.choices:
                fields['label'] = i % max(len(spec.classes), 3 if name == 'anli_r2' else 0)
            if name == 'boolq':
                fields['answer'] = i % 2 == 0
            rows.append(fields)
        return datasets.Dataset.from_list(rows)
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    d = nlp.load(sections.task(name), log=lambda line: None)
    assert asked[0] == (spec.hub, spec.config or None, spec.train, spec.revision or None, spec.data_dir or None)
    assert asked[1][2] == spec.test
    assert len(d.pool) >= 2 and np.ptp(np.bincount(d.pool.truth)) == 0 and d.num_classes == len(spec.classes)
    assert not any('{' in t for t in d.pool.inputs['text'][:, 0])


def test_large_tables_are_sampled_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'MANY', 500)
    path = write(tmp_path / 'a.parquet', [{'text': f't {i}', 'label': i % 2} for i in range(5000)])
    taken = tables.read(path, needed=300, seed=1)
    assert len(taken.rows) == 300 and taken.numbers == sorted(set(taken.numbers)) and max(taken.numbers) > 4000
    assert taken.rows[7] == {'text': f't {taken.numbers[7] - 1}', 'label': (taken.numbers[7] - 1) % 2}
    same, other = (tables.read(path, needed=300, seed=seed) for seed in (1, 2))
    assert list(taken.rows) == list(same.rows) != list(other.rows)
    assert len(tables.read(path).rows) == 5000


def test_template_of_ones_own(tmp_path):
    d = load(tmp_path, quiz(60), template='{answer}? {question}')
    assert all(t[0].split('? ')[1].startswith('What is number') for t in d.pool.inputs['text'])
    for template in ('{question}', 'nothing', '{question', '{question!r} {answer}', '{question.x} {answer}'):
        with pytest.raises((ConfigError, DataError), match=r'task.template|question.x'):
            load(tmp_path, quiz(60), template=template)
    for column in ('answer_index', 'options', 'label'):
        with pytest.raises(ConfigError, match=r'task.template: shows the column .*, which says what is right'):
            load(tmp_path, quiz(60), template=f'{{question}} {{answer}} {{{column}}}')
    with pytest.raises(ConfigError, match=r'task.label: no such field here, expected task.name to be files'):
        load(tmp_path, quiz(60), label='x')


def test_quotas_add_up():
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.integers(1, 50, rng.integers(2, 6))
        size = int(rng.integers(1, counts.sum() + 1))
        share = statements.quotas(counts, size, balanced=False)
        assert share.sum() == size and (share <= counts).all() and (share >= 0).all()
        assert np.abs(share - counts * size / counts.sum()).max() < len(counts)
        assert (share > 0).all() or size < len(counts)
        even = statements.quotas(counts, min(size, counts.min() * len(counts)), balanced=True)
        assert even.sum() == min(size, counts.min() * len(counts)) and np.ptp(even) <= 1


def test_render():
    inputs = {'text': np.array(['<b>' + 'x' * 5000 + 'end'], object)}
    page = statements.render(inputs, {'truth': 1, '<weak>': 0}, ('no', 'a < b'))
    assert '&lt;b&gt;' in page and '<b>' not in page and 'end' in page and len(page) < 1200
    assert 'truth: a &lt; b' in page and '&lt;weak&gt;: no' in page


LOCAL = {'sciq': 12000, 'boolq': 2000, 'sst2': 6000, 'rotten_tomatoes': 9000, 'cola': 5000, 'rte': 2600,
         'arc_easy': 4400, 'imdb': 14000, 'ag_news': 17000, 'ethics_justice': 20000, 'ethics_commonsense': 3000}


@pytest.mark.long
@pytest.mark.parametrize('name', LOCAL)
def test_local_copies(name):
    path = ASSETS / name
    if not path.exists():
        pytest.skip(f'{path} is not here')
    said: list[str] = []
    d = nlp.load(sections.task(name, path=str(path)), log=said.append)
    assert len(d.pool) + len(d.test) > LOCAL[name] and d.notes['skipped'] == 0
    assert ['parts of others' in line for line in said] == [True] * (name == 'sst2')
    for part in (d.pool, d.test):
        assert np.ptp(np.bincount(part.truth, minlength=d.num_classes)) == 0
        assert all(isinstance(t, str) and t for t in part.inputs['text'][:].ravel()[:100])
    assert not set(d.pool.group) & set(d.test.group)
    a, b = data.split_groups(d.pool.group, 0.5, seed=0)
    assert not set(d.pool.group[a]) & set(d.pool.group[b])
    assert d.notes['leak']['warning'] is None and d.notes['leak']['surface_auroc'] < 0.7
    json.dumps(d.notes)
