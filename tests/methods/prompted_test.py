"""Prompted models: prompts as strings, likelihoods of answers, examples with weak and with true labels."""
import io
import json

import jax
import numpy as np
import pytest
import tiny
from words import own, sentences

from w2s_jax import config as configs
from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.labels import prompts
from w2s_jax.methods import prompted
from w2s_jax.phases.predict import calibrated
from w2s_jax.store.artifacts import Artifact


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('prompted')
    tiny.folder(folder / 'tiny')
    (folder / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(160))))
    return folder


def config(folder, **changes):
    c = configs.compose(own(folder / 'tiny', folder / 'rows.jsonl', **{'method.name': 'prompted'}))
    keys = {'method.baselines': (), 'student.loss.name': 'xent', 'student.mode': 'probe', 'teacher.mode': 'probe',
            'method.shots': 2, 'task.max_length': 128, 'method.template': '{text}:{answer}', 'method.words': ('n', 'y')}
    c.update_from_flattened_dict(keys | changes)
    return c


def prepared(c):
    return plan.prepare(plan.ready(c), lambda *a: None)


def test_prompts_have_every_answer_behind_the_same_text():
    found = prompts.prompts(['a {text}', 'b'], ['no', 'yes'], '{text}? {answer}', [('x', 1), ('{y}', 0)])
    before = 'x? yes\n\n{y}? no\n\n'
    assert found.tolist() == [[before + 'a {text}? no', before + 'a {text}? yes'],
                              [before + 'b? no', before + 'b? yes']]


def test_examples_are_of_all_classes_and_of_the_surest_half():
    labels = np.array([[.9, .1]] * 10 + [[.6, .4]] * 10 + [[.2, .8]] * 3)
    found = prompts.chosen(labels, 4, np.random.default_rng(0))
    assert sorted(labels.argmax(-1)[found]) == [0, 0, 1, 1] and (found[labels.argmax(-1)[found] == 0] < 10).all()
    assert len(set(found)) == 4
    assert len(prompts.chosen(labels[:3], 9, np.random.default_rng(0))) == 3
    assert len(prompts.chosen(labels, 0, np.random.default_rng(0))) == 0


def test_calibration_makes_answers_equally_likely_on_the_whole():
    p = np.random.default_rng(0).dirichlet([1, 4], 4000)
    found = calibrated(p, p.mean(0))
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    assert abs((found.argmax(-1) == 0).mean() - .5) < .1 < .4 < abs((p.argmax(-1) == 0).mean() - .5) + .1
    np.testing.assert_allclose(calibrated(p, np.ones(2)), p, rtol=1e-6)


def test_logits_are_differences_of_likelihoods(folder):
    """A text's tokens before the answer are the same and cancel out."""
    made = prepared(config(folder))
    model = made.models['student']
    whole, tells = model.generative(), model.prompted()
    params = tells.init(jax.random.key(0), tells.load(None))
    rng = np.random.default_rng(0)
    tokens = np.repeat(rng.integers(0, len(tiny.CHARACTERS), (3, 1, 6)), 2, axis=1).astype(np.int32)
    tokens[:, 1, 5] = (tokens[:, 0, 5] + 1) % len(tiny.CHARACTERS)
    logits = tells.apply(params, {'tokens': tokens, 'length': np.full((3, 2), 6, np.int32)})
    alone = [whole.apply(params, {'tokens': tokens[:, k:k + 1], 'length': np.full((3, 1), 6, np.int32)})[:, 0]
             for k in (0, 1)]
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], alone[1] - alone[0], rtol=1e-4, atol=1e-5)
    earlier = tokens.copy()
    earlier[:, :, 5] = tokens[:, :1, 5]
    same = tells.apply(params, {'tokens': earlier, 'length': np.full((3, 2), 6, np.int32)})
    np.testing.assert_allclose(same[:, 0], same[:, 1], rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize('teacher', [False, True])
def test_prompted_models_stand_beside_trained_ones(folder, tmp_path, teacher):
    found = experiment.run(config(folder, **{'method.teacher': teacher}), tmp_path, io.StringIO())
    students = {s['label']: s for s in found['students']}
    assert students.keys() == {'xent', 'zero-shot prompt', '2 weak examples'}
    texts = [Artifact(p).arrays['text'] for p in (tmp_path / 'store').glob('table-*')]
    shown = [t for t in texts if '\n\n' in t[0, 0]]
    assert shown and len(shown) < len(texts) and all(t.shape[1] == 2 for t in texts)
    for t in shown:
        head = t[0, 0].split('\n\n')
        assert len(head) == 3 and {line[-1] for line in head[:2]} <= {'n', 'y'}
        both = {line[-1] for line in head[:2]} == {'n', 'y'}
        assert both or not teacher  # weak labels may all be one class
        assert all(row[0].split('\n\n')[:2] == head[:2] for row in t[:])
    right = found['weak']['accuracy']['seeds']
    assert len(right) == 2 and (found['weak'].get('ids') is not None)
    answers = Artifact(tmp_path / 'store' / f'predict-{students["zero-shot prompt"]["ids"][0]}').arrays
    assert .25 < (answers['test.top'][:, 0] == 0).mean() < .75


def test_a_prompted_teacher_sees_the_truth_of_its_own_half_alone(folder):
    made = prepared(config(folder, **{'method.teacher': True}))
    true = [p for p in made.phases if p.sees_truth and p.kind == 'table']
    assert true and all(p.role == 'teacher' for p in true)


@pytest.mark.parametrize('given', ['all', 'the student', 'no rows'])
def test_truth_that_is_not_of_the_shown_rows_is_refused(folder, monkeypatch, given):
    """A table of a teacher may see true examples of the teacher's half, and no way round that."""
    def shown(b, seed):
        mine, half = b.halves[seed]
        truth = b.truth[{'all': None, 'the student': half.index, 'no rows': mine.index}[given]]
        return prompted.Shown(truth, b.raw['inputs'] if given == 'no rows' else mine.source)

    def supervisor(b, seed):
        weak = prompted.answers(b, b.teacher, seed, shown(b, seed), 'teacher')
        return weak, prompted.labelled(b, b.teacher, seed, shown(b, seed), 'teacher')
    monkeypatch.setattr(prompted, 'supervisor', supervisor)
    with pytest.raises(ConfigError, match=r'a teacher is given truth \(labels\) that is not of its rows'):
        prepared(config(folder, **{'method.teacher': True}))


@pytest.mark.parametrize(('changes', 'says'), [
    ({'method.words': ('n',)}, r"method\.words: \('n',\), expected 2 different words"),
    ({'method.words': ('n', 'n')}, r'expected 2 different words'),
    ({'method.template': 'no fields'}, r"method\.template: 'no fields', expected \{text\} once"),
    ({'method.template': '{answer} {text}'}, r'at its end'),
    ({'method.template': '{text} {answer'}, r'at its end'),
    ({'method.words': (1, 2)}, r'method\.words: \(1, 2\), expected words'),
    ({'method.template': '{text} {answer} {answer}'}, r'at its end')])
def test_bad_settings(folder, changes, says):
    with pytest.raises(ConfigError, match=says):
        prepared(config(folder, **changes))


def test_prompts_longer_than_the_context(folder, tmp_path):
    with pytest.raises(DataError, match=r'longer than 128 tokens, expected whole prompts; a larger task\.max_length'):
        experiment.run(config(folder, **{'method.shots': 30}), tmp_path, io.StringIO())


def test_a_model_that_cannot_be_prompted():
    c = configs.default_config()
    c.method.name = 'prompted'
    c.task.name = 'salient_concept'
    c.labels.source, c.student.model = 'column', 'mlp-4'
    with pytest.raises(ConfigError, match=r"method 'prompted': 'mlp-4' on task 'salient_concept', expected a causal"):
        prepared(configs.compose(c))
