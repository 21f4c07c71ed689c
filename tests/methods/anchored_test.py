"""Students held to what the pretrained model reads (objective `anchored`), in full and with adapters."""
import io
import json

import jax
import numpy as np
import pytest
import tiny
from words import own, sentences

from w2s_jax import config as configs
from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError
from w2s_jax.store.artifacts import Artifact


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('anchored')
    tiny.folder(folder / 'tiny')
    (folder / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(160))))
    return folder


def config(folder, **changes):
    keys = {'method.baselines': ('xent',), 'student.mode': 'full', 'train.keep': 'all',
            'optimizer.learning_rate': .01, 'train.epochs': 2, 'seeds': (0,), 'report.examples': 5} | changes
    c = own(folder / 'tiny', folder / 'rows.jsonl', **{'student.loss.name': 'anchored'})
    c.labels.transforms = keys.pop('labels.transforms', ())
    c = configs.compose(c)
    c.update_from_flattened_dict(keys)
    return c


def students(c, where):
    """What was trained, by label."""
    experiment.run(c, where, io.StringIO())
    content = json.loads((where / 'results.json').read_text())
    return {s['label']: Artifact(where / 'store' / f'fit-{s["ids"][0]}') for s in content['students']}


def by_hand(c, where, phase):
    """The mean over the pool's rows learned of |h - h_0|^2 / |h_0|^2 after training, from the stored parameters."""
    found = plan.prepare(plan.ready(c), lambda *a: None)
    model = found.models['student'].shown()
    [fit] = [p for p in found.phases if p.id == phase.path.name.removeprefix('fit-')]
    tokens = next(Artifact(where / 'store' / f'tokens-{p.id}') for p in found.phases
                  if p.kind == 'tokens' and p.label == 'tokens of the pool').arrays
    rows = fit.needs['rows'].value
    inputs = {k: np.asarray(v)[rows] for k, v in tokens.items()}
    start, frozen = model.init(jax.random.key(0), model.load(None)), model.frozen(None)
    before, after = (np.asarray(model.apply(p, inputs, frozen)[1], np.float64) for p in (start, phase.params()))
    return np.mean(((after - before) ** 2).sum(-1) / (before ** 2).sum(-1))


@pytest.mark.parametrize('mode', ['full', pytest.param('lora', marks=pytest.mark.long)])
def test_a_strong_anchor_holds_what_the_head_reads(folder, tmp_path, mode):
    drifts = {}
    for strength in (0., 1000.):
        c, where = config(folder, **{'student.mode': mode, 'student.loss.strength': strength}), tmp_path / str(
            strength)
        found = students(c, where)
        drifts[strength] = by_hand(c, where, found['anchored'])
        if strength == 0:
            np.testing.assert_allclose(found['anchored'].arrays['test.top_probability'],
                                       found['xent'].arrays['test.top_probability'], atol=1e-6)
    assert 0 < drifts[1000.] < .5 * drifts[0.]


def test_a_probe_has_nothing_to_hold(folder):
    with pytest.raises(ConfigError, match=r"^objective 'anchored': compares what the head of .*, expected a pretrained "
                                          'model of mode full or lora'):
        plan.prepare(plan.ready(config(folder, **{'student.mode': 'probe'})), lambda *a: None)


def test_rows_that_a_filter_drops(folder, tmp_path):
    found = students(config(folder, **{'labels.transforms': ('confident',), 'train.epochs': 1}), tmp_path)
    assert len(found['anchored'].arrays['loss']) == len(found['xent'].arrays['loss']) > 0
