"""Language models tuned on pairs by weak preferences: what counts of a text, references, whole experiments."""
import io
import json

import jax
import numpy as np
import pytest
import tiny
from words import own, sentences

from w2s_jax import config as configs
from w2s_jax.engine import experiment, export, grid, plan, sweep
from w2s_jax.errors import ConfigError
from w2s_jax.store.artifacts import Artifact


def pairs(n, seed=0):
    """Who writes more a's is preferred; both begin with the prompt."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        prompt, few, many = (''.join(rng.choice(list(letters), 6)) for letters in ('xyz', 'bcd', 'aab'))
        rows.append({'prompt': f'{prompt} {i}', 'chosen': many, 'rejected': few})
    return rows


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('policy')
    tiny.folder(folder / 'tiny')
    (folder / 'pairs.jsonl').write_text('\n'.join(map(json.dumps, pairs(160))))
    (folder / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(80))))
    return folder


def config(folder, loss='dpo', **changes):
    c = configs.default_config()
    c.task.name, c.task.path = 'preference', str(folder / 'pairs.jsonl')
    c.task.template = '{prompt}: {completion}'
    c.student.loss.name = loss
    c.teacher.model = c.student.model = str(folder / 'tiny')
    c.method.baselines = ()
    c.optimizer.learning_rate, c.train.epochs, c.train.batch_size = 3e-3, 4, 16
    c.seeds, c.train.evaluations, c.report.html, c.train.keep = (0, 1), 1, False, 'all'
    c = configs.compose(c)
    c.update_from_flattened_dict(changes)
    return c


def prepared(c):
    return plan.prepare(plan.ready(c), lambda *a: None)


def artifacts(workdir, kind):
    return [Artifact(p) for p in sorted((workdir / 'store').glob(f'{kind}-*'))]


def test_log_likelihoods_are_those_of_what_comes_after_the_common_beginning(folder):
    model = prepared(config(folder)).models['student']
    policy, whole = model.policy(), model.generative()
    params = whole.init(jax.random.key(0), whole.load(None))
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, len(tiny.CHARACTERS), (3, 2, 8)).astype(np.int32)
    tokens[:, 1, :4] = tokens[:, 0, :4]
    length, start = np.array([[8, 6], [7, 8], [5, 5]], np.int32), np.full((3, 2), 4, np.int32)
    told, found = jax.jit(whole.apply), policy.apply(params, {'tokens': tokens, 'length': length, 'begins': start})
    for i, k in np.ndindex(3, 2):
        one = tokens[i:i + 1, k:k + 1]
        end, start = (told(params, {'tokens': one, 'length': np.array([[n]], np.int32)})[0, 0]
                      for n in (length[i, k], 4))
        np.testing.assert_allclose(found[i, k], start - end, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_a_model_is_its_own_reference_before_it_is_tuned(folder, tmp_path):
    """Nothing learned: every ratio is 0, and both texts are as likely."""
    experiment.run(config(folder, **{'optimizer.learning_rate': 1e-12, 'train.epochs': 1}), tmp_path, io.StringIO())
    fits = [a for a in artifacts(tmp_path, 'fit') if json.loads((a.path / 'config.json').read_text())[
        'section']['objective']['name'] == 'dpo']
    assert fits
    for fit in fits:
        np.testing.assert_allclose(fit.arrays['test.top_probability'], .5, atol=1e-3)
    for scored in artifacts(tmp_path, 'score'):
        assert (scored.arrays['begins'] > 1).all() and (scored.arrays['reference'] < 0).all()


@pytest.mark.long
@pytest.mark.parametrize(('loss', 'beta'), [
    ('dpo', 1.), ('orpo', None), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ('ipo', .02), ('simpo', 2.), ('sft', None)))])
def test_students_learn_weak_preferences(folder, tmp_path, loss, beta):
    """A teacher and a ceiling of the same kind; no truth reaches the student."""
    c = config(folder, loss, **{'teacher.loss.name': loss})
    c = configs.compose(c)
    if beta:
        c.teacher.loss.beta = c.student.loss.beta = beta
    found = experiment.run(c, tmp_path, io.StringIO())
    assert [found['students'][0][k] for k in ('loss', 'label')] == [loss, loss]
    assert all(found[k]['accuracy']['mean'] > .8 for k in ('weak', 'ceiling'))
    assert found['students'][0]['accuracy']['mean'] > .8
    objectives = {json.loads((a.path / 'config.json').read_text())['section']['objective']['name']
                  for a in artifacts(tmp_path, 'fit')}
    assert objectives == {loss}


@pytest.mark.long
def test_references_are_computed_once_for_a_grid_and_adapters_go_with_it(folder, tmp_path):
    c = config(folder, **{'student.mode': 'lora', 'train.epochs': 1, 'teacher.loss.name': 'dpo', 'seeds': (0,),
                          'teacher.mode': 'lora'})
    grid.run(c, sweep.values('student.loss.beta', (.1, 1.)), tmp_path, io.StringIO())
    assert len(artifacts(tmp_path, 'score')) == 2  # the pool and the test set, teacher and student being one model
    assert {json.loads((a.path / 'config.json').read_text())['section']['objective']['name']
            for a in artifacts(tmp_path, 'fit')} == {'dpo'}


@pytest.mark.long
@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_an_exported_student_says_of_texts_what_it_said_here(folder, tmp_path, mode):
    c = config(folder, **{'student.mode': mode, 'seeds': (0,), 'student.loss.beta': 1.})
    found = experiment.run(c, tmp_path / 'w', io.StringIO())
    export.write(tmp_path / 'w', 'student', 'dpo', 0, tmp_path / 'out')
    assert 'AutoModelForCausalLM' in export.snippet(tmp_path / 'out')
    scored = next(a.arrays for a in artifacts(tmp_path / 'w', 'score') if len(a.arrays['tokens']) == 32)
    tuned = prepared(config(folder, **{'student.model': str(tmp_path / 'out')})).models['student'].policy()
    params = tuned.init(jax.random.key(0), tuned.load(None))
    logits = jax.jit(tuned.apply)(params, {k: scored[k] for k in ('tokens', 'length', 'begins')}) - scored['reference']
    fit = Artifact(tmp_path / 'w' / 'store' / f'fit-{found["students"][0]["ids"][0]}').arrays
    assert np.abs(np.asarray(logits)).max() > .1  # it has learned something
    np.testing.assert_allclose(np.sort(jax.nn.softmax(logits), axis=1)[:, ::-1], fit['test.top_probability'], atol=1e-4)


def test_who_cannot_be_tuned_on_pairs(folder):
    with pytest.raises(ConfigError, match=r"objective 'dpo': tunes which of two texts .* expected a causal"):
        c = own(folder / 'tiny', folder / 'rows.jsonl', **{'student.loss.name': 'dpo'})
        prepared(configs.compose(c))
