"""Easy to hard: which rows are learned and tested on either side of a cut, and what is refused."""
import io
import itertools
import json
import re

import numpy as np
import pytest
import sections
from chess_test import built_in, load, refused
from rows import reviews, write

from configs.paper import easy_to_hard_chess
from w2s_jax.engine import experiment
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import TASKS, difficulty

MOVES = {'difficulty': 'legal_moves'}


def levels(examples) -> np.ndarray:
    """Of puzzles, how many moves are legal."""
    return (examples.extras['allowed'] != 65535).sum(1)


def own(tmp_path, n=200, kind='jsonl', **fields):
    rows = [r | {'steps': i % 10, 'by': i // 4} for i, r in enumerate(reviews(n))]
    return TASKS['files'].fn(sections.task('files', **{
        'path': write(tmp_path / f'my.{kind}', rows), 'text': 'body', 'label': 'grade', 'difficulty': 'steps',
        **fields}), log=lambda line: None)


def same_tests(a, b) -> bool:
    def texts(x):
        return next(iter(x.inputs.values()))[:].tolist()
    return a.tests.keys() == b.tests.keys() and all(texts(a.tests[k]) == texts(b.tests[k]) for k in a.tests)


@pytest.mark.parametrize('train', ['easy', 'hard', 'all'])
def test_puzzles_are_learned_on_one_side_and_tested_on_both(train):
    d = load(**MOVES, cut=30, train=train, train_size=300, test_size=400)
    pool, test = levels(d.pool), levels(d.test)
    assert len(pool) == 300 and {'easy': pool.max() <= 30, 'hard': pool.min() > 30,
                                 'all': pool.min() <= 30 < pool.max()}[train]
    assert levels(d.tests['easy']).tolist() == test[test <= 30].tolist()
    assert levels(d.tests['hard']).tolist() == test[test > 30].tolist()
    assert d.tests['easy'].truth.tolist() == d.test.truth[test <= 30].tolist()
    assert not np.intersect1d(d.pool.group, d.test.group).size  # no game on both sides
    assert d.notes['difficulty']['tests']['hard'] == [(test > 30).sum(), 31, test.max()]
    assert same_tests(d, load(**MOVES, cut=30, train='easy', train_size=200, test_size=400))


def test_a_cut_between_0_and_1_is_a_share_of_the_pool():
    d = load(**MOVES, cut=.25, train='all')
    counts = d.notes['difficulty']['pool']
    assert d.notes['difficulty']['cut'] == np.quantile(levels(d.pool), .25, method='lower')
    assert .25 <= counts['easy'] / len(d.pool) < .3 and sum(counts.values()) == len(d.pool)


def test_bands_are_the_whole_test_set_from_easy_to_hard():
    d = load(**MOVES, bands=4)
    bands = [levels(d.tests[f'band_{k}']) for k in range(1, 5)]
    assert all(a.max() < b.min() for a, b in itertools.pairwise(bands))
    assert sorted(np.concatenate(bands)) == sorted(levels(d.test)) and min(map(len, bands)) > len(d.test) / 8


def test_rows_of_a_game_stay_together_though_they_differ_in_difficulty(tmp_path):
    built_in(tmp_path / 'p.npz', n=80, per_game=2)
    d = load(tmp_path / 'p.npz', **MOVES, train='all')
    both = [np.unique(d.pool.group), np.unique(d.test.group)]
    assert not np.intersect1d(*both).size and set(d.tests['easy'].group) & set(d.tests['hard'].group)


def test_enough_puzzles_are_read_for_the_side_that_is_learned():
    assert difficulty.room(sections.task('chess', **MOVES, cut=.2)) == 5
    assert difficulty.room(sections.task('chess', **MOVES, cut=1200)) == difficulty.ROOM
    assert difficulty.room(sections.task('chess')) == difficulty.room(sections.task('sst2')) == 1


@pytest.mark.parametrize('kind', ['jsonl', 'csv', 'parquet'])
def test_a_column_of_ones_own_file(tmp_path, kind):
    d = own(tmp_path, kind=kind, cut=3)
    number = {f'Review {i}, "so" it\nsays: {("good", "poor")[i % 2]}': i % 10 for i in range(200)}
    assert {number[t] for (t,) in d.pool.inputs['text']} == {0, 1, 2, 3}
    for name, expected in (('easy', {0, 1, 2, 3}), ('hard', {4, 5, 6, 7, 8, 9})):
        assert {number[t] for (t,) in d.tests[name].inputs['text']} == expected
    assert d.notes['unused'] == 0 and d.notes['shared_with_test'] == 0
    assert d.notes['difficulty']['pool']['easy'] == len(d.pool)
    assert same_tests(d, own(tmp_path, kind=kind, cut=3, train='hard'))


def test_related_rows_and_questions_of_ones_own(tmp_path):
    d = own(tmp_path, group='by', cut=.5)
    assert not np.intersect1d(d.pool.group, d.test.group).size
    rows = [{'q': f'Which is {i}?', 'o': [f'w{i}', f'r{i}'], 'a': i % 2, 'hops': i % 5} for i in range(120)]
    d = TASKS['files'].fn(sections.task('files', path=write(tmp_path / 'q.jsonl', rows), question='q', options='o',
                                        answer='a', difficulty='hops', cut=2, questions=5), log=lambda line: None)
    assert d.tests.keys() == {'test', 'easy', 'hard', 'questions'} and d.pool.metadata['difficulty'].max() == 2


@pytest.mark.parametrize(('fields', 'said'), [
    ({'cut': 1}, r'task.cut: 1: of \d+ rows of the pool 0 are easy and \d+ hard \(legal_moves \d+ to \d+, cut at 1\), '
                 'expected easy rows'),
    ({'cut': 99, 'train': 'hard'}, r'task.cut: 99: of \d+ rows of the pool \d+ are easy and 0 hard .*expected hard'),
    ({'cut': 99}, r'task.cut: 99: of \d+ rows of the test set \d+ are easy and 0 hard .*expected some of both'),
    ({'cut': .1, 'train_size': 2000}, 'task.train_size: 2000, expected at most')])
def test_an_empty_side(fields, said):
    assert re.match(said, refused(**MOVES, **fields))


@pytest.mark.parametrize('field', ['cut', 'train', 'bands'])
@pytest.mark.parametrize('name', ['chess', 'files'])
def test_settings_of_a_cut_that_there_is_not(tmp_path, name, field):
    more = {} if name == 'chess' else {'path': write(tmp_path / 'my.jsonl', reviews(40)), 'text': 'body',
                                       'label': 'grade'}
    with pytest.raises(ConfigError, match=rf"task.{field}: .*expected .* as task.difficulty is ''"):
        TASKS[name].fn(sections.task(name, **more, **{field: {'cut': 3., 'train': 'all', 'bands': 2}[field]}))


def test_difficulties_that_are_not_there(tmp_path):
    said = refused(difficulty='rating', error=ConfigError)
    assert said == "task.difficulty: 'rating', but the built-in puzzles have no ratings, expected 'legal_moves' or ''"
    with pytest.raises(DataError, match=r"task.difficulty: no column 'step', it has 'steps'"):
        own(tmp_path, difficulty='step')
    rows = [r | {'steps': 'many' if i == 5 else i} for i, r in enumerate(reviews(40))]
    with pytest.raises(DataError, match=r"line 6: steps is 'many', expected a number \(1 of 40"):
        TASKS['files'].fn(sections.task('files', path=write(tmp_path / 'm.jsonl', rows), text='body', label='grade',
                                        difficulty='steps'))
    with pytest.raises(DataError, match=r'task.cut: 50: of \d+ rows of the test set \d+ are easy and 0 hard \(steps'):
        own(tmp_path, cut=50)
    with pytest.raises(ConfigError, match=r"task.difficulty: 'x', expected '', as task.chosen is set"):
        TASKS['files'].fn(sections.task('files', chosen='a', rejected='b', difficulty='x'))


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -1e300])
def test_a_cut_that_is_no_number(value):
    from w2s_jax import config as configs
    c = easy_to_hard_chess.get_config()
    c.task.cut = value
    with pytest.raises(ConfigError, match=r'^task.cut: .*expected a number in'):
        configs.validate(c)


def test_ratings_of_lichess(tmp_path):
    pytest.importorskip('chess')
    pytest.importorskip('zstandard')
    from chess_files_test import PUZZLES
    from chess_files_test import write as put
    table = put(PUZZLES, tmp_path / 'p.csv')
    d = load(table, difficulty='rating', cut=1650, test_size=3, train='all')
    ratings = np.concatenate([d.pool.metadata['difficulty'], d.test.metadata['difficulty']])
    assert sorted(ratings) == [946, 1601, 1656, 1710]
    assert (d.tests['hard'].metadata['difficulty'] > 1650).all()
    assert 'difficulty' not in load(table, min_rating=1000, test_size=1).pool.metadata


@pytest.mark.long
def test_each_side_has_accuracy_and_pgr_of_its_own(tmp_path):
    c = easy_to_hard_chess.get_config()
    c.task.train_size, c.task.test_size, c.seeds, c.student.model = 128, 100, (0,), 'chess-xs'
    experiment.run(c, tmp_path, io.StringIO())
    found = json.loads((tmp_path / 'results.json').read_text())
    names = {'easy', 'hard', 'band_1', 'band_2', 'band_3', 'band_4'}
    for row in (found['weak'], found['ceiling'], found['zero_shot'], *found['students']):
        assert row['tests'].keys() == names
        size = {k: found['task']['difficulty']['tests'][k][0] for k in ('easy', 'hard')}
        mean = sum(row['tests'][k]['accuracy']['mean'] * n for k, n in size.items()) / sum(size.values())
        assert abs(mean - row['accuracy']['mean']) < 1e-9
    assert found['students'][0]['tests']['hard']['pgr'].keys() == {'mean', 'low', 'high', 'defined'}
