"""An experiment on the user's own files: what is measured beside accuracy, and what is noticed before any model."""
import io
import json

import numpy as np
import pytest
import tiny
from commands import error
from rows import reviews, write

from configs import own_data, probe
from w2s_jax import config as configs
from w2s_jax.data import Dataset, Examples
from w2s_jax.engine import experiment, results
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError

OWN = '--config=configs/own_data.py'
LETTERS = 'bcdefghijklmnop'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp('models') / 'tiny')


def config(model, path, **task):
    c = own_data.get_config('probe')
    c.task.update({'path': str(path), **task})
    c.teacher.model = c.student.model = str(model)
    c.seeds, c.train.epochs, c.train.batch_size, c.train.evaluations, c.report.html = (0, 1), 8, 16, 1, False
    c.teacher.learning_rate = c.student.learning_rate = .1
    return configs.compose(c)


def quiz(n):
    """Questions whose right option ends in z."""
    rng = np.random.default_rng(0)
    for i in range(n):
        words = [''.join(rng.choice(list(LETTERS), 4)) for _ in range(4)]
        yield {'q': f'say {i}', 'options': [w + 'z' * (k == i % 4) for k, w in enumerate(words)], 'answer': i % 4}


@pytest.mark.long
def test_accuracy_per_question(model, tmp_path):
    c = config(model, write(tmp_path / 'quiz.jsonl', list(quiz(400))), question='q', options='options', answer='answer')
    found = experiment.run(c, tmp_path / 'w', io.StringIO())
    assert found['task']['questions'] == {'number': found['task']['test_examples'], 'options': 4.}
    for row in (found['weak'], found['ceiling'], *found['students']):
        mine = row['measures']['question_accuracy']
        assert mine['title'].startswith('questions answered right') and len(mine['seeds']) == 2
        assert mine['mean'] > .6 and 'questions' not in row.get('tests', {})  # by chance .25
    assert 'question_accuracy' not in (found.get('zero_shot') or {'measures': {}})['measures']
    assert found['majority']['accuracy']['mean'] == .5
    assert found['task']['class_shares'] == {'pool': [.5, .5], 'test':
    [.5, .5]}


@pytest.mark.long
def test_soft_labels_of_one_s_own_teach(model, tmp_path):
    """Right as often as not, but sure where they are right: hard labels teach nothing."""
    rows = []
    for i, r in enumerate(quiz(400)):
        has, wrong = i % 2, i // 2 % 2
        text = r['options'][r['answer']] if has else r['options'][r['answer'] - 1]
        weak = (.05, .95)[has] if not wrong else (.55, .45)[has]
        rows.append({'text': text, 'p': (.1, .8)[has], 'w': json.dumps([1 - weak, weak])})
    c = config(model, write(tmp_path / 'soft.csv', rows), text='text', label='p', weak='w')
    c.labels.source = 'column'
    found = experiment.run(c, tmp_path / 'w', io.StringIO())
    assert found['weak']['model'] == 'given' and .4 < found['weak']['accuracy']['mean'] < .6
    assert found['students'][0]['accuracy']['mean'] > .65
    assert found['task']['truth'] == "the likeliest class by the probabilities in column 'p'"


@pytest.mark.long
def test_pairs_of_one_s_own(model, tmp_path):
    rows = [{'ask': r['q'], 'good': r['options'][r['answer']], 'bad': r['options'][r['answer'] - 1]}
            for r in quiz(200)]
    c = config(model, write(tmp_path / 'pairs.csv', rows), chosen='good', rejected='bad', prompt='ask')
    found = experiment.run(c, tmp_path / 'w', io.StringIO())
    assert found['weak']['accuracy']['mean'] > .8 and 'question_accuracy' not in found['weak']['measures']


def dataset(pool, test, classes):
    def part(truth):
        return Examples({'features': np.zeros((len(truth), 1), np.float32)}, np.array(truth, np.int32),
                        np.arange(len(truth)))
    return Dataset('toy', classes, part(pool), part(test))


def test_class_shares_by_hand():
    assert results.shares(dataset([0, 1, 1, 1], [0, 0, 0, 1, 2], 3)) == {
        'class_shares': {'pool': [.25, .75, 0.], 'test': [.6, .2, .2]}}
    assert results.shares(dataset([0, 1, 1], [1, 1], 1858)) == {}


# What is noticed before any model


SMALL = (r'^train.batch_size: {}, expected at most {}, the rows that the (teacher|student) learns from: of 100 rows 20 '
         r'are the test set, 40 the half of the teacher and 40 of the student{}; set train.batch_size={}, or bring '
         r'more rows$')


@pytest.mark.parametrize('changes, message', [
    ({'train.batch_size': 41, 'teacher.stopping.name': '', 'student.stopping.name': ''}, SMALL.format(41, 40, '', 10)),
    ({'train.batch_size': 37}, SMALL.format(37, 36, '', 9)),  # a tenth is held out for the rule
    ({'train.batch_size': 36}, None)])
def test_a_batch_that_is_larger_than_a_half(tmp_path, changes, message):
    path = write(tmp_path / 'a.jsonl', reviews(100))
    c = config('mlp-4', path, text='body', label='grade')  # not of texts: comes up where models are loaded
    c.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message or r"^teacher.model: 'mlp-4' does not fit task 'files'"):
        plans.prepare(configs.validate(c), lambda line: None)


def test_groups_and_given_labels_count(tmp_path):
    rows = [r | {'w': ('good', 'poor')[i // 3 % 2]} for i, r in enumerate(reviews(100))]
    c = config('mlp-4', write(tmp_path / 'a.jsonl', rows), text='body', label='grade', group='by', weak='w')
    c.train.batch_size = 60
    with pytest.raises(ConfigError, match=r'in groups of up to 5\); set'):
        plans.prepare(configs.validate(c), lambda line: None)
    c.labels.source, c.method.share, c.train.batch_size = 'column', .2, 32  # no teacher, no teacher's half
    with pytest.raises(ConfigError, match=r"^student.model: 'mlp-4' does not fit"):
        plans.prepare(configs.validate(c), lambda line: None)


def test_small_data_from_the_command_line(cli, tmp_path):
    path = write(tmp_path / 'a.csv', [{'text': f'Text {i}', 'y': i % 2} for i in range(40)])
    line = error(cli(f'{OWN}:probe', f'--workdir={tmp_path / "w"}', f'--config.task.path={path}',
                     '--config.task.text=text', '--config.task.label=y'))  # models that would have to be downloaded
    assert line.startswith('train.batch_size: 128, expected at most 15, ')
    assert not (tmp_path / 'w' / 'results.json').exists()


def test_modes():
    assert {m: own_data.get_config(m).student.mode for m in own_data.MODES} == {m: m for m in own_data.MODES}
    assert own_data.get_config() == own_data.get_config('lora')
    theirs = probe.get_config().train
    assert own_data.get_config('probe').train == theirs != own_data.get_config('full').train


@pytest.mark.parametrize('args, message', [
    ([f'{OWN}:prob'], '--config=configs/own_data.py:prob: unknown mode, expected one of probe, lora, full'),
    ([OWN, '--config.seeds=3'], "seeds: 3, expected a tuple, as '(0, 1, 2)'; for one value seeds=(3,)"),
    ([OWN, '--config.seeds', '3'], "seeds: 3, expected a tuple, as '(0, 1, 2)'; for one value seeds=(3,)"),
    ([OWN, '--config.method.baselines=3'], "method.baselines: 3, expected a tuple, as '('xent',)'; for one value "
                                           'method.baselines=(3,)'),
    ([OWN, '--config.task.text=t', '--config.task.question=q'], "task.text: 't', task.question: 'q', task.chosen: '', "
                                                               'expected one of them'),
    ([OWN, '--config.task.text=t', '--config.task.label=y'], 'task.path: empty, expected a file or a folder of data'),
])
def test_flags(cli, tmp_path, args, message):
    assert error(cli(*args, f'--workdir={tmp_path / "w"}')) == message


def test_a_number_for_a_tuple_in_a_config():
    c = own_data.get_config()
    with c.ignore_type():
        c.seeds = 3
    with pytest.raises(ConfigError, match=r"^seeds: 3, expected a tuple, as '\(0, 1, 2\)'$"):
        configs.validate(c)
    assert json.dumps(configs.flat(own_data.get_config())['seeds']) == '[0, 1, 2]'
