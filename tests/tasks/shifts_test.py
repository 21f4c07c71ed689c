"""Further test sets from other files: in the task's form, without what the pool or the test set knows."""
import io
import json

import numpy as np
import pytest
import sections
import tiny

from configs import nlp
from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import TASKS


def reviews(n: int, word: str, first: int = 0) -> list[dict]:
    return [{'text': f'{word} {i} is {"fine" if i % 2 else "dull"}', 'label': i % 2} for i in range(first, first + n)]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(map(json.dumps, rows)))
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / 'films' / 'train.jsonl', reviews(200, 'film'))
    write(tmp_path / 'films' / 'test.jsonl', reviews(60, 'film', 200))
    known = [{'text': '  FILM 3  is fine', 'label': 1}, {'text': 'film 201 is fine', 'label': 1}]
    write(tmp_path / 'books' / 'train.jsonl', reviews(30, 'unread'))
    write(tmp_path / 'books' / 'test.jsonl', reviews(40, 'book') + known)
    write(tmp_path / 'games.jsonl', reviews(25, 'game'))
    return tmp_path


def load(folder, *shifted, **fields):
    lines: list[str] = []
    task = sections.task('imdb', path=str(folder / 'films'), shifted=shifted, **fields)
    return TASKS['imdb'].fn(task, lines.append), lines


def texts(examples) -> list[str]:
    return [str(t) for t in np.ravel(examples.inputs['text'])]


def test_rows_that_are_known_are_left_out_and_counted(folder):
    found, lines = load(folder, f'books={folder / "books"}', f'games={folder / "games.jsonl"}')
    assert list(found.tests) == ['test', 'books', 'games']
    assert all(t.startswith('book ') for t in texts(found.tests['books'])) and len(found.tests['books']) == 40
    assert len(found.tests['games']) == 24 and found.tests['games'].truth.mean() == .5  # balanced as any other
    assert found.notes['shifted']['books'] | {'source': ''} == {'source': '', 'rows': 42, 'skipped': 0, 'shared': 2,
                                                                'measured': 40}
    assert "imdb: test set 'books': 42 rows, 2 also in the pool or the test set" in lines
    plain, _ = load(folder)
    assert texts(plain.pool) == texts(found.pool) and texts(plain.test) == texts(found.test)


def test_a_test_size_bounds_further_sets_too(folder):
    found, _ = load(folder, f'books={folder / "books"}', f'games={folder / "games.jsonl"}', test_size=30)
    assert {k: len(v) for k, v in found.tests.items()} == {'test': 30, 'books': 30, 'games': 24}


@pytest.mark.parametrize('shifted', [('books',), ('Books=x',), ('test=x',), ('a=x', 'a=y'), ('band_1=x',), ('b=',)])
def test_what_is_no_test_set(folder, shifted):
    path = folder / 'games.jsonl'
    with pytest.raises(ConfigError, match=r'^task.shifted: .*, expected NAME=PATH'):
        load(folder, *(s.replace('=x', f'={path}').replace('=y', f'={path}') for s in shifted))


def test_files_that_cannot_be_used(folder):
    with pytest.raises(DataError, match=r'^task.shifted: .*nowhere: no such file or folder'):
        load(folder, f'a={folder / "nowhere"}')
    with pytest.raises(DataError, match='no row left, every text or question is also in the pool'):
        load(folder, f'a={folder / "films" / "test.jsonl"}')


@pytest.mark.long
def test_every_student_has_numbers_on_each_test_set(folder):
    tiny.folder(folder / 'tiny')
    c = nlp.get_config('imdb')
    c.task.path, c.seeds, c.train.epochs, c.report.html = str(folder / 'films'), (0,), 1, False
    c.task.shifted = (f'books={folder / "books"}',)
    c.teacher.model = c.student.model = str(folder / 'tiny')
    found = experiment.run(configs.compose(c), folder / 'run', io.StringIO())
    assert all({'accuracy', 'pgr'} <= s['tests']['books'].keys() for s in found['students'])


def test_pairs_from_elsewhere(tmp_path):
    def pairs(n, word, first=0):
        return [{'prompt': f'{word} {i}?', 'chosen': 'good', 'rejected': 'poor'} for i in range(first, first + n)]
    path = write(tmp_path / 'pairs.jsonl', pairs(100, 'one'))
    other = write(tmp_path / 'others.jsonl', pairs(20, 'two') + pairs(4, 'one'))
    found = TASKS['preference'].fn(sections.task('preference', path=str(path), shifted=(f'other={other}',)),
                                   lambda line: None)
    assert found.notes['shifted']['other']['shared'] == 4 and 2 <= len(found.tests['other']) <= 20  # balanced
    assert all('two' in text for text in texts(found.tests['other']))
    wrong = write(tmp_path / 'wrong.jsonl', [{'prompt': 'a', 'chosen': 'b'}] * 9)
    with pytest.raises(DataError, match=f"{wrong}: .*'rejected'"):
        TASKS['preference'].fn(sections.task('preference', path=str(path), shifted=(f'other={wrong}',)), print)


def test_own_files_from_elsewhere(tmp_path):
    path = write(tmp_path / 'own.jsonl', [r | {'label': ['no', 'yes'][r['label']]} for r in reviews(100, 'film')])
    other = write(tmp_path / 'other.jsonl', [r | {'label': ['yes', 'no'][1 - r['label']]} for r in reviews(30, 'a')])
    keys = {'path': str(path), 'text': 'text', 'label': 'label', 'shifted': (f'other={other}',)}
    found = TASKS['files'].fn(sections.task('files', **keys), lambda line: None)
    other_set = found.tests['other']
    assert len(other_set) == 30
    for text, truth in zip(texts(other_set), other_set.truth, strict=True):
        assert ('fine' in text) == (found.notes['classes'][truth] == 'yes')
    write(other, reviews(30, 'a'))  # of other classes
    with pytest.raises(DataError, match=rf'{other}: line 1: label 0, expected a class \(no, yes\)'):
        TASKS['files'].fn(sections.task('files', **keys), lambda line: None)


def test_questions_from_elsewhere(tmp_path):
    def asked(n, word):
        return [{'question': f'{word} {i}?', 'options': ['a', 'b', 'c'], 'answer': i % 3} for i in range(n)]
    path, other = (write(tmp_path / f'{word}.jsonl', asked(120, word)) for word in ('here', 'there'))
    keys = {'path': str(path), 'question': 'question', 'options': 'options', 'answer': 'answer'}
    found = TASKS['files'].fn(sections.task('files', **keys, shifted=(f'there={other}',)), lambda line: None)
    assert found.tests['there'].truth.mean() == .5 and all('there' in t for t in texts(found.tests['there']))
