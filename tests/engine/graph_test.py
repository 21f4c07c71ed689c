"""Identity, order and company of phases; and that whatever ends a run, the next one goes on from there."""
import dataclasses
import json

import numpy as np
import pytest

from w2s_jax import graph
from w2s_jax.engine import execute as execution
from w2s_jax.graph import Phase, Source
from w2s_jax.store.artifacts import Store

INPUTS, TEST = Source('in', 'all inputs'), Source('test', 'test inputs')


def fit(kind='student', label='a', targets=None, rows='rows', **section) -> Phase:
    hyper = {'seed': 0, 'learning_rate': .1, 'alpha': .5}
    hyper |= {k: section.pop(k) for k in list(section) if k in hyper}
    section = {'hyper': hyper, 'loss': 'xent', 'epochs': 2} | section
    needs = {'inputs': INPUTS, 'predict/test': TEST, 'rows': Source(rows, rows)}
    return Phase(kind, section, needs | {'targets': targets or Source('truth', 'truth')}, label)


def small_graph(seeds=(0, 1, 2), losses=('xent', 'confidence')) -> Phase:
    """Per seed a teacher, its labels and students; then the evaluation."""
    needs: dict[str, Phase | Source] = {'truth': Source('t', 'test truth')}
    for seed in seeds:
        teacher = fit('teacher', seed=seed, rows=f'a{seed}')
        labels = Phase('label', {'hyper': {'seed': seed}}, {'inputs': INPUTS, 'teacher': teacher}, 'labels')
        needs[f'weak/{seed}'] = teacher
        for loss in losses:
            student = fit(label=f'student {loss}', targets=labels, rows=f'b{seed}', seed=seed, loss=loss)
            needs[f'{loss}/{seed}'] = student
    return Phase('evaluate', {'seeds': list(seeds)}, needs, 'evaluation')


class Recorder:
    """A `run` that writes down who ran together, and dies on demand."""

    def __init__(self):
        self.units, self.inputs, self.folders, self.fail = [], {}, [], None

    def __call__(self, phases, inputs, folder):
        self.units.append([p.id for p in phases])
        self.inputs |= dict(zip([p.id for p in phases], inputs, strict=True))
        self.folders.append(folder)
        (folder / 'checkpoint').mkdir(exist_ok=True)
        if self.fail is not None and self.fail in (p.kind for p in phases):
            raise RuntimeError('killed')
        return [({'kind': p.kind, 'company': len(phases)}, {'id': np.array(-1 if p.seed is None else p.seed)}, None)
                for p in phases]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def execute(target, store, run, **kwargs):
    return execution.execute([target], store, run, report=lambda text: None, **kwargs)


def artifacts(store) -> set[str]:
    return {p.parent.name for p in store.folder.glob('*/DONE')}


def pending(store) -> list:
    return list((store.folder / 'pending').iterdir())


# Identity


@pytest.mark.parametrize('other', [
    fit(seed=1), fit(learning_rate=.2), fit(loss='product'), fit(kind='ceiling'), fit(rows='others'), fit(more=1),
    fit(targets=fit('teacher')), fit(targets=Source('labels', 'truth')),
    dataclasses.replace(fit(), needs=fit().needs | {'extra': INPUTS}),
    dataclasses.replace(fit(), needs={k: v for k, v in fit().needs.items() if k != 'rows'}),
    dataclasses.replace(fit(), needs=fit().needs | {'inputs': TEST, 'predict/test': INPUTS})])
def test_an_id_depends_on_kind_section_and_needs(other):
    assert other.id != fit().id


def test_an_id_depends_on_nothing_else():
    same = [fit(label='another'), fit(targets=Source('truth', 'the same data from elsewhere')),
            dataclasses.replace(fit(), section=dict(reversed(fit().section.items())))]
    assert {p.id for p in same} == {fit().id}


def test_an_id_depends_on_what_needs_need():
    assert fit(targets=fit('teacher', seed=1)).id != fit(targets=fit('teacher', seed=2)).id
    assert fit(targets=fit('teacher', label='x')).id == fit(targets=fit('teacher', label='y')).id


def test_the_format_is_part_of_the_id(monkeypatch):
    before = fit().id
    monkeypatch.setattr(graph, 'FORMAT', graph.FORMAT + 1)
    assert fit().id != before


# Order and company


def test_order_is_topological_and_every_phase_is_there_once():
    target = small_graph()
    phases = graph.order([target, target, target.needs['weak/1'], small_graph()])
    ids = [p.id for p in phases]
    assert len(set(ids)) == len(ids) == 3 * 4 + 1
    for i, phase in enumerate(phases):
        assert {n.id for n in phase.needs.values() if isinstance(n, Phase)} <= set(ids[:i])


def test_groups_put_seeds_and_traced_numbers_together_and_programs_apart():
    together = [fit(seed=0), fit(seed=1), fit(learning_rate=.5), fit(alpha=.9), fit(rows='swor')]
    apart = [fit(rows='more rows'), fit(loss='product'), fit(epochs=3), fit(kind='ceiling'),
             dataclasses.replace(fit(), needs=fit().needs | {'inputs': Source('other', '')})]
    assert {p.group for p in together} == {fit().group}
    assert len({p.group for p in [fit(), *apart]}) == len(apart) + 1


def test_groups_of_a_graph():
    phases = graph.order([small_graph()])
    groups = graph.groups(phases)
    assert [(len(g), g[0].kind) for g in groups] == [
        (3, 'teacher'), (3, 'label'), (3, 'student'), (3, 'student'), (1, 'evaluate')]
    assert sorted(p.id for g in groups for p in g) == sorted(p.id for p in phases)
    for group in groups:
        assert len({(p.kind, p.section.get('loss')) for p in group}) == 1


def test_phases_of_one_program_that_need_each_other_do_not_run_together():
    first = fit(seed=0)
    second = fit(seed=1, targets=first)
    assert first.group == second.group
    assert graph.groups(graph.order([second])) == [[first], [second]]


# Execution


def test_everything_runs_once_and_then_never_again(store):
    target, run = small_graph(), Recorder()
    done = execute(target, store, run)
    ran = [i for unit in run.units for i in unit]
    assert sorted(ran) == sorted(p.id for p in graph.order([target])) == sorted(done)
    assert [len(u) for u in run.units] == [3, 3, 3, 3, 1]
    assert len(artifacts(store)) == len(ran) and pending(store) == []
    again = Recorder()
    assert {k: a.path for k, a in execute(target, store, again).items()} == {k: a.path for k, a in done.items()}
    assert again.units == []


def test_another_graph_that_needs_the_same_shares_it(store):
    execute(small_graph(losses=('xent',)), store, Recorder())
    run = Recorder()
    target = small_graph(losses=('xent', 'confidence'))
    execute(target, store, run)
    kinds = {p.id: p.kind for p in graph.order([target])}
    assert [[kinds[i] for i in unit] for unit in run.units] == [['student'] * 3, ['evaluate']]


def test_a_phase_receives_its_needs_and_nothing_else(store):
    target, run = small_graph(), Recorder()
    done = execute(target, store, run)
    for phase in graph.order([target]):
        got = run.inputs[phase.id]
        assert got.keys() == phase.needs.keys()
        for name, need in phase.needs.items():
            if isinstance(need, Source):
                assert got[name] is need.value
            else:
                assert got[name].path == done[need.id].path == store.path(need.kind, need.id)
    assert 'test truth' not in [v for p in graph.order([target]) if p is not target for v in run.inputs[p.id].values()]


def test_what_was_computed_is_stored_with_what_its_id_is_the_hash_of(store):
    target = small_graph()
    for identity, artifact in execute(target, store, Recorder()).items():
        config = json.loads((artifact.path / 'config.json').read_text())
        assert graph.digest(config) == identity and artifact.metrics['kind'] == config['kind']


@pytest.mark.parametrize('kind', ['teacher', 'label', 'student', 'evaluate'])
def test_an_exception_leaves_no_artifact_and_the_work_goes_on_in_the_same_company(store, kind):
    target, first, second, whole = small_graph(), Recorder(), Recorder(), Recorder()
    first.fail = kind
    with pytest.raises(RuntimeError, match='killed'):
        execute(target, store, first)
    assert not any(name.startswith(kind) for name in artifacts(store))
    unit = first.folders[-1].parent
    assert pending(store) == [unit]  # with what was checkpointed in it
    assert json.loads((unit / 'members.json').read_text()) == first.units[-1]
    execute(target, store, second)
    assert second.units[0] == first.units[-1] and second.folders[0].parent == unit
    assert int(second.folders[0].name) > int(first.folders[-1].name)  # of another holder of the lease
    assert pending(store) == []
    execute(target, Store(store.folder / 'uninterrupted'), whole)
    assert first.units[:-1] + second.units == whole.units


def die_at_save(number: int, monkeypatch):
    """The `number`-th artifact to be saved is the last thing that the process would have done."""
    save, left = Store.save, [number]

    def mortal(self, *args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return save(self, *args)
    monkeypatch.setattr(Store, 'save', mortal)


@pytest.mark.parametrize('number', range(13))
def test_killed_between_two_saves_a_unit_is_done_again_as_a_whole(store, monkeypatch, number):
    target, first, second = small_graph(), Recorder(), Recorder()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        die_at_save(number, patch)
        execute(target, store, first)
    assert len(artifacts(store)) == number
    before = {p: p.stat().st_mtime_ns for p in store.folder.glob('*/*') if p.is_file()}
    done = execute(target, store, second)
    assert second.units[0] == first.units[-1]
    assert {a.metrics['company'] for a in done.values() if a.metrics['kind'] != 'evaluate'} == {3}
    assert {p: p.stat().st_mtime_ns for p in before if p.exists()} == before  # what was stored stays as it was
    assert pending(store) == []


def test_a_begun_unit_is_finished_in_its_company_where_the_group_has_grown(store):
    first, second = Recorder(), Recorder()
    first.fail = 'teacher'
    with pytest.raises(RuntimeError):
        execute(small_graph(seeds=(0, 2)), store, first)
    target = small_graph(seeds=(0, 1, 2, 3))
    execute(target, store, second)
    teachers = [target.needs[f'weak/{s}'].id for s in range(4)]
    assert second.units[:2] == [[teachers[0], teachers[2]], [teachers[1], teachers[3]]]
    units = [f.parent for f in (first.folders[0], *second.folders[:2])]
    assert units[0] == units[1] != units[2]
    assert len(second.units[2]) == 4 and pending(store) == []


def test_killed_before_it_could_tidy_up_nothing_runs_twice_and_nothing_is_left(store, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt
    target, run = small_graph(), Recorder()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(execution, 'tidy', die)
        execute(target, store, run)
    (store.folder / 'pending' / '.gone-half-removed' / 'checkpoint').mkdir(parents=True)
    assert len(run.units) == 1 and len(pending(store)) == 2
    execute(target, store, run)
    assert [len(u) for u in run.units] == [3, 3, 3, 3, 1]
    assert pending(store) == []


def test_what_another_graph_has_pending_is_left_alone(store):
    other, run = Recorder(), Recorder()
    other.fail = 'teacher'
    with pytest.raises(RuntimeError):
        execute(small_graph(seeds=(7, 8)), store, other)
    execute(small_graph(seeds=(0, 8)), store, run)  # seed 8 in another company: on its own, from the start
    assert pending(store) == [other.folders[0].parent] and other.folders[0] not in run.folders


def test_a_damaged_list_of_members_is_no_obstacle(store):
    target, first, second = small_graph(), Recorder(), Recorder()
    first.fail = 'teacher'
    with pytest.raises(RuntimeError):
        execute(target, store, first)
    (first.folders[0] / 'members.json').write_text('["half')
    execute(target, store, second)
    assert second.units[0] == first.units[0] and pending(store) == []


def test_one_result_a_phase_is_demanded(store):
    with pytest.raises(ValueError, match='zip'):
        execute(small_graph(), store, lambda phases, inputs, folder: [({}, None, None)] * (len(phases) + 1))


def test_describe():
    assert graph.describe([fit(seed=3, label='student a'), fit(seed=5, label='student a')]) == 'student a: seeds 3, 5'
    assert graph.describe([fit(seed=3, label='ceiling')]) == 'ceiling: seed 3'
    assert graph.describe([small_graph()]) == 'evaluation'
