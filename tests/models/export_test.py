"""A trained model leaves the work directory as a folder that gives the same answers."""
import io
import json

import numpy as np
import pytest
import tiny
from language_test import encoded
from words import own, sentences

from configs import salient_concept
from w2s_jax.engine import experiment, export
from w2s_jax.errors import ConfigError, StoreError, WeightsError
from w2s_jax.models import heads, hf
from w2s_jax.models.transformer import Transformer
from w2s_jax.store import trees
from w2s_jax.store.artifacts import Store
from w2s_jax.tasks import TASKS


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('export')
    path = folder / 'words.jsonl'
    path.write_text('\n'.join(map(json.dumps, sentences())))
    model = tiny.folder(folder / 'tiny')
    c = own(model, path, **{'teacher.mode': 'full', 'student.mode': 'lora', 'optimizer.learning_rate': .01,
                            'seeds': (5,), 'method.baselines': (), 'student.loss.name': 'xent', 'train.shapes': 1})
    experiment.run(c, folder / 'w', io.StringIO())
    return folder


def answers(folder, rows, place='last'):
    """Class logits of an exported folder, computed from it alone."""
    checkpoint, inputs = hf.read(folder), encoded(folder, rows)
    length = inputs['length'][:, 0]
    hidden = Transformer(checkpoint.config).apply({'params': hf.load(folder)}, inputs['tokens'][:, 0], length)
    head = trees.load(folder / export.HEAD)
    return np.asarray(heads.read_out(hidden, length, place)) @ head['classes'] + head['bias']


@pytest.mark.long
@pytest.mark.parametrize('kind', ['teacher', 'student'])
def test_an_exported_model_answers_as_the_trained_one(trained, kind):
    out = trained / kind
    export.write(trained / 'w', kind, 'xent', 5, out)
    c = own(trained / 'tiny', trained / 'words.jsonl')
    rows = TASKS['files'].fn(c.task, lambda *a: None).test.inputs['text']
    logits = np.asarray(answers(out, rows))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    stored = export.find(trained / 'w', kind, 'xent', 5).arrays
    want = np.take_along_axis(chances, stored['test.top'], 1)
    np.testing.assert_allclose(stored['test.top_probability'], want, atol=1e-4)
    before = hf.load(trained / 'tiny')['layers']['attention']['query']['kernel']
    assert np.abs(hf.load(out)['layers']['attention']['query']['kernel'] - before).max() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize(('kind', 'place'), [('student', 'mean'), ('teacher', 'last')])
def test_an_exported_probe_has_what_its_features_were_scaled_by_in_its_head(trained, tmp_path, kind, place):
    c = own(trained / 'tiny', trained / 'words.jsonl', **{
        'teacher.mode': 'probe', 'student.mode': 'probe', 'student.read_out': 'mean', 'student.layers': 1,
        'teacher.stopping.name': '', 'student.stopping.name': '',
        'optimizer.learning_rate': .05, 'seeds': (5,), 'method.baselines': (), 'student.loss.name': 'xent'})
    experiment.run(c, tmp_path / 'w', io.StringIO())
    export.write(tmp_path / 'w', kind, 'xent', 5, tmp_path / 'out')
    rows = TASKS['files'].fn(c.task, lambda *a: None).test.inputs['text']
    logits = np.asarray(answers(tmp_path / 'out', rows, place))
    stored = export.find(tmp_path / 'w', kind, 'xent', 5).arrays
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    want = np.take_along_axis(chances, stored['test.top'], 1)
    np.testing.assert_allclose(stored['test.top_probability'], want, atol=1e-4)
    assert abs(trees.load(tmp_path / 'out' / export.HEAD)['bias']).max() > 1e-2 and np.ptp(logits[:, 0]) > .05
    assert hf.read(tmp_path / 'out').config.num_layers == (1 if kind == 'student' else 2)
    assert '.sum(1) / mask' in export.snippet(tmp_path / 'out') or place == 'last'


@pytest.mark.long
def test_what_cannot_be_exported(trained):
    with pytest.raises(StoreError, match=r"no student 'xent' with seed 6, expected one of: xent seed 5"):
        export.write(trained / 'w', 'student', 'xent', 6, trained / 'x')
    with pytest.raises(WeightsError, match='would overwrite'):
        export.write(trained / 'w', 'student', 'xent', 5, trained / 'tiny')
    (trained / 'tiny' / 'config.json').write_text((trained / 'tiny' / 'config.json').read_text() + ' ')
    with pytest.raises(StoreError, match='not the weights'):
        export.write(trained / 'w', 'student', 'xent', 5, trained / 'x')


def test_of_several_an_id_tells_which(tmp_path):
    saved = [Store(tmp_path / 'store').save({'kind': 'fit', 'section': {'model': {'model': 'm'}, 'n': n}}, {})
             for n in (0, 1)]
    ids = sorted(a.path.name.removeprefix('fit-') for a in saved)
    for name in ids:
        cell = tmp_path / 'cells' / name
        cell.mkdir(parents=True)
        students = [{'label': 'xent', 'ids': [name]}]
        (cell / 'results.json').write_text(json.dumps({'weak': {}, 'ceiling': {}, 'students': students}))
        (cell / 'evaluation.json').write_text('{"config": {"seeds": [0]}}')
    with pytest.raises(StoreError, match=r'2 times student .* expected --phase') as e:
        export.find(tmp_path, 'student', 'xent', 0)
    assert str(e.value).endswith(f'one of: {ids[0]} (m), {ids[1]} (m)')
    assert export.find(tmp_path, 'student', 'xent', 0, ids[1]).path.name == f'fit-{ids[1]}'


def test_a_model_that_is_no_language_model(tmp_path):
    c = salient_concept.get_config()
    c.seeds, c.task.train_size, c.task.test_size, c.report.html = (0,), 200, 50, False
    experiment.run(c, tmp_path, io.StringIO())
    with pytest.raises(ConfigError, match=r"student.model: 'mlp-128' is no language model"):
        export.write(tmp_path, 'student', 'xent', 0, tmp_path / 'x')
