"""Generative fine-tuning: the next-token head against plain sums, and students that start from their texts."""
import dataclasses
import io
import json

import jax
import numpy as np
import pytest
import tiny
from words import own, sentences

from configs import salient_concept
from w2s_jax import config as configs
from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError
from w2s_jax.methods import METHODS
from w2s_jax.models import generative as heads
from w2s_jax.models import modes, tokens
from w2s_jax.models.transformer import language_logits
from w2s_jax.objectives import OBJECTIVES
from w2s_jax.phases.tables import TABLES
from w2s_jax.registry import Settings
from w2s_jax.store.artifacts import Artifact

KEYS = {'method.name': 'generative', 'method.baselines': (), 'student.loss.name': 'xent'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('generative')
    tiny.folder(folder / 'tiny')
    (folder / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(240))))
    return folder


def config(folder, **changes):
    keys = KEYS | changes
    c = own(folder / 'tiny', folder / 'rows.jsonl', **{'method.name': keys.pop('method.name')})
    c = configs.compose(c)
    c.update_from_flattened_dict(keys)
    return c


@pytest.fixture(scope='module')
def model(folder):
    made = plan.prepare(plan.ready(config(folder)), lambda *a: None)
    return made.models['student']


def texts(rows=4, width=1, longest=9, seed=0):
    rng = np.random.default_rng(seed)
    length = rng.integers(2, longest + 1, (rows, width)).astype(np.int32)
    ids = rng.integers(0, len(tiny.CHARACTERS), (rows, width, longest)).astype(np.int32)
    return {'tokens': np.where(np.arange(longest) < length[..., None], ids, 0), 'length': length}


def by_hand(whole, params, inputs):
    """(minus log-likelihood, tokens) of each row, one text after the other, in float64."""
    out = []
    for row, lengths in zip(inputs['tokens'], inputs['length'], strict=True):
        total = count = 0
        for ids, n in zip(row, lengths, strict=True):
            hidden = whole.parts.backbone.apply({'params': params['backbone']}, ids[None, :n], np.array([n]))
            table = params['head']['table'] if 'head' in params else params['backbone']['tokens']['embedding']
            logits = np.float64(language_logits(hidden[0], table, whole.parts.backbone.config))
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            total, count = total - sum(logs[i, ids[i + 1]] for i in range(n - 1)), count + n - 1
        out.append((total, count))
    return np.array(out)


@dataclasses.dataclass
class Whole:
    """A generative model with its parts."""
    parts: modes.Parts
    model: modes.Model


@pytest.fixture(scope='module', params=['tied', 'own'])
def whole(request, folder):
    path = folder / request.param
    if not path.exists():
        tiny.folder(path)
        content = json.loads((path / 'config.json').read_text()) | {'tie_word_embeddings': request.param == 'tied'}
        (path / 'config.json').write_text(json.dumps(content))
        if request.param == 'own':
            import safetensors.numpy
            found = safetensors.numpy.load_file(path / 'model.safetensors')
            name = next(k for k in found if k.endswith('embed_tokens.weight'))
            found['lm_head.weight'] = np.random.default_rng(1).normal(size=found[name].shape).astype(np.float32)
            safetensors.numpy.save_file(found, path / 'model.safetensors')
    from w2s_jax.models import language
    c = config(folder)
    made = plan.prepare(plan.ready(c), lambda *a: None)
    c.student.model = str(path)
    parts = language.parts(str(path), 'student.model', made.dataset, c.student)
    found = parts.generative(parts)
    return Whole(found, modes.bind(found, 'full', ()))


@pytest.mark.parametrize('width', [1, 2])
@pytest.mark.parametrize('chunk', [3, 128])
def test_likelihoods_are_sums_over_the_tokens_of_texts(whole, width, chunk, monkeypatch):
    monkeypatch.setattr(heads, 'CHUNK', chunk)
    params = whole.model.init(jax.random.key(0), whole.model.load(None))
    assert ('head' in params) == (whole.parts.head.tied is False)
    inputs = texts(width=width)
    np.testing.assert_allclose(whole.model.apply(params, inputs), by_hand(whole, params, inputs), rtol=2e-5)
    more = np.pad(inputs['tokens'], [(0, 0), (0, 0), (0, 5)], constant_values=3)
    longer = {'tokens': more, 'length': inputs['length']}
    np.testing.assert_allclose(whole.model.apply(params, longer), whole.model.apply(params, inputs), rtol=2e-5)


def test_the_objective_is_the_mean_over_tokens_and_predicts_their_mean_probability():
    found = np.array([[6., 3.], [10., 4.], [0., 0.]], np.float32)
    aim = OBJECTIVES['next_token'].fn()
    batch = {'inputs': None, 'weight': np.array([1, 3, 0], np.float32)}
    loss, aux = aim.losses(lambda p, x: found, None, batch, (), None, 0, None)
    np.testing.assert_allclose(loss, [2, 2.5, 0])
    np.testing.assert_allclose(aux['log_perplexity'], (2 + 3 * 2.5) / 4)
    p = jax.nn.softmax(aim.predict(lambda p, x: found, None, None))[:, 0]
    np.testing.assert_allclose(p[:2], np.exp([-2, -2.5]), rtol=1e-6)
    assert np.isfinite(p).all() and p[2] > .999


def test_packed_texts_are_all_tokens_in_order():
    inputs = texts(rows=5, longest=7)
    ids = np.concatenate([row[0, :n] for row, n in zip(inputs['tokens'], inputs['length'][:, 0], strict=True)])
    found = tokens.packed(inputs, 4)
    assert found['tokens'].shape == (len(ids) // 4, 1, 4) and (found['length'] == 4).all()
    np.testing.assert_array_equal(found['tokens'].ravel(), ids[:len(ids) // 4 * 4])
    assert tokens.packed(inputs, 1000)['tokens'].shape == (1, 1, len(ids))
    pairs = np.array([['a', 'b'], ['c', 'd']], object)
    assert tokens.one_each(pairs, '.').tolist() == [['a.'], ['b.'], ['c.'], ['d.']]


def outcome(c, where):
    found = experiment.run(c, where, io.StringIO())
    return found, {s['label']: s for s in found['students']}


@pytest.mark.long
@pytest.mark.parametrize(('mode', 'pack'), [('full', 0), ('lora', 0), ('probe', 0), ('full', 40)])
def test_students_start_from_their_texts(folder, tmp_path, mode, pack):
    c = config(folder, **{'student.mode': mode, 'teacher.mode': 'probe', 'method.epochs': 4, 'method.rate': 3e-3,
                          'method.pack': pack, 'train.keep': 'all'})
    results, students = outcome(c, tmp_path)
    before, after = (results['perplexity'][k]['mean'] for k in ('before', 'after'))
    assert [s['measures']['perplexity']['mean'] for s in students.values()] == [before, after]
    assert after < (.8 if pack else .5) * before  # a third of the steps
    assert students.keys() == {'xent', 'generative xent'}
    one, other = (Artifact(tmp_path / 'store' / f'fit-{s["ids"][0]}') for s in students.values())
    config_of = [json.loads((a.path / 'config.json').read_text()) for a in (one, other)]
    if mode == 'probe':
        assert config_of[0]['needs']['inputs'] != config_of[1]['needs']['inputs']
    else:
        assert config_of[1]['section']['start'] == 'new' and 'start' not in config_of[0]['section']
    ceiling = json.loads((tmp_path / 'store' / f'fit-{results["ceiling"]["ids"][0]}' / 'config.json').read_text())
    assert ('start' in ceiling['needs']) == (mode != 'probe')
    runs = [p['runs'] for p in results['timing']['phases'] if p['name'].endswith('on its texts')]
    assert runs == ([1, 1] if pack else [2, 2])  # packed texts are of one seed


def test_no_label_reaches_the_texts(folder, tmp_path):
    """With other labels, and so other truth, the same texts give the same phase."""
    rows = [json.loads(line) for line in (folder / 'rows.jsonl').read_text().splitlines()]
    other = folder / 'other.jsonl'
    labels = [r['label'] for r in rows]
    other.write_text('\n'.join(json.dumps(r | {'label': labels[-1 - i]}) for i, r in enumerate(rows)))
    ids = []
    for path in (folder / 'rows.jsonl', other):
        made = plan.prepare(plan.ready(config(folder, **{'task.path': str(path)})), lambda *a: None)
        ids.append({p.id for p in made.phases if p.role == 'tuned'})
    assert len(ids[0]) == 2


def test_who_starts_from_texts(folder):
    c = config(folder, **{'method.tuned': ('teacher', 'student', 'ceiling')})
    made = plan.prepare(plan.ready(c), lambda *a: None)
    assert sorted(p.role for p in made.phases if 'start' in p.needs) == [
        'ceiling', 'ceiling', 'student', 'student', 'teacher', 'teacher']
    c.labels.source = 'column'
    with pytest.raises(ConfigError, match=r"labels\.source"):
        plan.prepare(plan.ready(c), lambda *a: None)


def test_a_model_that_does_not_predict_its_inputs(folder):
    c = configs.default_config()
    c.task.name, c.teacher.model, c.student.model, c.method.name = 'salient_concept', 'mlp-4', 'mlp-32', 'generative'
    with pytest.raises(ConfigError, match="'generative': 'mlp-32' does not predict its own inputs"):
        plan.prepare(plan.ready(configs.compose(c)), lambda *a: None)


# The salient concept, spread over six features (methods.md B3)


def unrelated(b):
    """Students whose encoder learned to denoise numbers that have nothing to do with the task."""
    noise = b.table(TABLES['test_numbers'], Settings(), {'inputs': b.raw['inputs']}, 'unrelated numbers')
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        half = b.halves[seed].student
        tuned = b.fit('tuned', b.student.generative(), None, None, 'denoising', inputs=noise, seed=seed, epochs=20,
                      rate=3e-3)
        b.weak(weak, labels)
        b.ceiling(b.fit('ceiling', b.student, half, b.truth, backbone=tuned))
        b.students([b.fit('student', b.student, half, labels, 'xent', backbone=tuned)])


def numbers(columns, settings, rng):
    """Independent normal numbers, as many as there are."""
    return {'features': rng.normal(size=columns['features'].shape).astype(np.float32)}


@pytest.fixture
def registered():
    METHODS.register('test_unrelated')(unrelated)
    TABLES.register('test_numbers')(numbers)
    yield
    del METHODS.entries['test_unrelated'], TABLES.entries['test_numbers']


def spread(folder, mode='probe', method='generative', **changes):
    """Accuracies by label, and PGRs, over the seeds."""
    c = salient_concept.get_config()
    c.report.html, c.seeds, c.train.epochs = False, tuple(range(10)), 4
    c.student.model, c.student.mode, c.student.stopping.name = 'bottleneck-8', mode, ''
    c.method.name, c.task.turn, c.optimizer.learning_rate = method, 6, 1e-2 if mode == 'probe' else 1e-3
    c = configs.compose(c)
    more = {'method.epochs': 20, 'method.rate': 3e-3} if method == 'generative' else {}
    c.update_from_flattened_dict(changes | more)
    found = {s['label']: s for s in experiment.run(c, folder, io.StringIO())['students']}
    accuracy = {k: np.array(s['accuracy']['seeds']) for k, s in found.items()}
    return accuracy, {k: s['pgr']['mean'] for k, s in found.items()}


@pytest.mark.long
def test_a_frozen_encoder_gains_from_the_task_and_from_nothing_else(registered, tmp_path):
    """At least .15 above an encoder that learned something unrelated, on every seed; PGR .6 against at most .3."""
    accuracy, pgr = spread(tmp_path / 'task')
    other, _ = spread(tmp_path / 'unrelated', method='test_unrelated')
    assert (accuracy['generative xent'] - other['xent'] >= .15).all()
    assert (accuracy['generative xent'] - accuracy['xent'] >= .15).all()
    assert pgr['generative xent'] >= .6 and pgr['xent'] <= .3


@pytest.mark.long
def test_an_encoder_that_is_trained_with_the_head_gains_nothing(tmp_path):
    accuracy, _ = spread(tmp_path, 'full', **{'train.epochs': 25})
    assert abs((accuracy['generative xent'] - accuracy['xent']).mean()) <= .01
