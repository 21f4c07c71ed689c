"""Students that are told the weak label: what their texts say, and whom they follow."""
import io
import json

import numpy as np
import pytest
import tiny
from words import own, sentences

from configs import salient_concept
from configs.paper import hint as paper
from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import ConfigError
from w2s_jax.labels import texts
from w2s_jax.registry import Settings
from w2s_jax.store.artifacts import Artifact

TEXTS = np.array([['a', 'b'], ['c', 'd'], ['e', 'f']], object)


def made(columns, **settings):
    return texts.hint(columns, Settings({'test': '', 'words': ()} | settings), None)['text']


def test_every_text_of_a_labelled_row_ends_with_its_label():
    labels = np.array([[.2, .8], [.9, .1]], np.float32)
    found = made({'texts/text': TEXTS, 'labels/labels': labels, 'rows/values': np.array([2, 0])})
    ends = ['\n\nI think this is 0. What do you think?', '', '\n\nI think this is 1. What do you think?']
    assert found.tolist() == [[t + e for t in row] for row, e in zip(TEXTS, ends, strict=True)]
    hard = made({'texts/text': TEXTS, 'labels/labels': np.array([1, 0]), 'labels/rows': np.array([2, 0])},
                words=('no', 'yes'))
    assert 'is yes.' in hard[2, 0] and 'is no.' in hard[0, 1] and hard[1, 0] == 'c'


def test_test_sets_have_the_first_answers_of_the_weak_model_there():
    columns = {'texts/text': TEXTS, 'weak/test.top': np.array([[1, 0], [0, 1], [1, 0]]),
               'weak/other.top': np.array([[0, 1]] * 3)}
    assert ['is 1.' in row[0] for row in made(columns, test='test')] == [True, False, True]
    assert not any('is 1.' in row[0] for row in made(columns, test='other'))
    given = made({'texts/text': TEXTS, 'weak/values': np.array([[.1, .9], [.6, .4], [.5, .5]])}, test='test')
    assert ['is 1.' in row[1] for row in given] == [True, False, False]


def config(folder, **changes):
    c = own(folder / 'tiny', folder / 'rows.jsonl', **{'method.name': 'hint'})
    c = configs.compose(c)
    c.update_from_flattened_dict({'method.baselines': (), 'student.loss.name': 'xent', 'report.html': False,
                                  'seeds': (0,)} | changes)
    return c


@pytest.fixture
def folder(tmp_path):
    tiny.folder(tmp_path / 'tiny')
    (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(240))))
    return tmp_path


@pytest.mark.long
def test_a_run_whose_student_reads_the_hints_in_training_and_tests(folder):
    c = config(folder, **{'train.epochs': 4, 'method.words': ('a', 'z')})
    found = experiment.run(c, folder / 'w', io.StringIO())
    plan = plans.prepare(plans.ready(c), lambda line: None)
    hinted, plain = (next(p for p in plan.phases if p.label == f'student {label}') for label in ('hint xent', 'xent'))
    weak, = (Artifact(folder / 'w' / 'store' / f'fit-{i}') for i in found['weak']['ids'])
    for name in ('inputs', 'predict/test'):
        assert hinted.needs[name].id != plain.needs[name].id
        table = hinted.needs[name].needs['inputs']
        rows = Artifact(folder / 'w' / 'store' / f'table-{table.id}').arrays['text']
        told = np.array(['I think this is z' in row[0] for row in rows])
        if name == 'inputs':
            at = hinted.needs['rows'].value
            labels = Artifact(folder / 'w' / 'store' / f'predict-{hinted.needs["targets"].id}').arrays['labels']
            assert (told[at] == (labels.argmax(-1) == 1)).all()
            assert sum('I think' in row[0] for row in rows) == len(at)
        else:
            assert (told == (weak.arrays['test.top'][:, 0] == 1)).all()
    assert [s['label'] for s in found['students']] == ['xent', 'hint xent']
    assert all(not s.get('oracle') for s in found['students'])


def test_bad_settings_end_in_one_line(folder):
    features = salient_concept.get_config()
    features.method.name = 'hint'
    wrong = [(config(folder, **{'method.words': ('a',)}), 'method.words: 1 words, expected 2, one for each class'),
             (features, "method.name: 'hint' needs texts, but the rows of task 'salient_concept' have features")]
    for c, said in wrong:
        with pytest.raises(ConfigError) as e:
            plans.prepare(plans.ready(c), lambda line: None)
        assert said in str(e.value) and '\n' not in str(e.value)


def test_the_config_of_the_paper():
    c = configs.validate(paper.get_config())
    assert (c.method.name, c.method.labels, c.method.words) == ('hint', 'hard', ('negative', 'positive'))
    assert c.student.mode == 'full'  # a probe hardly reads a hint
