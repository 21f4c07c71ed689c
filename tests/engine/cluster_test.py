"""Grids on Ray: the same results, what is done never runs twice, whoever dies; errors and progress reach the driver."""
import functools
import io
import json
import os
import pathlib
import subprocess
import sys
from collections import Counter

import pytest

os.environ.setdefault('RAY_raylet_start_wait_time_s', '180')  # where the processors are busy
pytest.importorskip('ray', reason="not installed: ray (the extra 'ray'; `make test-ray`)")

import cloudpickle
import grid_kill_test
import ray
import small_grid
import toy_graph
from grid_kill_test import GRID, grid_outcome
from ray.cluster_utils import Cluster
from toy_graph import Toy

from w2s_jax import graph
from w2s_jax.engine import grid, ray_executor
from w2s_jax.engine.ray_executor import ClusterError
from w2s_jax.errors import UserError
from w2s_jax.graph import Ledger
from w2s_jax.report.log import Log
from w2s_jax.store.artifacts import Store

cloudpickle.register_pickle_by_value(toy_graph)


def make_toy(place: str, seconds: float, kind: str = 'student', plans: str | None = None):
    """Plans the toy graph in a worker process; writes down that it did."""
    store = Store(pathlib.Path(place))
    phases = graph.order([toy_graph.toy_graph(kind=kind)])
    by_id = {p.id: p for p in phases}
    if plans:
        with open(plans, 'a') as file:
            file.write(f'{os.getpid()}\n')

    def work(ids, relay):
        ray_executor.attend([by_id[i] for i in ids], Ledger(phases, store), Toy(store, seconds, relay), relay)
    return work


cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> dict:
    """What the graph comes to where nothing disturbs it."""
    store = Store(tmp_path_factory.mktemp('whole'))
    graph.execute([toy_graph.toy_graph()], store, Toy(store, 0), report=lambda text: None)
    return toy_graph.outcome(store)


@pytest.fixture(scope='module')
def local():
    with ray_executor.connected(None):
        yield


def run(store, seconds=.01, log=None, maker=None, target=None, **options):
    maker = maker or functools.partial(make_toy, store.place, seconds)
    log = log or Log(stream=io.StringIO())
    return ray_executor.execute([target or toy_graph.toy_graph()], store, maker, log, **options)


def test_a_graph_comes_to_the_same_and_runs_once(local, whole, tmp_path):
    store, plans = Store(tmp_path / 's'), tmp_path / 'plans'
    log = Log(tmp_path / 'metrics.jsonl', io.StringIO())
    maker = functools.partial(make_toy, store.place, .01, plans=str(plans))
    fates = run(store, log=log, maker=maker)
    assert toy_graph.outcome(store) == whole
    assert fates.keys() == {p.id for p in graph.order([toy_graph.toy_graph()])}
    assert toy_graph.repeated(store) == 0 and not toy_graph.twice(store)
    assert not list((store.folder / 'pending').iterdir())
    planned = plans.read_text().split()
    workers = {e[-1] for e in toy_graph.events(store)}
    assert sorted(planned) == sorted(set(planned)) and workers <= set(planned) and str(os.getpid()) not in workers

    said = log.stream.getvalue()  # what the workers said has arrived, all of it
    steps = [json.loads(line) for line in log.path.read_text().splitlines()]
    groups = graph.groups(graph.order([toy_graph.toy_graph()]))
    assert len(steps) == toy_graph.STEPS * len(groups)
    assert all(graph.describe(g) in said for g in groups)

    before = toy_graph.events(store)
    run(store)
    assert toy_graph.events(store) == before


def test_what_the_user_can_mend_comes_back_as_it_is(local, tmp_path):
    store = Store(tmp_path)
    maker = functools.partial(make_toy, store.place, .01, 'broken')
    with pytest.raises(UserError) as e:
        run(store, maker=maker, target=toy_graph.toy_graph(kind='broken'))
    assert type(e.value) is UserError and '\n' not in str(e.value)
    assert str(e.value).startswith('student ') and str(e.value).endswith(': broken, expected whole')
    assert len([e for e in toy_graph.events(store) if e[0] == 'begin']) >= 12  # teachers and labels
    assert len({e[1] for e in toy_graph.events(store) if e[0] == 'begin'}) == len(
        [e for e in toy_graph.events(store) if e[0] == 'begin'])  # nothing was retried


def test_two_drivers_share_the_work(local, whole, tmp_path):
    """A process without Ray works on the same store."""
    store = Store(tmp_path)
    other = subprocess.Popen([sys.executable, toy_graph.__file__, str(tmp_path), '.02'])
    run(store, .02)
    assert other.wait(60) == 0
    assert toy_graph.outcome(store) == whole and not toy_graph.twice(store) and toy_graph.repeated(store) == 0


@pytest.mark.parametrize(('resources', 'message'), [
    ({'num_cpus': 1000}, 'teacher: asks for 1000 CPU, expected'),
    ({'student': {'num_gpus': 3}}, 'student: asks for 1 CPU, 3 GPU, expected'),
    ({'resources': {'tpu': 1}}, 'teacher: asks for 1 CPU, 1 tpu, expected')])
def test_what_no_machine_has_is_an_error_and_no_wait(local, tmp_path, resources, message):
    with pytest.raises(ClusterError, match=f'^{message}'):
        run(Store(tmp_path), resources=resources)


def die_always(place: str):
    def work(ids, relay):
        with open(f'{place}/deaths', 'a') as file:
            file.write('x')
        os._exit(1)
    return work


def test_a_worker_that_always_dies_is_an_error_after_the_retries(local, tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ClusterError, match='lost 2 times') as e:
        run(store, maker=functools.partial(die_always, store.place), retries=1,
            target=toy_graph.toy_graph(models=('s',)).needs['s/s/0'])
    assert '\n' not in str(e.value) and (tmp_path / 'deaths').read_text() == 'xx'


def test_an_address_without_a_cluster(local):
    with pytest.raises(ClusterError, match='ray_address=nowhere:1') as e, ray_executor.connected('nowhere:1'):
        pass
    assert '\n' not in str(e.value)


@pytest.fixture
def three_nodes():
    ray.shutdown()
    made = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def test_one_of_three_nodes_is_killed(three_nodes, whole, tmp_path, capfd):
    made, nodes = three_nodes
    store, log = Store(tmp_path), Log(stream=io.StringIO())
    killed, said = [], []

    def kill(*arguments):  # in the middle of a student's training
        if not killed and arguments[0].startswith('student') and arguments[1] >= 2:
            killed.append(arguments)
            made.remove_node(nodes[0], allow_graceful=False)
    log.progress = kill
    log.line = lambda text: said.append(text) if 'gone' in text else None
    capfd.readouterr()
    with ray_executor.connected(made.address):
        run(store, .25, log)
    assert killed and 'is gone, 2 left' in said[0]
    assert capfd.readouterr() == ('', '')
    assert toy_graph.outcome(store) == whole
    assert not toy_graph.twice(store)
    assert toy_graph.repeated(store) <= 8  # one step of a group
    assert not list((store.folder / 'pending').iterdir())


class Watching(io.StringIO):
    """A stream that does something when a line of progress of a student comes by."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def write(self, text):
        if self.action and 'student' in text and 'step' in text:
            action, self.action = self.action, None
            action()
        return super().write(text)


def begun(said: str) -> Counter:
    """How often each unit was begun."""
    return Counter(line for line in said.splitlines() if ': seeds' in line and 'step' not in line)


def test_a_grid_of_experiments_on_three_nodes_of_which_one_is_killed(three_nodes, tmp_path):
    made, nodes = three_nodes
    code, whole = grid_kill_test.run(GRID, tmp_path / 'whole')  # one device, as the workers have, and not eight
    assert code == 0, whole
    killed = Watching(lambda: made.remove_node(nodes[0], allow_graceful=False))
    grid.run(small_grid.get_config(), small_grid.get_sweep(), tmp_path / 'killed', killed, 'ray', address=made.address)
    assert killed.action is None and 'is gone, 2 left' in killed.getvalue()
    assert grid_outcome(tmp_path / 'killed') == grid_outcome(tmp_path / 'whole')
    more = begun(killed.getvalue()) - begun(whole)
    assert more.total() <= 1 and not begun(whole) - begun(killed.getvalue())
    assert not list((tmp_path / 'killed' / 'store' / 'pending').iterdir())
