"""The examples of docs/extending.md, each a file of one's own named in `config.plugins`, run as a user runs them."""
import io
import json
import pathlib
import re
import sys

import numpy as np
import pytest

from w2s_jax import config as configs
from w2s_jax.diagnostics import DIAGNOSTICS
from w2s_jax.engine import experiment, grid, sweep
from w2s_jax.errors import ConfigError
from w2s_jax.graph import source
from w2s_jax.labels.sources import SOURCES
from w2s_jax.labels.transforms import TRANSFORMS
from w2s_jax.losses import LOSSES
from w2s_jax.methods import METHODS
from w2s_jax.models.zoo import MODELS
from w2s_jax.objectives import OBJECTIVES
from w2s_jax.phases.tables import TABLES
from w2s_jax.report import page, tables
from w2s_jax.store.artifacts import Artifact
from w2s_jax.tasks import TASKS
from w2s_jax.train.stopping import STOPPING

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'extending.md'
REGISTRIES = (DIAGNOSTICS, SOURCES, TRANSFORMS, LOSSES, METHODS, MODELS, OBJECTIVES, TABLES, TASKS, STOPPING)


def examples() -> dict[str, str]:
    """Name of the file -> the Python block of the docs that begins with it as a comment."""
    blocks = re.findall(r'```python\n(# (\w+)\.py\n.*?)```', DOCS.read_text(), re.DOTALL)
    return {name: text for text, name in blocks}


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function that writes an example, or any text, as a module, and forgets it after the test."""
    before = [dict(r.entries) for r in REGISTRIES]
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def write(name: str, text: str | None = None) -> str:
        (tmp_path / f'{name}.py').write_text(examples()[name] if text is None else text)
        sys.modules.pop(name, None)
        made.append(name)
        return name
    yield write
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.entries.clear()
        registry.entries.update(entries)
    for name in made:
        sys.modules.pop(name, None)


def base(*plugins: str, **fields):
    c = configs.default_config()
    c.task.name, c.student.model, c.teacher.model = 'salient_concept', 'mlp-32', 'mlp-4'
    c.task.train_size, c.task.test_size, c.seeds, c.plugins = 800, 400, (0, 1), plugins
    c.train.epochs, c.optimizer.learning_rate, c.report.html = 3, 5e-3, False
    for field, value in fields.items():
        *path, name = field.split('__')
        node = c
        for part in path:
            node = node[part] if part in node else node.setdefault(part, type(c)())
        node[name] = value
    return c


def run(config, folder) -> dict:
    return experiment.run(config, folder, io.StringIO())


def student(results, label) -> dict:
    return next(s for s in results['students'] if s['label'] == label)


def artifact(folder, identity, kind='fit') -> Artifact:
    return Artifact(folder / 'store' / f'{kind}-{identity}')


def short(text: str, lines: int) -> bool:
    """Whether an example is as short as promised, its comments and empty lines not counted."""
    return sum(bool(line.strip()) and not line.strip().startswith('#') for line in text.splitlines()) <= lines


def test_examples_are_short():
    found = examples()
    assert len(found) == 11
    for name, text in found.items():
        assert short(text, 30), name
        assert not re.search(r'\w\._\w', text), f'{name} touches a private name'


@pytest.mark.long
def test_a_loss_with_a_traced_setting_sweeps_in_one_program(plugin, tmp_path):
    config = base(plugin('my_window'), method__baselines=(), student__loss__name='my_window')
    cells = sweep.values('student.loss.radius', [.05, .2, .4])
    found = grid.run(config, cells, tmp_path / 'w', io.StringIO())
    trained = [p for p in found['phases'] if p['kind'] == 'student']
    assert len(trained) == 6 and {p['runs'] for p in trained} == {6} and {p['programs'] for p in trained} == {1}
    with pytest.raises(ConfigError, match=r'student\.loss\.radius: 0\.9, expected a number in \[0, 0\.5\]'):
        grid.run(config, sweep.values('student.loss.radius', [.9]), tmp_path / 'x', io.StringIO())


@pytest.mark.long
def test_a_loss_edited_in_its_file_trains_again(plugin, tmp_path):
    """The stale result: the same command, the sign of the loss flipped in its file."""
    text = examples()['my_window']
    first = run(base(plugin('my_window', text), student__loss__name='my_window'), tmp_path / 'w')
    again = run(base(plugin('my_window', text), student__loss__name='my_window'), tmp_path / 'w')
    assert student(first, 'my_window')['ids'] == student(again, 'my_window')['ids']
    assert all(p['skipped'] for p in again['timing']['phases'])
    flipped = text.replace('return loss', 'return -loss')
    assert flipped != text
    LOSSES.entries.pop('my_window')
    other = run(base(plugin('my_window', flipped), student__loss__name='my_window'), tmp_path / 'w')
    fresh = run(base(plugin('my_window', flipped), student__loss__name='my_window'), tmp_path / 'fresh')
    assert not set(student(first, 'my_window')['ids']) & set(student(other, 'my_window')['ids'])
    assert student(other, 'my_window')['accuracy'] == student(fresh, 'my_window')['accuracy']
    assert student(other, 'my_window')['accuracy'] != student(first, 'my_window')['accuracy']
    assert student(other, 'xent')['ids'] == student(first, 'xent')['ids']


@pytest.mark.long
def test_a_helper_beside_a_plugin_counts_too(plugin, tmp_path):
    text = ("from my_helper import SIGN\n" + examples()['my_window']).replace('return loss', 'return SIGN * loss')
    ids = []
    for sign in (1, -1):
        plugin('my_helper', f'SIGN = {sign}\n')
        LOSSES.entries.pop('my_window', None)
        ids.append(student(run(base(plugin('my_window', text), student__loss__name='my_window', train__epochs=1),
                               tmp_path / 'w'), 'my_window')['ids'])
    assert not set(ids[0]) & set(ids[1])


@pytest.mark.long
def test_teachers_weights_on_the_simplex(plugin, tmp_path):
    results = run(base(plugin('my_mixture'), method__name='two_teachers', student__loss__name='mixture'),
                  tmp_path / 'w')
    weights = np.array(student(results, 'mixture')['aux']['teacher_weights']['seeds'])
    assert weights.shape == (2, 2) and np.allclose(weights.sum(1), 1, atol=1e-5) and (weights > 0).all()
    assert not np.allclose(weights, .5)
    assert json.loads((tmp_path / 'w' / 'results.json').read_text())['students'] == results['students']


@pytest.mark.long
@pytest.mark.parametrize(('changes', 'tolerance'), [({'accumulate': 4}, 1e-4), ({'driver': 'pmap'}, 1e-4)])
@pytest.mark.parametrize('name', ['my_mixture', 'my_perturbed', 'my_pair'])
def test_objectives_are_exact_in_microbatches_and_on_eight_devices(plugin, tmp_path, name, changes, tolerance):
    """Training with the whole batch at once, and cut in pieces: the same losses."""
    loss = {'my_mixture': 'mixture', 'my_perturbed': 'perturbed', 'my_pair': 'pair'}[name]
    method = 'two_teachers' if name == 'my_mixture' else 'naive'
    found = []
    for i, change in enumerate(({}, changes)):
        config = base(plugin(name), method__name=method, student__loss__name=loss, train__epochs=1)
        config.seeds = (0,)
        config.train.update(change)
        results = run(config, tmp_path / str(i))
        found.append(artifact(tmp_path / str(i), student(results, loss)['ids'][0]).arrays['loss'])
    np.testing.assert_allclose(*found, atol=tolerance)


@pytest.mark.long
def test_two_networks_trained_together(plugin, tmp_path):
    results = run(base(plugin('my_pair'), student__loss__name='pair'), tmp_path / 'w')
    params = artifact(tmp_path / 'w', student(results, 'pair')['ids'][0]).params()
    assert set(params) == {'a', 'b'}
    assert student(results, 'pair')['aux']['agreement']['mean'] > .5


def test_an_input_perturbation_through_forward(plugin, tmp_path):
    results = run(base(plugin('my_perturbed'), student__loss__name='perturbed'), tmp_path / 'w')
    assert student(results, 'perturbed')['aux']['worse_by']['mean'] > 0


@pytest.mark.long
def test_a_filter_whose_student_has_fewer_rows(plugin, tmp_path):
    config = base(plugin('my_asked'), labels__transforms=('asked',))
    results = run(config, tmp_path / 'w')
    kept = [artifact(tmp_path / 'w', i).metrics['rows'] for i in student(results, 'xent')['ids']]
    ceiling = [artifact(tmp_path / 'w', i).metrics['rows'] for i in results['ceiling']['ids']]
    assert all(0 < k < c == 400 for k, c in zip(kept, ceiling, strict=True))
    plain = run(base(), tmp_path / 'plain')
    assert results['weak']['labels']['mean'] != plain['weak']['labels']['mean']
    cells = sweep.values('labels.asked.k', [3, 9])
    found = grid.run(config, cells, tmp_path / 'grid', io.StringIO())
    assert not any(c['failed'] for c in found['cells'])


def test_a_stopping_rule_without_truth(plugin, tmp_path):
    config = base(plugin('my_stop'), student__stopping__name='soft_agreement', train__evaluations=6)
    results = run(config, tmp_path / 'w')
    one = artifact(tmp_path / 'w', student(results, 'xent')['ids'][0]).metrics
    assert one['rows'] == 360 and len(one['stopped']['scores']) == 6
    assert student(results, 'xent')['stopped']['steps'][0] == one['stopped']['step']


@pytest.mark.long
def test_a_stopping_rule_killed_and_resumed_is_bit_identical(plugin, tmp_path, monkeypatch):
    from w2s_jax.train.runs import History
    config = base(plugin('my_stop'), student__stopping__name='soft_agreement', train__evaluations=6,
                  train__checkpoint_every=4)
    whole = run(config, tmp_path / 'a')
    record, calls = History.record, []
    for at in (4, 9, 13):
        with monkeypatch.context() as patch:
            def interrupted(*given, at=at):
                record(*given)
                calls.append(1)
                if len(calls) == at:
                    raise KeyboardInterrupt
            patch.setattr(History, 'record', interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(config, tmp_path / 'b')
    resumed = run(config, tmp_path / 'b')
    assert resumed['students'] == whole['students']
    for i in student(whole, 'xent')['ids']:
        for file in ('predictions.npz', 'params/model.safetensors'):
            a, b = (artifact(tmp_path / name, i).file(file).read_bytes() for name in 'ab')
            assert a == b


def test_fine_tuned_again_with_another_head(plugin, tmp_path):
    results = run(base(plugin('my_twice'), method__name='twice'), tmp_path / 'w')
    phases = [p for p in results['timing']['phases'] if p['name'] == 'second']
    assert len(phases) == 2 and {p['runs'] for p in phases} == {2}


@pytest.mark.long
def test_a_diagnostic_outlives_its_plugin(plugin, tmp_path):
    config = base(plugin('my_diagnostic'), report__diagnostics=('sure_and_wrong',))
    results = run(config, tmp_path / 'w')
    measure = student(results, 'xent')['measures']['sure_and_wrong']
    assert measure['title'] == 'wrong though sure %' and len(measure['seeds']) == 2
    risk = student(results, 'xent')['series']['risk']
    assert risk['x'][-1] == 100 and risk['y'][-1] == pytest.approx(
        100 * (1 - student(results, 'xent')['accuracy']['mean']))
    del DIAGNOSTICS.entries['sure_and_wrong']
    page.write(tmp_path / 'w')
    text = (tmp_path / 'w' / 'report.html').read_text()
    assert 'wrong though sure %' in text and '>Risk and coverage</h' in text
    table = tables.students(tables.load(tmp_path / 'w'))
    assert table['sure_and_wrong'].notna().all()
    assert 'sure_and_wrong' in (tmp_path / 'w' / 'results.csv').read_text().splitlines()[0]


@pytest.mark.long
def test_two_test_sets_each_with_a_headline(plugin, tmp_path):
    results = run(base(plugin('my_task'), task__name='two_worlds'), tmp_path / 'w')
    row = student(results, 'xent')
    assert row['tests']['elsewhere']['accuracy']['mean'] != row['accuracy']['mean']
    assert {'accuracy', 'pgr', 'gain'} <= row['tests']['elsewhere'].keys()
    page.write(tmp_path / 'w')
    assert (tmp_path / 'w' / 'report.html').read_text().count('elsewhere') >= 2


@pytest.mark.long
def test_a_model_with_a_setting_of_its_own(plugin, tmp_path):
    config = base(plugin('my_model'), student__model='cosine', method__baselines=())
    cells = sweep.values('student.width', [8, 16])
    found = grid.run(config, cells, tmp_path / 'w', io.StringIO())
    assert not any(c['failed'] for c in found['cells'])
    trained = [p for p in found['phases'] if p['kind'] == 'student']
    assert len({p['id'] for p in trained}) == 4 and {p['runs'] for p in trained} == {2}


@pytest.mark.long
def test_weights_of_rows(tmp_path):
    """Weights of one change nothing; rows of weight zero could as well have any label."""
    def wired(name, weigh):
        @METHODS.register(name)
        def weighed(b):
            for seed in b.seeds:
                weak, labels = b.weak_labels(seed)
                b.weak(weak, labels)
                half = b.halves[seed].student
                b.ceiling(b.fit('ceiling', b.student, half, b.truth))
                columns, targets = weigh(len(half), b.column(half).need.value)
                b.students([b.fit('student', b.student, half, source(targets), columns=columns)], label='s')
        results = run(base(method__name=name, labels__source='column'), tmp_path / name)
        return artifact(tmp_path / name, student(results, 's')['ids'][0]).arrays['loss']
    before = dict(METHODS.entries)
    try:
        odd = lambda n: source((np.arange(n) % 2).astype(np.float32))
        spoiled = lambda given: np.where(np.arange(len(given))[:, None] % 2, given, given[:, ::-1])
        plain, ones = wired('plain', lambda n, t: ({}, t)), wired(
            'ones', lambda n, t: ({'weight': source(np.ones(n, np.float32))}, t))
        np.testing.assert_array_equal(plain, ones)
        half, other = wired('half', lambda n, t: ({'weight': odd(n)}, t)), wired(
            'other', lambda n, t: ({'weight': odd(n)}, spoiled(t)))
        np.testing.assert_array_equal(half, other)
        assert not np.array_equal(half, plain)
    finally:
        METHODS.entries.clear()
        METHODS.entries.update(before)


@pytest.fixture
def words(tmp_path):
    """A tiny language model, and texts of letters whose class is whether there is a 'z'."""
    import tiny
    from words import sentences
    path = tmp_path / 'words.jsonl'
    path.write_text('\n'.join(map(json.dumps, sentences(160))))
    return tiny.folder(tmp_path / 'model'), path


def language(words, *plugins):
    from configs import own_data
    c = own_data.get_config()
    c.task.path, c.task.text, c.task.label = str(words[1]), 'text', 'label'
    c.teacher.model = c.student.model = str(words[0])
    c.teacher.mode = c.student.mode = 'full'
    c.seeds, c.train.epochs, c.train.evaluations, c.report.html, c.train.batch_size = (0,), 1, 1, False, 16
    c.plugins, c.student.loss.name, c.train.checkpoint_every = plugins, 'xent', 1
    return c


@pytest.mark.long
def test_texts_that_a_later_phase_trains_on_also_through_kills(plugin, tmp_path, words, monkeypatch):
    from w2s_jax.phases import tables as kinds
    from w2s_jax.train.runs import History
    config = language(words, plugin('my_texts'))
    config.method.name = 'rewritten'
    whole = run(config, tmp_path / 'a')
    table, = (tmp_path / 'a' / 'store').glob('table-*')
    texts = Artifact(table).arrays['text']
    assert all(text.endswith(' again') for text in np.ravel(texts[:5]))
    record, entry = History.record, TABLES['ending']

    def interrupted(*given):
        raise KeyboardInterrupt
    for target, name in ((kinds, 'named'), (History, 'record')):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(config, tmp_path / 'b')
    assert (History.record, TABLES['ending']) == (record, entry)
    assert run(config, tmp_path / 'b')['students'] == whole['students']
    config.method.word = 'more'
    assert student(run(config, tmp_path / 'c'), 'xent')['ids'] != student(whole, 'xent')['ids']


@pytest.mark.long
def test_weak_labels_in_a_column_of_one_s_own_file(tmp_path, words):
    from words import sentences
    rows = [row | {'guess': row['label'] if i % 5 else 'with'} for i, row in enumerate(sentences(160))]
    words[1].write_text('\n'.join(map(json.dumps, rows)))
    config = language(words)
    config.labels.source, config.task.weak = 'column', 'guess'
    results = run(config, tmp_path / 'w')
    assert results['weak']['model'] == 'given' and .8 < results['weak']['labels']['mean'] < 1
    config.task.weak = ''
    with pytest.raises(ConfigError, match=r"^labels.source: 'column', but task 'files' brings no weak labels"):
        run(config, tmp_path / 'x')


def test_two_variants_of_one_method_are_two_rows_and_are_compared(plugin, tmp_path):
    config = base(plugin('my_twice'))
    cells = [{'method.name': 'naive'}, {'method.name': 'twice', 'method.head': 'new'},
             {'method.name': 'twice', 'method.head': 'kept'}]
    found = grid.run(config, cells, tmp_path / 'w', io.StringIO())
    assert len(found['comparisons']) == 2
    assert {c['settings']['method.head'] for c in found['comparisons']} == {'new', 'kept'}
    table = tables.students(tables.load(tmp_path / 'w'))
    assert len(table) == 3 and not table.duplicated(subset=['method', 'label', 'method.head']).any()
