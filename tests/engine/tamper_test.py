"""Whatever is changed in a store is noticed when it is used, or by `w2s store verify`; nothing is used silently."""
import io
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from w2s_jax import config as configs
from w2s_jax.engine import experiment
from w2s_jax.engine import plan as plans
from w2s_jax.errors import StoreError
from w2s_jax.store import command

pytestmark = pytest.mark.long


def config():
    c = configs.default_config()
    c.task.name, c.teacher.model, c.student.model = 'salient_concept', 'mlp-4', 'mlp-32'
    c.task.train_size, c.task.test_size, c.train.epochs, c.seeds = 400, 200, 1, (0, 1)
    c.report.html, c.report.resamples = False, 100
    return c


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tamper') / 'w'
    experiment.run(config(), folder, io.StringIO())
    return folder


class Workdir:
    """A copy of a finished work directory. `of(role, seed)` is an artifact's folder; `ran`, the phases."""

    def __init__(self, folder):
        self.folder, self.store = folder, folder / 'store'
        self.ran = plans.prepare(plans.ready(config()), lambda *a: None).phases

    def of(self, role, seed=0):
        phase = next(p for p in self.ran if (p.role or p.kind) == role and p.seed in (seed, None))
        return self.store / f'{phase.kind}-{phase.id}'

    def forget(self, *roles):
        """What is computed from something, so that it is read again."""
        for phase in self.ran:
            if (phase.role or phase.kind) in roles:
                shutil.rmtree(self.store / f'{phase.kind}-{phase.id}')

    def accuracies(self):
        """Of every run. One that is trained again alone may differ in its last bits, and so in an answer."""
        found = json.loads((self.folder / 'results.json').read_text())
        return [e['accuracy']['seeds'] for e in (found['weak'], found['ceiling'], *found['students'])]


def arrays(path, change):
    with np.load(path / 'predictions.npz') as found:
        changed = {k: change(k, v) for k, v in found.items()}
    np.savez(path / 'predictions.npz', **changed)


def weights(path, change):
    file = path / 'params' / 'model.safetensors'
    safetensors.numpy.save_file({k: change(v) for k, v in safetensors.numpy.load_file(file).items()}, file)


def edited(path, name, change):
    (path / name).write_text(json.dumps(change(json.loads((path / name).read_text()))))


def swap(one, other, name=''):
    aside = one.parent / 'aside'
    for a, b in ((one / name, aside), (other / name, one / name), (aside, other / name)):
        a.rename(b)


def bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def older(path):
    """All files of another run of the same kind, but for the folder's name."""
    other = next(p for p in path.parent.glob(f'{path.name.partition("-")[0]}-*') if p != path)
    shutil.rmtree(path)
    shutil.copytree(other, path)


TAMPERS = {  # what -> (the artifact's role, what is done to its folder)
    'labels rewritten': ('label', lambda p: arrays(p, lambda k, v: v[:, ::-1])),
    'labels of another type': ('label', lambda p: arrays(p, lambda k, v: v.astype(np.float16))),
    'a label more': ('label', lambda p: arrays(p, lambda k, v: np.concatenate([v, v[:1]]))),
    'signs of a teacher flipped': ('teacher', lambda p: weights(p, lambda v: -v)),
    'a teacher that is not finite': ('teacher', lambda p: weights(p, lambda v: v * np.nan)),
    'a bit of a teacher': ('teacher', lambda p: bit(p / 'params' / 'model.safetensors')),
    'a teacher without parameters': ('teacher', lambda p: shutil.rmtree(p / 'params')),
    'predictions of a student rewritten': ('student', lambda p: arrays(p, lambda k, v: v[::-1])),
    'predictions of a ceiling rewritten': ('ceiling', lambda p: arrays(p, lambda k, v: v[::-1])),
    'a bit of the predictions': ('student', lambda p: bit(p / 'predictions.npz')),
    'predictions truncated': ('student', lambda p: (p / 'predictions.npz').write_bytes(b'PK')),
    'no predictions': ('student', lambda p: (p / 'predictions.npz').unlink()),
    'predictions that are a folder': ('student', lambda p: ((p / 'predictions.npz').unlink(),
                                                            (p / 'predictions.npz').mkdir())),
    'metrics of a student edited': ('student', lambda p: edited(p, 'metrics.json', lambda m: m | {'steps': 1})),
    'metrics of the evaluation edited': ('evaluate', lambda p: edited(p, 'metrics.json', lambda m: m | {'x': 1})),
    'metrics truncated': ('evaluate', lambda p: (p / 'metrics.json').write_text('{')),
    'no metrics': ('evaluate', lambda p: (p / 'metrics.json').unlink()),
    'a config edited': ('student', lambda p: edited(p, 'config.json', lambda c: c | {'format': 0})),
    'no config': ('student', lambda p: (p / 'config.json').unlink()),
    'FAILED planted': ('student', lambda p: (p / 'FAILED').touch()),
    'a checksum edited': ('student', lambda p: edited(p, 'DONE', lambda s: s | {'predictions.npz': '0' * 64})),
    'DONE that names no file': ('student', lambda p: (p / 'DONE').write_text('{}')),
    'DONE that is no JSON': ('student', lambda p: (p / 'DONE').write_text('\x00')),
    'student and ceiling swapped': ('student', lambda p: swap(p, p.parent / WHERE['ceiling'])),
    'predictions of student and ceiling swapped': ('student', lambda p: swap(p, p.parent / WHERE['ceiling'],
                                                                             'predictions.npz')),
    'the files of another run': ('student', older),
    'a link to another run': ('student', lambda p: (shutil.rmtree(p), p.symlink_to(p.parent / WHERE['ceiling']))),
}
DOWNSTREAM = {'teacher': ('label', 'student', 'evaluate'), 'label': ('student', 'evaluate'), 'student': ('evaluate',),
              'ceiling': ('evaluate',), 'evaluate': ()}
WHERE: dict[str, str] = {}


@pytest.mark.parametrize('what', TAMPERS)
def test_what_is_changed_is_noticed_when_it_is_used(whole, tmp_path, what):
    role, change = TAMPERS[what]
    copy = Workdir(shutil.copytree(whole, tmp_path / 'w'))
    WHERE['ceiling'] = copy.of('ceiling').name
    change(copy.of(role))
    linked = copy.of(role).is_symlink()  # into which `verify` does not go
    assert linked or command.main(['verify', f'--store={copy.store}']) == 1
    copy.forget(*DOWNSTREAM[role])
    with pytest.raises(StoreError) as e:
        experiment.run(config(), copy.folder, io.StringIO())
    assert '\n' not in str(e.value) and str(copy.store) in str(e.value) and 'delete' in str(e.value)
    assert 'learning rate' not in str(e.value)
    if linked:
        copy.of(role).unlink()
    assert command.main(['verify', f'--store={copy.store}', '--delete']) == 0
    experiment.run(config(), copy.folder, io.StringIO())
    np.testing.assert_allclose(copy.accuracies(), Workdir(whole).accuracies(), atol=.0051)


@pytest.mark.parametrize('what', ['no DONE', 'a rest of a killed process', 'no folder'])
def test_what_is_no_artifact_any_more_is_computed_again(whole, tmp_path, what):
    copy = Workdir(shutil.copytree(whole, tmp_path / 'w'))
    path = copy.of('student')
    {'no DONE': lambda: (path / 'DONE').unlink(), 'no folder': lambda: shutil.rmtree(path),
     'a rest of a killed process': lambda: path.rename(path.with_name(f'.part-{path.name}-x.1.2'))}[what]()
    copy.forget('evaluate')
    experiment.run(config(), copy.folder, io.StringIO())
    np.testing.assert_allclose(copy.accuracies(), Workdir(whole).accuracies(), atol=.0051)
