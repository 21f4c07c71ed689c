"""A graph on a Ray cluster: the driver holds the graph, a group of runs is a task, the store is the memory.

A worker process plans once, then finds the phases of each task by their ids and runs them as any other process does
(execution.finish): under a lease, with the checkpoints of killed processes. A task whose worker or machine dies is
started again elsewhere; a driver that dies is started again by the same command. What is in the store is never run
twice.
"""
import contextlib
import functools
import os
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from w2s_jax import graph
from w2s_jax.engine import execute as execution
from w2s_jax.engine.execute import Ledger
from w2s_jax.errors import ConfigError, TakenOver, UserError
from w2s_jax.graph import Phase
from w2s_jax.report.log import Log
from w2s_jax.store import lease
from w2s_jax.store.artifacts import Store
from w2s_jax.store.remote import open_store

os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
try:
    import cloudpickle
    import ray
except ImportError:
    raise ConfigError("--executor=ray: Ray is not installed, expected the extra 'ray': "
                      "pip install 'w2s_jax[ray]'") from None

EVERY = 0.5  # seconds between two messages of a worker, and two looks of the driver
Worker = Callable[[list[str], 'Relay'], None]  # runs the phases of these ids


class ClusterError(UserError):
    """A cluster that cannot run the work, or lost too many of its workers."""


def run(grid, store: Store, log: Log, address: str | None = None, resources: dict | None = None,
        retries: int = 3) -> dict:
    """Runs what is missing of a grid (grids.py) on a cluster. Returns outcomes by phase id, as `execute.execute`.

    Args:
      address: of a running cluster; None: one on this machine, for as long as this takes.
      resources, retries: see `execute`.
    """
    plain = [p.config.copy_and_resolve_references() for p in grid.plans]
    maker = functools.partial(make_worker, plain, store.place)
    with connected(address):
        return execute([p.target for p in grid.plans], store, maker, log, resources, retries, address is not None)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster, or a cluster of this process. Raises ClusterError."""
    settings: dict[str, Any] = {'log_to_driver': False, 'logging_level': 'error', 'namespace': 'w2s_jax'}
    if address is None:
        settings |= {'include_dashboard': False, 'object_store_memory': 200 * 2**20}
    else:
        settings['address'] = address
    try:
        with warnings.catch_warnings():  # what Ray forks becomes another program at once: no harm to JAX's threads
            warnings.filterwarnings('ignore', message='os.fork', category=RuntimeWarning)
            ray.init(**settings)
        _quiet()
    except Exception as e:  # of many kinds
        raise ClusterError(f'--ray_address={address}: no cluster to be reached ({" ".join(str(e).split())})') from None
    try:
        yield
    finally:
        ray.shutdown()


def _quiet() -> None:
    """Keeps Ray from printing the logs of what died; `Crew.read` says it in a line."""
    module: Any = sys.modules.get('ray._private.worker')
    if hasattr(module, 'print_to_stdstream'):
        module.print_to_stdstream = lambda *args, **kwargs: None


def execute(targets: list[Phase], store: Store, maker: Callable[[], Worker], log: Log, resources: dict | None = None,
            retries: int = 3, grows: bool = False) -> dict:
    """Runs what is not done on the cluster that Ray is connected to, beside any other process on the same store.

    Args:
      maker: called once in each worker process, makes what runs phases there; pickled with cloudpickle.
      resources: Ray's options of a task (`num_cpus`, `num_gpus`, `memory`, `resources`); under the kind of a phase,
        those in which that kind differs: `{'num_cpus': 1, 'student': {'num_gpus': 1}}`.
      retries: how often a group is started again whose worker or machine died.
      grows: whether nodes may still join that have what no node has now.
    Returns: what became of every phase, by its id. Raises what the user can mend as `execute.execute` does, and
    ClusterError where retries did not help.
    """
    ledger = Ledger(graph.order(targets), store)
    work = graph.groups(ledger.phases)
    crew = Crew(maker, log, resources or {}, retries)
    if not grows:
        crew.check(group[0].kind for group in work)
    running: dict[Any, int] = {}
    while any(not ledger.over(group) for group in work):
        for number, group in enumerate(work):
            if number not in running.values() and ledger.ready(group):
                running[crew.start(group)] = number
        for task in crew.finished(list(running)):
            del running[task]
        ledger.look()
    crew.read()
    execution.tidy(store, ledger)
    return ledger.outcomes


class Crew:
    """Starts groups as tasks and hears from them."""

    def __init__(self, maker: Callable[[], Worker], log: Log, resources: dict, retries: int):
        self.maker = ray.put(cloudpickle.dumps(maker))
        self.log, self.resources, self.retries = log, resources, retries
        self.machines = self._alive()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox = ray.remote(num_cpus=0, max_restarts=0)(Mailbox).options(scheduling_strategy=here).remote()

    def options(self, kind: str) -> dict:
        """Ray's options for phases of a kind."""
        common = {k: v for k, v in self.resources.items() if not isinstance(v, dict) or k == 'resources'}
        return common | self.resources.get(kind, {})

    def check(self, kinds) -> None:
        """Raises ClusterError where no node has what a kind asks for: Ray would wait for one for ever."""
        nodes = [n['Resources'] for n in ray.nodes() if n['Alive']]
        for kind in dict.fromkeys(kinds):
            options = self.options(kind)
            wanted = {'CPU': options.get('num_cpus', 1), 'GPU': options.get('num_gpus', 0),
                      'memory': options.get('memory', 0), **options.get('resources', {})}
            if not any(all(node.get(k, 0) >= v for k, v in wanted.items()) for node in nodes):
                asked = ', '.join(f'{v:g} {k}' for k, v in wanted.items() if v)
                raise ClusterError(f'{kind}: asks for {asked}, expected what one machine of the cluster has')

    def start(self, group: list[Phase]):
        """Begins a group. Returns the task."""
        task = ray.remote(_task).options(max_retries=self.retries, retry_exceptions=False, name=group[0].label,
                                         **self.options(group[0].kind))
        return task.remote(self.maker, [p.id for p in group], self.mailbox)

    def finished(self, tasks: list) -> list:
        """Waits a moment. Returns the tasks that have ended, after what they said. Raises what went wrong in them."""
        if not tasks:
            time.sleep(EVERY)  # all that could run is being run by others
            return []
        ended, _ = ray.wait(tasks, num_returns=len(tasks), timeout=EVERY)
        self.read()
        for task in ended:
            self._judge(task)
        return ended

    def _judge(self, task) -> None:
        try:
            error = ray.get(task)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as e:
            raise ClusterError(f'a group was lost {self.retries + 1} times with its worker, expected one to last '
                               f'({type(e).__name__}: {" ".join(str(e).split()):.300})') from None
        if error is not None:
            raise error

    def read(self) -> None:
        """Passes on what the workers said, and says which machines are gone."""
        for method, arguments in ray.get(self.mailbox.take.remote()):
            getattr(self.log, method)(*arguments)
        before, self.machines = self.machines, self._alive()
        for gone in before - self.machines:
            self.log.line(f'machine {gone[:8]} is gone, {len(self.machines)} left; what it was at is run again')

    def _alive(self) -> set[str]:
        return {node['NodeID'] for node in ray.nodes() if node['Alive']}


class Mailbox:
    """An actor beside the driver that keeps what workers say until the driver reads it."""

    def __init__(self):
        self.messages = []

    def put(self, messages: list) -> None:
        self.messages += messages

    def take(self) -> list:
        messages, self.messages = self.messages, []
        return messages


class Relay:
    """The log of a worker: says it to the driver, a few times a second."""

    def __init__(self, mailbox):
        self.mailbox, self.messages, self.last = mailbox, [], 0.0

    def line(self, text: str) -> None:
        """As `Log.line`."""
        self._say('line', text)

    def progress(self, *arguments) -> None:
        """As `Log.progress`."""
        self._say('progress', *arguments)

    def _say(self, method: str, *arguments) -> None:
        self.messages.append((method, arguments))
        if time.monotonic() - self.last > EVERY:
            self.flush()

    def flush(self) -> None:
        """Sends what was said since the last time, and waits until it has arrived."""
        if self.messages:
            ray.get(self.mailbox.put.remote(self.messages))
            self.messages, self.last = [], time.monotonic()


def _task(maker: bytes, ids: list[str], mailbox) -> UserError | None:
    """Runs the phases of these ids in a worker process. Returns what the user can mend: that is not to be retried."""
    relay = Relay(mailbox)
    try:
        _worker(maker)(ids, relay)
    except UserError as e:
        return e.with_traceback(None)
    finally:
        relay.flush()
    return None


@functools.lru_cache(maxsize=1)
def _worker(maker: bytes) -> Worker:
    return cloudpickle.loads(maker)()


def attend(group: list[Phase], ledger: Ledger, run: Callable, relay: Relay, choose: Callable | None = None,
           patience: float = 1.5 * lease.SECONDS) -> None:
    """Runs what is missing of a group; where another process is at it, waits for that one to end or to be dead.

    The wait is here and not in the driver, as only who has looked at a lease for a while knows that its holder is
    silent. It has an end, so that a group that takes long elsewhere does not hold a place for ever.
    """
    until = time.monotonic() + patience
    while not ledger.over(group) and time.monotonic() < until:
        with contextlib.suppress(TakenOver):
            if ledger.ready(group) and execution.finish(group, ledger, run, relay.line, choose):
                continue
        time.sleep(EVERY)
        ledger.look()


def make_worker(configs: list, place: str) -> Worker:
    """Plans the cells of a grid in a worker process. Returns what runs their phases by id."""
    from w2s_jax.engine import plan
    from w2s_jax.engine import runner as runners
    from w2s_jax.runtime import process
    process.quiet()
    process.keep_freed_memory()
    datasets: dict = {}
    for config in configs:
        plan.load_plugins(config)
    plans = [plan.prepare(config, lambda text: None, datasets) for config in configs]
    phases = {p.id: p for one in plans for p in one.phases}
    store = open_store(place if '://' in place else pathlib.Path(place))

    def work(ids: list[str], relay: Relay) -> None:
        if unknown := [i for i in ids if i not in phases]:
            raise ClusterError(f'phase {unknown[0]}: not in the plan that a worker made of the same configs; expected '
                               'the same version of w2s_jax, its plugins and its data on all machines')
        runner = runners.Runner(plans, relay.progress)
        attend([phases[i] for i in ids], Ledger(list(phases.values()), store), runner.run, relay, runner.choose)
    return work
