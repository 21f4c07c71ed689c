"""Heads on frozen features: intercepts, exact solutions, and a rule that ends their training, against scikit-learn."""
import io
import json

import numpy as np
import pytest
import tiny
from sklearn.linear_model import LogisticRegression
from words import ALPHABET, own

from configs import own_data
from w2s_jax import config as configs
from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError
from w2s_jax.phases import fit
from w2s_jax.store.artifacts import Artifact

KEYS = {'teacher.mode': 'probe', 'student.mode': 'probe', 'method.baselines': (), 'student.loss.name': 'xent',
        'seeds': (0, 1)}


def unbalanced(path, n=600, share=.9):
    """Words of letters with classes of very different sizes; whether a 'z' is there says it in nine of ten cases."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(n):
        truth = int(rng.random() < share)
        word = ''.join(rng.choice(list(ALPHABET), 8)) + ('z' if (rng.random() < .9) == bool(truth) else 'b')
        rows.append({'text': f'{word} {i}', 'label': ['no', 'yes'][truth]})
    path.write_text('\n'.join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('probes')
    tiny.folder(folder / 'tiny')
    unbalanced(folder / 'rows.jsonl')
    return folder


def run(folder, where, **changes):
    c = own(folder / 'tiny', folder / 'rows.jsonl', **KEYS | {'train.epochs': 20} | changes)
    return experiment.run(c, where, io.StringIO())


def ceilings(folder, where):
    """Of each seed: features and truth of the rows that the ceiling learned, and of the test set; what it answered."""
    c = plan.ready(configs.compose(own(folder / 'tiny', folder / 'rows.jsonl', **KEYS)))
    made = plan.prepare(c, lambda *a: None)
    results = json.loads((where / 'results.json').read_text())
    store = where / 'store'
    features = {p.label.rpartition(' ')[2]: Artifact(store / f'features-{p.id}').arrays['features']
                for p in made.phases if p.kind == 'features' and p.section['model'] == made.models['student'].identity}
    pool, test = features['pool'][:, 0], features['set'][:, 0]
    mean, deviation = pool.mean(0), pool.std(0)
    for seed, identity in zip((0, 1), results['ceiling']['ids'], strict=True):
        need = next(t.need for t in made.targets if t.role == 'ceiling' and t.seed == seed)
        rows = need.needs['rows'].value
        yield ((pool[rows] - mean) / deviation, made.dataset.pool.truth[rows], (test - mean) / deviation,
               made.dataset.test.truth, Artifact(store / f'fit-{identity}').arrays)


@pytest.mark.long
def test_on_unbalanced_classes_a_probe_is_as_good_as_logistic_regression(folder, tmp_path):
    """Without an intercept it was below always giving the most frequent answer."""
    found = run(folder, tmp_path)
    majority, ceiling = found['majority']['accuracy']['mean'], found['ceiling']['accuracy']
    theirs = [LogisticRegression(C=1, max_iter=3000).fit(x, y).score(tx, ty)
              for x, y, tx, ty, _ in ceilings(folder, tmp_path)]
    assert majority == pytest.approx(.9, abs=.05)
    assert ceiling['mean'] > max(majority, np.mean(theirs)) - .02
    assert ceiling['low'] < ceiling['mean'] < ceiling['high']
    assert {'unbalanced'} <= {a['code'] for a in found['alarms']}


@pytest.mark.long
@pytest.mark.parametrize('mode', own_data.MODES)
def test_own_unbalanced_data_end_at_the_majority_at_least(mode, folder, tmp_path):
    """As the config file sets it, with a tenth of the rows in one class."""
    c = own_data.get_config(mode)
    c.task.path, c.task.text, c.task.label = str(folder / 'rows.jsonl'), 'text', 'label'
    c.teacher.model = c.student.model = str(folder / 'tiny')
    found = experiment.run(c, tmp_path, io.StringIO())
    majority = found['majority']['accuracy']['mean']
    assert majority == pytest.approx(.9, abs=.05)
    for entry in (found['weak'], found['ceiling'], *found['students']):
        assert entry['accuracy']['mean'] > majority - .02, entry['model']


@pytest.mark.long
def test_the_exact_solution_is_that_of_logistic_regression(folder, tmp_path):
    run(folder, tmp_path, **{'optimizer.name': 'lbfgs', 'optimizer.l2': .03, 'teacher.stopping.name': '',
                             'student.stopping.name': ''})
    for x, y, tx, _, arrays in ceilings(folder, tmp_path):
        # Two columns of weights that are each other's negative have half the penalty of their difference.
        model = LogisticRegression(C=2 / (.03 * len(y)), tol=1e-10, max_iter=10_000).fit(x, y)
        ours = np.take_along_axis(arrays['test.top_probability'], arrays['test.top'].argsort(-1), -1)
        np.testing.assert_allclose(ours, model.predict_proba(tx), atol=2e-4)


@pytest.mark.long
def test_a_rule_chooses_the_strength_of_the_exact_solution(folder, tmp_path):
    found = run(folder, tmp_path, **{'optimizer.name': 'lbfgs'})
    stopped = found['students'][0]['stopped']
    assert all(1 <= s <= 13 for s in stopped['steps']) and stopped['score'] < 0


@pytest.mark.parametrize(('changes', 'said'), [
    ({'student.loss.name': 'confidence'}, "student 'confidence' is not convex"),
    ({'student.mode': 'full'}, "'xent' is of mode 'full'")])
def test_what_has_no_exact_solution_is_refused(folder, changes, said):
    c = own(folder / 'tiny', folder / 'rows.jsonl', **KEYS | {'optimizer.name': 'lbfgs'} | changes)
    with pytest.raises(ConfigError, match=rf'optimizer.name.*{said}'):
        plan.prepare(plan.ready(c), lambda *a: None)


def test_probes_are_stopped_by_a_rule_unless_told_otherwise(folder):
    c = plan.ready(own(folder / 'tiny', folder / 'rows.jsonl', **KEYS | {'student.stopping.name': ''}))
    fits = {p.role: p.section for p in plan.prepare(c, lambda *a: None).phases if p.kind == 'fit'}
    assert fits['teacher']['stopping']['name'] == 'calibrated'
    assert 'stopping' not in fits['student'] and 'stopping' not in fits['ceiling']
    c.student.stopping.name, c.student.mode = 'auto', 'full'
    fits = {p.role: p.section for p in plan.prepare(plan.ready(c), lambda *a: None).phases if p.kind == 'fit'}
    assert 'stopping' not in fits['student'] and 'stopping' in fits['teacher']


def test_a_head_starts_at_the_shares_of_its_labels():
    targets = np.array([0] * 9 + [1])
    shares = np.exp(fit.log_shares(targets, np.ones(10), 3))
    np.testing.assert_allclose(shares / shares.sum(), np.array([9.5, 1.5, .5]) / 11.5, rtol=1e-6)
    soft = np.eye(3)[targets]
    np.testing.assert_array_equal(fit.log_shares(soft, np.ones(10), 3), fit.log_shares(targets, np.ones(10), 3))
    assert fit.log_shares(targets, np.array([0.] * 9 + [1]), 3).argmax() == 1


def test_layers_beyond_a_model_and_read_outs_of_what_is_no_language_model_are_refused(folder):
    for changes, said in (({'student.layers': 9}, 'student.layers: 9, expected at most the 2'),
                          ({'student.read_out': 'middle'}, "student.read_out: unknown 'middle'")):
        with pytest.raises(ConfigError, match=said):
            plan.prepare(plan.ready(own(folder / 'tiny', folder / 'rows.jsonl', **KEYS | changes)), lambda *a: None)
    c = configs.default_config()
    c.student.read_out = 'mean'
    with pytest.raises(ConfigError, match=r"student\.read_out: 'mean', but 'chess-m' is no language model"):
        plan.prepare(plan.ready(c), lambda *a: None)
