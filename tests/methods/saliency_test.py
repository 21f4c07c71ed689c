"""Concept saliency: who learns what from whom, that truth stays where it is marked, and probes on tuned backbones."""
import io
import json

import jax
import numpy as np
import pytest
import tiny
from words import own, sentences

from configs.paper import saliency as paper
from w2s_jax import config as configs
from w2s_jax.engine import experiment, export, plan
from w2s_jax.errors import ConfigError
from w2s_jax.methods import METHODS
from w2s_jax.models.linear import ADAPTERS
from w2s_jax.phases import encode
from w2s_jax.store.artifacts import Artifact

LABELS = ['xent', 'probe xent', 'probe on truth', 'xent, then probe on truth']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('saliency')
    tiny.folder(folder / 'tiny')
    (folder / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(240))))
    return folder


def config(folder, **changes):
    c = own(folder / 'tiny', folder / 'rows.jsonl', **{'method.name': 'saliency'})
    c = configs.compose(c)
    c.update_from_flattened_dict({'method.baselines': (), 'student.loss.name': 'xent', 'student.mode': 'full',
                                  'teacher.mode': 'probe', 'method.epochs': 3, **changes})
    return c


def planned(c):
    return plan.prepare(plan.ready(c), lambda *a: None)


def refused(c) -> str:
    with pytest.raises(ConfigError) as caught:
        planned(c)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def _registry():
    kept = dict(METHODS.entries)
    yield
    METHODS.entries.clear()
    METHODS.entries.update(kept)


def test_who_learns_what(folder):
    made = planned(config(folder))
    found = {t.label: t for t in made.targets if t.role == 'student' and t.seed == 0}
    assert list(found) == LABELS
    assert [bool(t.row.get('oracle')) for t in found.values()] == [False, False, True, True]
    assert [t.need.sees_truth for t in found.values()] == [False, False, True, True]
    assert [t.need.section['model']['mode'] for t in found.values()] == ['full', 'probe', 'probe', 'probe']
    features = [t.need.needs['inputs'] for t in found.values()]
    assert 'backbone' not in features[1].needs and features[1] is features[2]
    assert features[3].needs['backbone'].id == found['xent'].need.id
    rows = {t.need.needs['rows'].id for t in found.values()}
    ceiling = next(t for t in made.targets if t.role == 'ceiling' and t.seed == 0).need
    assert rows == {ceiling.needs['rows'].id} and ceiling.section['model']['mode'] == 'full'
    assert found['probe on truth'].need.needs['targets'].id == ceiling.needs['targets'].id
    assert {t.row['method'] for t in found.values()} == {'naive', 'saliency'}


def test_probes_have_their_own_rate_length_and_rule(folder):
    c = config(folder, **{'student.learning_rate': 3e-5, 'method.epochs': 7})
    found = {t.label: t.need for t in planned(c).targets if t.role == 'student' and t.seed == 0}
    probe, whole = found['probe xent'].section, found['xent'].section
    assert (probe['hyper']['learning_rate'], probe['epochs'], probe['stopping']['name']) == (1e-3, 7, 'calibrated')
    assert (whole['hyper']['learning_rate'], whole['epochs']) == (3e-5, 1) and 'stopping' not in whole
    c.method.rate = .1
    assert planned(c).targets[3].need.section['hyper']['learning_rate'] == .1


@pytest.mark.long
@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_all_five_are_measured_and_probes_read_the_tuned_backbone(folder, tmp_path, mode):
    c = config(folder, **{'student.mode': mode, 'seeds': (0,), 'train.keep': 'teacher'})
    results = experiment.run(c, tmp_path, io.StringIO())
    rows = {s['label']: s for s in results['students']}
    assert list(rows) == LABELS and rows['probe on truth']['oracle'] and 'oracle' not in rows['probe xent']
    made = planned(c)
    phases = {p.label: p for p in made.phases}
    after = next(p for p in made.phases if p.kind == 'features' and 'backbone' in p.needs and 'pool' in p.label)
    before = next(p for p in made.phases if p.kind == 'features' and 'backbone' not in p.needs and 'pool' in p.label
                  and p.section['model'] == after.section['model'])
    tuned, plain = (Artifact(tmp_path / 'store' / f'features-{p.id}').arrays['features'][:] for p in (after, before))
    assert np.abs(tuned - plain).max() > 1e-4
    # The student's own head on these features answers as the student does.
    params = Artifact(tmp_path / 'store' / f'fit-{phases["student xent"].id}').params()
    model = made.models['student']
    tokens = Artifact(tmp_path / 'store' / f'tokens-{after.needs["inputs"].id}').arrays
    inputs = {k: np.asarray(v)[:20] for k, v in tokens.items()}
    whole = model.apply(params, inputs, None if mode == 'full' else model.frozen(None))
    parts = model.backbone().apply({'head': params['head']}, {'features': tuned[:20]})
    np.testing.assert_allclose(whole, parts, atol=2e-4)
    with pytest.raises(ConfigError, match=r'a probe on the backbone that fit-\w+ trained cannot be exported'):
        export.write(tmp_path, 'student', LABELS[3], 0, tmp_path / 'out')


def test_adapters_are_merged_as_they_are_applied(folder):
    model = planned(config(folder, **{'student.mode': 'lora', 'student.lora.alpha': 32.})).models['student']
    params = model.init(jax.random.key(0), model.load(None))
    params[ADAPTERS] = jax.tree.map(lambda x: x + .02, params[ADAPTERS])
    merged = encode.tuned_backbone(model.backbone(), params, {'adapters': 32 / 8})
    inputs = {'tokens': np.arange(1, 21).reshape(2, 1, 10).astype(np.int32), 'length': np.array([[10], [7]], np.int32)}
    features = model.backbone().featurize(merged, inputs)
    plain = model.backbone().featurize(model.frozen(None), inputs)
    head = jax.tree.map(lambda x: x + np.linspace(-1, 1, x.size).reshape(x.shape), params['head'])
    whole = model.apply(params | {'head': head}, inputs, model.frozen(None))
    np.testing.assert_allclose(model.backbone().apply({'head': head}, {'features': features}), whole, atol=1e-4)
    assert np.abs(np.asarray(features) - np.asarray(plain)).max() > 1e-2


def test_the_scale_of_adapters_is_in_the_id(folder):
    def features(**changes):
        made = planned(config(folder, **{'student.mode': 'lora', **changes}))
        return {p.section.get('adapters') for p in made.phases if p.kind == 'features' and 'backbone' in p.needs}
    assert features() == {2.} and features(**{'student.lora.alpha': 4.}) == {.5}


@pytest.mark.parametrize(('changes', 'said'), [
    ({'student.mode': 'probe'}, "student.mode: 'probe', but method 'saliency' fine-tunes the student's backbone"),
    ({'method.epochs': 0}, 'method.epochs: 0, expected a number in [1'),
    ({'method.rate': 0.}, 'method.rate: 0.0, expected a number in (0')])
def test_what_cannot_be(folder, changes, said):
    assert refused(config(folder, **changes)).startswith(said)


def test_a_model_without_a_backbone():
    from configs import salient_concept
    c = salient_concept.get_config()
    c.method.name = 'saliency'
    assert refused(configs.compose(c)).startswith("student.model: 'mlp-128' has no backbone")


@pytest.mark.parametrize(('leak', 'said'), [
    (lambda b, half, labels, probe, tuned, top: b.fit('student', probe, half, labels, backbone=top),
     "student 's': comes from ceiling (ceiling), which saw the truth"),
    (lambda b, half, labels, probe, tuned, top: b.fit('ceiling', probe, half, b.truth, backbone=tuned),
     "student 's': comes from ceiling (ceiling), which saw the truth"),
    (lambda b, half, labels, probe, tuned, top: b.fit('student', probe, half, b.truth, backbone=tuned),
     'student xent: is given the truth (targets)'),
    (lambda b, half, labels, probe, tuned, top: b.fit('student', b.student, half, b.label(
        b.fit('ceiling', probe, half, b.truth, backbone=tuned), half)),
     "student 's': comes from ceiling (ceiling), which saw the truth")])
@pytest.mark.usefixtures('_registry')
def test_truth_does_not_reach_students_through_backbones_and_probes(folder, leak, said):
    @METHODS.register('leaky')
    def leaky(b):
        for seed in b.seeds:
            weak, labels = b.weak_labels(seed)
            half = b.halves[seed].student
            b.weak(weak, labels)
            top = b.fit('ceiling', b.student, half, b.truth)
            b.ceiling(top)
            tuned = b.fit('student', b.student, half, labels)
            b.students([leak(b, half, labels, b.student.backbone(), tuned, top)], label='s')
    c = config(folder)
    c.method.name = 'leaky'
    del c.method['epochs'], c.method['rate']
    assert refused(c).startswith(said)


def test_the_config_of_the_paper():
    c = configs.validate(paper.get_config('lora,files'))
    assert (c.method.name, c.task.name, c.student.mode) == ('saliency', 'files', 'lora')
