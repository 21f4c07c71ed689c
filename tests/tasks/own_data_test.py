"""The user's own data as people have them: every form that `configs/own_data.py` names."""
import json

import numpy as np
import pytest
import sections
from rows import quiz, reviews, statements, write

from w2s_jax import config as configs
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import TASKS

KINDS = ('jsonl', 'csv', 'parquet')


def load(tmp_path, rows, kind='jsonl', log=lambda line: None, **fields):
    return TASKS['files'].fn(sections.task('files', path=write(tmp_path / f'my.{kind}', rows), **fields), log=log)


def both(d):
    """(text, class, weak label) of the pool and the test set."""
    return [(text, int(truth), None if e.given is None else e.given[i].tolist()) for e in (d.pool, d.test)
            for i, ((text,), truth) in enumerate(zip(e.inputs['text'], e.truth, strict=True))]


# Several text columns


@pytest.mark.parametrize('text', ['q,p', ' q , p', "('q', 'p')", '["q", "p"]', '(q,p)'])
def test_several_text_columns_are_joined_by_blank_lines(tmp_path, text):
    rows = [{'q': f'Is it {i}?', 'p': '' if i == 7 else f'Passage {i}.', 'y': i % 2} for i in range(60)]
    d = load(tmp_path, rows, text=text, label='y')
    assert statements(d) == {(f'Is it {i}?\n\nPassage {i}.' if i != 7 else 'Is it 7?'): i % 2 for i in range(60)}
    assert d.notes['template'] == '{q}\n\n{p}' and d.truncate == 'start'


def test_a_column_with_a_comma_in_its_name_is_one_column(tmp_path):
    rows = [{'q,p': f'Text {i}', 'y': i % 2} for i in range(60)]
    assert statements(load(tmp_path, rows, text='q,p', label='y')) == {f'Text {i}': i % 2 for i in range(60)}
    with pytest.raises(DataError, match=r"my.jsonl: task.text: no column 'x', it has 'q,p', 'y'"):
        load(tmp_path, rows, text='x,z', label='y')
    with pytest.raises(DataError, match=r'line 61: q is missing, expected a text \(1 of 61'):
        load(tmp_path, [{'q': f'{i}', 'p': '', 'y': i % 2} for i in range(60)] + [{'p': ' ', 'y': 1}], text='q,p',
             label='y')


def test_a_list_where_a_text_is_expected(tmp_path):
    for cell in ("['a', 'b']", '["a", "b"]', '["a"]', ['a', 'b']):
        with pytest.raises(DataError, match=r'line 10: body (holds a list|is \[).* expected (one|a) text \(1 of 10'):
            load(tmp_path, [*reviews(9), {'body': cell, 'grade': 'good'}], text='body', label='grade')
    rows = [{'body': f'[{i}] (laughs) [sic]', 'grade': i % 2} for i in range(60)] + [{'body': '[3]', 'grade': 1}]
    assert len(both(load(tmp_path, rows, text='body', label='grade'))) == 61


# Labels


def test_words_that_python_would_take_for_numbers(tmp_path):
    d = load(tmp_path, reviews(60, ('2021_01', '20_2101', 'x')), text='body', label='grade')
    assert d.notes['classes'] == ['2021_01', '20_2101', 'x']


def test_whole_numbers_with_a_point_are_classes(tmp_path):
    for kind, labels in (('csv', ('1.0', '2.0')), ('jsonl', (1.0, 2.0)), ('jsonl', (1, 2.0))):
        d = load(tmp_path, reviews(60, labels), kind, text='body', label='grade')
        assert d.notes['classes'] == ['1', '2'] and 'truth' not in d.notes


@pytest.mark.parametrize('kind', KINDS)
def test_probabilities_of_the_second_class(tmp_path, kind):
    chances = [.9, .1, 1., 0., .6, .5]
    said: list[str] = []
    rows = [{'body': f'Text {i}', 'p': chances[i % 6]} for i in range(60)]
    d = load(tmp_path, rows, kind, said.append, text='body', label='p', classes='no,yes')
    assert statements(d) == {f'Text {i}': int(chances[i % 6] > .5) for i in range(60)}
    assert d.num_classes == 2 and d.notes['classes'] == ['no', 'yes']
    assert d.notes['truth'] == "the likeliest class by the probabilities in column 'p' (of 10 ties the first)"
    assert any(d.notes['truth'] in line for line in said)


@pytest.mark.parametrize('kind', KINDS)
def test_lists_of_probabilities(tmp_path, kind):
    lists = [[.2, .5, .3], [.6, .2, .2], [0, 0, 1.]]
    rows = [{'body': f'Text {i}', 'p': json.dumps(lists[i % 3]) if kind == 'csv' else lists[i % 3]} for i in range(90)]
    d = load(tmp_path, rows, kind, text='body', label='p')
    assert statements(d) == {f'Text {i}': (1, 0, 2)[i % 3] for i in range(90)}
    assert d.num_classes == 3 and d.notes['truth'] == "the likeliest class by the probabilities in column 'p'"


@pytest.mark.parametrize('cell, message', [
    (1.2, r'line 61: p 1.2, expected a probability in \[0, 1\] as in most rows'),
    ('high', r"line 61: p 'high', expected a probability in \[0, 1\]"),
    (None, r'line 61: p None, expected a probability')])
def test_a_cell_that_is_no_probability(tmp_path, cell, message):
    rows = [{'body': f'Text {i}', 'p': (.2, .7)[i % 2]} for i in range(60)] + [{'body': 'x', 'p': cell}]
    with pytest.raises(DataError, match=message):
        load(tmp_path, rows, text='body', label='p')


@pytest.mark.parametrize('cell', [[.2, .3], [.5, .2, .2], [-.1, .6, .5], 'x', [.2, 'x', .8]])
def test_a_list_that_is_no_distribution(tmp_path, cell):
    rows = [{'body': f'Text {i}', 'p': [[.2, .5, .3], [.6, .2, .2]][i % 2]} for i in range(30)]
    with pytest.raises(DataError, match=r'line 31: p .*expected 3 probabilities that sum to 1 \(1 of 31'):
        load(tmp_path, [*rows, {'body': 'x', 'p': cell}], text='body', label='p')


# Weak labels


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('labels, written, expected', [
    (('good', 'poor'), ('poor', 'good', 'poor'), [[0, 1], [1, 0], [0, 1]]),
    (('good', 'poor'), (.25, .75, 1.), [[.75, .25], [.25, .75], [0, 1]]),
    (('good', 'poor'), (1.0, 0.0, 1.0), [[0, 1], [1, 0], [0, 1]]),
    ((0, 1), (1, 0, 1), [[0, 1], [1, 0], [0, 1]]),
    ((1, 2), (2, 1, 1), [[0, 1], [1, 0], [1, 0]]),
    ((1, 2), (.25, 1, 0), [[.75, .25], [0, 1], [1, 0]]),
    ((0, 1, 2), ([.5, .25, .25], [0, 0, 1], [0, .5, .5]), [[.5, .25, .25], [0, 0, 1], [0, .5, .5]]),
    ((0, 1, 2), (2, 1, 0), [[0, 0, 1], [0, 1, 0], [1, 0, 0]])])
def test_weak_labels_stay_soft(tmp_path, kind, labels, written, expected):
    written = [json.dumps(w) if kind == 'csv' and isinstance(w, list) else w for w in written]
    if kind == 'parquet' and not isinstance(written[0], list | str):
        written = [float(w) for w in written]
    rows = [{'body': f'Text {i}', 'y': labels[i % len(labels)], 'w': written[i // 10 % 3]} for i in range(90)]
    for text, truth, weak in both(load(tmp_path, rows, kind, text='body', label='y', weak='w')):
        i = int(text.split()[1])
        assert truth == i % len(labels) and weak == expected[i // 10 % 3]


def test_weak_labels_of_named_classes(tmp_path):
    rows = [{'body': f'Text {i}', 'p': (.2, .7)[i % 2], 'w': ('yes', 'no')[i // 10 % 2]} for i in range(60)]
    for text, _, weak in both(load(tmp_path, rows, text='body', label='p', weak='w', classes='no,yes')):
        assert weak == [[0, 1], [1, 0]][int(text.split()[1]) // 10 % 2]


@pytest.mark.parametrize('kind', KINDS)
def test_weak_labels_of_several_teachers(tmp_path, kind):
    rows = [{'body': f'Text {i}', 'y': i % 2, 'v': .25, 'w': float(i % 3 == 0)} for i in range(60)]
    for weak in ('v,w', "('v', 'w')"):
        for text, _, said in both(load(tmp_path, rows, kind, text='body', label='y', weak=weak)):
            third = int(text.split()[1]) % 3 == 0
            assert said == [[.75, .25], [float(not third), float(third)]]
    with pytest.raises(DataError, match="'u'"):
        load(tmp_path, rows, kind, text='body', label='y', weak='v,u')
    with pytest.raises(ConfigError, match=r"^task.text: shows the column 'w', which is task.weak: a model would read"):
        load(tmp_path, rows, kind, text='body,w', label='y', weak='v,w')


@pytest.mark.parametrize('labels, weak, message', [
    ((0, 1), 'x', r"line 1: w 'x', expected a class \(0, 1\) or a probability of the second \(60 of 60"),
    ((0, 1, 2), .5, "column 'w' holds probabilities of 2 classes, expected 3, as task.label has"),
    ((0, 1), [.1, .2, .7], "column 'w' holds probabilities of 3 classes, expected 2, as task.label has"),
    ((0, 1), None, 'line 1: the label is missing')])
def test_weak_labels_that_cannot_be_read(tmp_path, labels, weak, message):
    rows = [{'body': f'Text {i}', 'y': labels[i % len(labels)], 'w': weak} for i in range(60)]
    with pytest.raises(DataError, match=message) as e:
        load(tmp_path, rows, text='body', label='y', weak='w')
    assert '\n' not in str(e.value) and 'my.jsonl' in str(e.value)


def test_balance_drops_rows_of_larger_classes(tmp_path):
    rows = reviews(1000, ['a'] * 70 + ['b'] * 20 + ['c'] * 10)
    d, again, other = (load(tmp_path, rows, text='body', label='grade', balance=True, seed=s) for s in (0, 0, 1))
    assert np.ptp(np.bincount(d.pool.truth)) == 0 == np.ptp(np.bincount(d.test.truth)) and d.notes['balanced'] == 700
    assert both(d) == both(again) and {t for t, *_ in both(d)} != {t for t, *_ in both(other)}


# Pairs


def test_pairs_under_any_names(tmp_path):
    rows = [{'ask': f'Question {i // 2}?', 'better': f'Good {i}.', 'worse': f'Poor {i}.', 'who': i // 6}
            for i in range(120)]
    d = load(tmp_path, rows, chosen='better', rejected='worse', prompt='ask', group='who')
    assert d.num_classes == 2 and d.notes['classes'] == ['the first', 'the second']
    for part in (d.pool, d.test):
        assert part.inputs['text'].shape[1] == 2
        for pair, truth, group in zip(part.inputs['text'], part.truth, part.group, strict=True):
            assert 'Good' in pair[truth] and 'Poor' in pair[1 - truth] and 'Human: Question' in pair[0]
            assert all(group == g for p, g in zip(part.inputs['text'], part.group, strict=True)
                       if int(p[0].split()[-1][:-1]) // 6 == int(pair[0].split()[-1][:-1]) // 6)
    assert len(set(d.pool.group) | set(d.test.group)) == 20
    plain = load(tmp_path, rows, chosen='better', rejected='worse')
    assert all(t.startswith(('Good', 'Poor')) for t in plain.pool.inputs['text'][:].ravel())


@pytest.mark.parametrize('fields, message', [
    ({'chosen': 'a'}, 'task.rejected: empty, expected a column, as task.chosen is set'),
    ({'chosen': 'a', 'rejected': 'b', 'label': 'y'}, "task.label: 'y', expected '', as task.chosen is set"),
    ({'chosen': 'a', 'rejected': 'b', 'text': 't'}, "task.text: 't', task.question: '', task.chosen: 'a', exp"),
    ({'text': 't', 'label': 'y', 'rejected': 'b'}, "task.rejected: 'b', expected '', as task.text is set")])
def test_fields_that_do_not_go_together(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, reviews(9), **fields)
    with pytest.raises(DataError, match=r"task.chosen: no column 'a', it has 'body'"):
        load(tmp_path, reviews(9), chosen='a', rejected='b')


# Multiple choice


def check_quiz(d, number):
    found = statements(d)
    assert len(found) > number / 2
    for statement, truth in found.items():
        i = int(statement.split()[3][:-1])
        assert statement.startswith(f'Q: Which is {i}? A: ') and statement.endswith(f'r{i}') == truth


@pytest.mark.parametrize('how, said', [
    ('index', 'index, from 0'), ('point', 'index, from 0'), ('number', 'number, from 1'), ('letter', 'letter'),
    ('marked', 'letter'), ('text', "option's text"), ('shouted', "option's text")])
@pytest.mark.parametrize('options', ['list', 'json', 'python', 'columns'])
def test_answers_and_options_as_people_write_them(tmp_path, how, said, options):
    rows = quiz(90)
    for row in rows:
        place, among = row['solution'], row['among']
        row['solution'] = {'number': place + 1, 'point': float(place), 'letter': 'ABC'[place],
                           'marked': f'({"abc"[place]})', 'text': among[place],
                           'shouted': f' {among[place].upper()}'}.get(how, place)
        if options == 'columns':
            row |= dict(zip('xyz', row.pop('among'), strict=True))
        elif options != 'list':
            row['among'] = json.dumps(among) if options == 'json' else str(among)
    lines: list[str] = []
    d = load(tmp_path, rows, log=lines.append, question='ask', answer='solution',
             options='x,y,z' if options == 'columns' else 'among')
    check_quiz(d, 90)
    assert said in d.notes['answers'] and any(d.notes['answers'] in line for line in lines)


def test_numbers_that_may_count_from_0_count_from_0(tmp_path):
    rows = [r for r in quiz(90) if r['solution'] == 1]
    d = load(tmp_path, rows, question='ask', options='among', answer='solution')
    check_quiz(d, 30)
    assert 'from 0' in d.notes['answers']


def test_the_last_option_columns_may_be_empty(tmp_path):
    rows = [{'q': f'Which is {i}?', 'a': f'r{i}', 'b': f'w{i}', 'c': '' if i % 2 else f'v{i}', 'y': 'A'}
            for i in range(60)]
    check_quiz(load(tmp_path, rows, 'csv', question='q', options='a,b,c', answer='y'), 60)


@pytest.mark.parametrize('kind', KINDS)
def test_the_right_answer_beside_wrong_options(tmp_path, kind):
    rows = [{'question': f'Which is {i}?', 'correct_answer': f'r{i}',
             **{f'distractor{k}': f'{"wuv"[k - 1]}{i}' for k in (1, 2, 3)}} for i in range(90)]
    rows[3]['distractor2'] = 'R3'  # as the right one, which SciQ has
    d = load(tmp_path, rows, kind, question='question', options='distractor1,distractor2,distractor3',
             answer='correct_answer')
    check_quiz(d, 90)
    assert 'the right answer itself' in d.notes['answers'] and d.notes['skipped'] == 0
    counts = np.bincount(d.tests['questions'].extras['question'])
    assert set(counts) <= {3, 4} and d.tests['questions'].truth.sum() == len(counts)


def test_an_answer_that_is_no_option_in_some_rows_is_an_error(tmp_path):
    rows = quiz(90)
    for i, row in enumerate(rows):
        row['solution'] = row['among'][row['solution']] if i % 2 else f'r{i}, of course'
    with pytest.raises(DataError, match=r"line 1: solution 'r0, of course', expected the text of an option"):
        load(tmp_path, rows, question='ask', options='among', answer='solution')


# Questions with all of their options


def test_questions_of_the_test_set_with_all_of_their_options(tmp_path):
    d = load(tmp_path, quiz(300), question='ask', options='among', answer='solution', questions=20)
    whole = d.tests['questions']
    assert d.notes['questions'] == {'number': 20, 'options': 3.0} and len(whole) == 60
    asked = {t.split('?')[0]: int(g) for (t,), g in zip(d.test.inputs['text'], d.test.group, strict=True)}
    for q in range(20):
        rows = whole.take(np.flatnonzero(whole.extras['question'] == q))
        texts = rows.inputs['text'][:, 0].tolist()
        i = int(texts[0].split()[3][:-1])
        assert {t: int(c) for t, c in zip(texts, rows.truth, strict=True)} == {
            f'Q: Which is {i}? A: {x}{i}': int(x == 'r') for x in 'rwv'}
        assert set(rows.group) == {asked[f'Q: Which is {i}']}
    assert not set(whole.group) & set(d.pool.group)
    none = load(tmp_path, quiz(300), question='ask', options='among', answer='solution', questions=0)
    assert set(none.tests) == {'test'} and 'questions' not in none.notes
    assert both(none) == both(d)


def test_questions_of_a_published_task(tmp_path):
    rows = [{'question': f'Which is {i}?', 'options': ['r', 'w', 'v' if i % 2 else 'None of the above choices.'],
             'answer_index': 0} for i in range(200)]
    path = write(tmp_path / 'a.jsonl', rows)
    d = TASKS['sciq'].fn(sections.task('sciq', path=path, questions=1000), log=lambda line: None)
    shown = {t.split()[3][:-1] for (t,) in d.tests['questions'].inputs['text']}
    assert shown and all(int(i) % 2 for i in shown)  # none of the above is never shown
    assert set(TASKS['sciq'].fn(sections.task('sciq', path=path), log=lambda line: None).tests) == {'test'}
    assert 'questions' not in TASKS['sst2'].settings


def test_words_of_a_config_file():
    c = configs.default_config()
    c.task.name = 'files'
    c.task.text, c.task.options = ('a', 'b'), ['c', 'd']
    assert (lambda t: (t.text, t.options))(configs.validate(c).task) == ('a,b', 'c,d')
    c.task.label = ('a', 'b')
    with pytest.raises(ConfigError, match=r"^task.label: \('a', 'b'\), expected a str$"):
        configs.validate(c)
