import json
import string
import tracemalloc

import numpy as np
import pytest
import sections
from rows import WORDS, quiz, reviews, statements, write

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import TASKS
from w2s_jax.tasks.text import questions, tables


def load(tmp_path, rows, kind='jsonl', **fields):
    path = write(tmp_path / f'my.{kind}', rows) if rows is not None else str(tmp_path / f'my.{kind}')
    return TASKS['files'].fn(sections.task('files', path=path, **fields), log=lambda line: None)


@pytest.mark.parametrize('kind', ['csv', 'tsv', 'jsonl', 'json', 'parquet'])
def test_texts_with_labels(tmp_path, kind):
    d = load(tmp_path, reviews(100), kind, text='body', label='grade', group='by')
    assert len(d.pool) + len(d.test) == 100 and 20 <= len(d.test) <= 30
    assert d.notes['classes'] == ['good', 'poor'] and d.num_classes == 2 and d.truncate == 'end'
    assert statements(d) == {f'Review {i}, "so" it\nsays: {WORDS[i % 2]}': i % 2 for i in range(100)}
    assert not set(d.pool.group) & set(d.test.group) and len(set(d.pool.group) | set(d.test.group)) == 20
    assert 'weak: poor' in d.render({'text': d.pool.inputs['text'][0]}, {'weak': 1})


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    found = [load(tmp_path, [r | {'by': str(r['by'])} for r in reviews(100)], kind, text='body', label='grade')
             for kind in ('csv', 'tsv', 'jsonl', 'json', 'parquet')]
    turned = load(tmp_path, [r | {'by': str(r['by'])} for r in reviews(100)][::-1], text='body', label='grade')
    for d in (*found[1:], turned):
        assert d.test.inputs['text'][:].tolist() == found[0].test.inputs['text'][:].tolist()
        assert d.pool.truth.tolist() == found[0].pool.truth.tolist()
        assert d.pool.group.tolist() == found[0].pool.group.tolist()


@pytest.mark.parametrize('labels, classes', [
    (('b', 'c', 'a'), ['a', 'b', 'c']), ((10, 9, 2), ['2', '9', '10']), (('10', '9', '02'), ['2', '9', '10']),
    ((True, False), ['False', 'True']), (('yes', '1'), ['1', 'yes'])])
def test_classes(tmp_path, labels, classes):
    d = load(tmp_path, reviews(60, labels), text='body', label='grade')
    assert d.notes['classes'] == classes and d.num_classes == len(classes)
    for statement, truth in statements(d).items():
        label = str(labels[int(statement.split()[1][:-1]) % len(labels)])
        assert classes[truth] == (label.lstrip('0') or '0')


def test_named_classes(tmp_path):
    d = load(tmp_path, reviews(60), text='body', label='grade', classes='poor, good')
    assert d.notes['classes'] == ['poor', 'good'] and all(('poor' in s) == (c == 0) for s, c in statements(d).items())
    d = load(tmp_path, reviews(60, (0, 1)), text='body', label='grade', classes='no,yes')
    assert d.notes['classes'] == ['no', 'yes'] and all(('poor' in s) == (c == 1) for s, c in statements(d).items())


def test_many_classes_keep_their_shares(tmp_path):
    labels = ['a'] * 70 + ['b'] * 20 + ['c'] * 10
    d = load(tmp_path, reviews(1000, labels), text='body', label='grade', train_size=200, test_size=100)
    assert np.bincount(d.pool.truth).tolist() == [140, 40, 20] and len(d.test) == 100
    assert np.abs(np.bincount(d.test.truth) - [70, 20, 10]).max() <= 2 and d.notes['balanced'] == 0


@pytest.mark.parametrize('kind', ['jsonl', 'csv', 'parquet'])
@pytest.mark.parametrize('how', ['index', 'letter', 'lower', 'text', 'columns'])
def test_questions(tmp_path, kind, how):
    rows = quiz(90)
    for row in rows:
        place, options = row['solution'], row['among']
        row['solution'] = {'letter': 'ABC'[place], 'lower': 'abc'[place], 'text': options[place]}.get(how, place)
        if how == 'columns':
            row |= dict(zip('xyz', row.pop('among'), strict=True))
        elif kind == 'csv':
            row['among'] = json.dumps(options)
    d = load(tmp_path, rows, kind, question='ask', options='x, y,z' if how == 'columns' else 'among',
             answer='solution')
    assert d.truncate == 'start' and np.ptp(np.bincount(d.pool.truth)) == 0
    assert len(d.pool) + len(d.test) > 60
    for statement, truth in statements(d).items():
        i = int(statement.split()[3][:-1])
        assert statement.startswith(f'Q: Which is {i}? A: ') and statement.endswith(f'r{i}') == truth


def test_an_answer_that_reads_in_two_ways_is_refused(tmp_path):
    rows = [{'q': f'{i}?', 'o': ['2', '0', '1'], 'a': '0'} for i in range(9)]
    with pytest.raises(DataError, match=r"line 1: a '0' is the text of one option and the index of another"):
        load(tmp_path, rows, question='q', options='o', answer='a')
    rows += [{'q': 'x?', 'o': ['7', '0', '1'], 'a': '2'} for i in range(9)]  # now only an index fits all
    load(tmp_path, [r | {'q': f'{i}?'} for i, r in enumerate(rows * 3)], question='q', options='o', answer='a')


def test_template(tmp_path):
    d = load(tmp_path, reviews(60), label='grade', template='By {by}: {body}')
    assert all(s.startswith('By ') and int(s.split()[1][:-1]) == int(s.split()[3][:-1]) // 5 for s in statements(d))
    d = load(tmp_path, reviews(60), label='grade', template='{body} {{of}} {by}')
    assert all(' {of} ' in s for s in statements(d))
    d = load(tmp_path, quiz(60), question='ask', options='among', answer='solution', template='{answer}: {ask}')
    assert all(s.split(':')[0][0] in 'rwv' for s in statements(d))


def test_a_test_file_and_a_folder(tmp_path):
    write(tmp_path / 'train.csv', reviews(60))
    test = write(tmp_path / 'test.csv', reviews(100)[50:])
    d = TASKS['files'].fn(sections.task('files', path=str(tmp_path), text='body', label='grade'), log=lambda line: None)
    assert len(d.test) == 50 and len(d.pool) == 50 and d.notes['shared_with_test'] == 10
    task = sections.task('files', path=str(tmp_path / 'train.csv'), test_path=test, text='body', label='grade')
    d = TASKS['files'].fn(task, log=lambda line: None)
    assert len(d.test) == 50 and len(d.pool) == 50


FIELDS = {'text': 'body', 'label': 'grade'}
QUESTION = {'question': 'ask', 'options': 'among', 'answer': 'solution'}


@pytest.mark.parametrize('fields, rows, message', [
    ({'text': 'bdy', 'label': 'grade'}, reviews(9), r"task.text: no column 'bdy', it has 'body', 'by', 'grade'$"),
    ({'text': 'body', 'label': 'x'}, reviews(9), r"task.label: no column 'x'"),
    (FIELDS | {'group': 'x'}, reviews(9), r"task.group: no column 'x'"),
    (FIELDS | {'text': '', 'template': '{x}'}, reviews(9), r"task.template: no column 'x'"),
    (FIELDS, reviews(9, (3.5, 4.0)), r"line 1: label 3.5, expected a class: a word or an integer \(5 of 9 rows"),
    (FIELDS, reviews(9, ('0.5', 'nan')), r"line 2: grade 'nan', expected a probability in \[0, 1\]"),
    (FIELDS, reviews(9, ('3.5', 'nan')), r"line 1: label '3.5', expected a class"),
    (FIELDS, reviews(9, (1, 'inf')), r"line 2: label 'inf', expected a class"),
    (FIELDS, reviews(9, ('a', None)), r'line 2: the label is missing \(4 of 9'),
    (FIELDS, reviews(9, ('a', '')), r'line 2: the label is missing'),
    (FIELDS, reviews(9, ([1], 'a')), r'line 1: label \[1\], expected a class'),
    (FIELDS, reviews(200, range(150)), r"column 'grade' has 150 distinct values, expected at most 100 classes"),
    (FIELDS, reviews(9, ('a',)), r"column 'grade' has only the class 'a', expected two or more"),
    (FIELDS | {'classes': 'good,bad'}, reviews(9), r"has 'poor', expected one of task.classes: good, bad"),
    (FIELDS | {'classes': 'good,poor,fair'}, reviews(9), r"no row of class 'fair', expected some of every class"),
    (FIELDS, [*reviews(9), {'body': ' ', 'grade': 'good'}], r'line 10: body is an empty text \(1 of 10'),
    (FIELDS, [*reviews(9), {'body': [], 'grade': 'good'}], r'line 10: body is \[\], expected a text'),
    (FIELDS, [{'grade': 'good'}, *reviews(9)], r'line 1: body is missing'),
    (FIELDS | {'group': 'by'}, [*reviews(9), reviews(1)[0] | {'by': None}], r'line 10: by is missing'),
    (FIELDS, [reviews(1)[0], reviews(2)[1]], r"no row of class|my.jsonl"),
    (QUESTION, [*quiz(9), quiz(1)[0] | {'among': ['a', 'B', 'A']}], r"line 10: option 'a' is there twice"),
    (QUESTION, [*quiz(9), quiz(1)[0] | {'among': ['a']}], r'line 10: options .* two or more'),
    (QUESTION, [*quiz(9), quiz(1)[0] | {'among': 'a or b'}], r"line 10: among 'a or b', expected a JSON list"),
    (QUESTION, [*quiz(9), quiz(1)[0] | {'solution': 3}], r'line 10: solution 3, expected the index of an option'),
    (QUESTION, [*quiz(9), quiz(1)[0] | {'ask': None}], r'line 10: ask is missing'),
    (QUESTION | {'options': 'x,y'}, quiz(9), r"task.options: no column 'x', it has 'ask', 'among', 'solution'"),
])
def test_bad_data(tmp_path, fields, rows, message):
    with pytest.raises(DataError, match=message) as e:
        load(tmp_path, rows, **fields)
    assert '\n' not in str(e.value) and 'my.jsonl' in str(e.value)


@pytest.mark.parametrize('fields, message', [
    ({}, "task.text: '', task.question: '', task.chosen: '', expected one of them"),
    (FIELDS | QUESTION, 'expected one of them'),
    ({'text': 'body'}, 'task.label: empty, expected a column, as task.text is set'),
    ({'question': 'ask', 'options': 'among'}, 'task.answer: empty, expected a column, as task.question is set'),
    (FIELDS | {'answer': 'a'}, "task.answer: 'a', expected '', as task.text is set"),
    (FIELDS | {'classes': 'a'}, r"task.classes: 'a', expected 2 different names|expected one of task.classes"),
    (FIELDS | {'text': '', 'template': '{body'}, "task.template: '{body' is not a template"),
    (FIELDS | {'text': '', 'template': '{body!r}'}, 'expected plain column names in braces'),
    (FIELDS | {'text': '', 'template': 'x'}, r'expected {column}s in it'),
    (FIELDS | {'template': '{body}'}, "task.text: 'body', expected '' as task.template is set"),
    (FIELDS | {'text': '', 'template': '{body} {grade}'},
     "task.template: shows the column 'grade', which is task.label"),
    (FIELDS | {'text': 'body,grade'}, "task.text: shows the column 'grade', which is task.label"),
    (FIELDS | {'text': 'grade'}, "task.text: shows the column 'grade', which is task.label"),
    (FIELDS | {'text': '', 'weak': 'by', 'template': '{body} {by}'}, "shows the column 'by', which is task.weak"),
    (FIELDS | {'questions': 3}, 'task.questions: 3, expected 500 as task.text is set'),
    (QUESTION | {'template': '{ask} {solution} {answer}'}, "shows the column 'solution', which is task.answer"),
    (QUESTION | {'question': 'solution'}, "task.question: shows the column 'solution', which is task.answer"),
    (QUESTION | {'template': '{ask}'}, r'expected {answer} in it'),
    (FIELDS | {'prompt': 'x'}, "task.prompt: 'x', expected '', as task.text is set"),
    (QUESTION | {'balance': True}, "task.balance: True, expected False, as task.question is set"),
])
def test_bad_fields(tmp_path, fields, message):
    with pytest.raises((ConfigError, DataError), match=message):
        load(tmp_path, reviews(9), **fields)
    with pytest.raises(ConfigError, match=r'task.path: empty'):
        TASKS['files'].fn(sections.task('files', **FIELDS))


@pytest.mark.parametrize('kind, content, message', [
    ('xlsx', b'x', 'unknown kind of file, expected .csv, .tsv'),
    ('parquet.gz', b'x', 'unknown kind of file'),
    ('csv', b'', 'no rows'),
    ('csv', b'body,grade\n', 'no rows'),
    ('csv', b'body,grade\na,b,c\n', r'line 2: another number of fields than the 2 of the header'),
    ('csv', b'body,grade\na\n', r'line 2: another number of fields'),
    ('csv', b'body,body\na,b\n', "two columns are called 'body'"),
    ('csv', b'body,grade\n"a,b\n', 'not a readable csv file'),
    ('csv', b'body,grade\n\xff\xfe,b\n', 'not UTF-8 text'),
    ('csv.gz', b'body,grade\n', 'not a readable csv file'),
    ('jsonl', b'{"body": 1}\n\n{"body"\n', 'line 3: Expecting'),
    ('jsonl', b'3\n', 'line 1: int, expected an object'),
    ('jsonl', b'\n', 'no rows'),
    ('json', b'{"a": 1}', 'expected a list of objects'),
    ('json', b'[1', 'not a readable json file'),
    ('json', b'[' * 100_000, 'not a readable json file'),
    ('parquet', b'PAR1', 'not a readable parquet file'),
    ('parquet', b'', 'not a readable parquet file'),
])
def test_unreadable_files(tmp_path, kind, content, message):
    (tmp_path / f'my.{kind}').write_bytes(content)
    with pytest.raises(DataError, match=message) as e:
        load(tmp_path, None, kind, **FIELDS)
    assert '\n' not in str(e.value) and f'my.{kind}' in str(e.value)


def test_lines_are_those_of_the_file(tmp_path):
    path = tmp_path / 'my.csv'
    path.write_text('body,grade\n"two\nlines",a\n\n,b\n')
    table = tables.read(path)
    assert [table.where(i) for i in range(2)] == ['line 2', 'line 5']
    assert path.read_text().split('\n')[4] == ',b'


@pytest.mark.parametrize('kind', ['csv', 'jsonl', 'parquet'])
def test_rows_are_python_objects_only_while_they_are_looked_at(tmp_path, kind):
    rows = [{'text': f'{i} ' + 'ünd so weiter ' * 5, 'label': str(i % 2)} for i in range(5000)]
    path = write(tmp_path / f'a.{kind}', rows)
    tables.read(path)
    tracemalloc.start()
    table = tables.read(path)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20 * len(rows) and most < 200 * len(rows)  # as dicts they take 400 bytes each
    assert list(table.rows) == rows and len(table.rows) == len(table.numbers) == 5000
    assert [table.rows[i] for i in (0, 999, 1000, 4999, -1)] == [rows[i] for i in (0, 999, 1000, 4999, -1)]
    assert table.rows[2998:3002] == rows[2998:3002]
    with pytest.raises(IndexError):
        table.rows[5000]


def test_a_few_bad_rows_are_skipped_and_counted(tmp_path):
    rows = reviews(200)
    rows[3]['grade'] = None
    said: list[str] = []
    d = TASKS['files'].fn(sections.task('files', path=write(tmp_path / 'a.jsonl', rows), **FIELDS), log=said.append)
    assert d.notes['skipped'] == 1 and 'line 4: the label is missing' in d.notes['first_skipped']
    assert any('1 of 200 rows skipped' in line for line in said)


def test_readings_of_an_answer():
    options = list(string.ascii_lowercase[3:7])
    assert [questions.by_letter(a, options) for a in ('a', 'D', 'e', 'ab', 3)] == [0, 3, None, None, None]
    assert [questions.by_index(a, options) for a in (0, '3', 4, -1, 'a', True)] == [0, 3, None, None, None, None]
    assert [questions.by_index(a, options) for a in (1.0, '2.0', 1.5, None)] == [1, 2, None, None]
    assert [questions.by_text(a, options) for a in ('d', ' g ', 'a', None)] == [0, 3, None, None]
