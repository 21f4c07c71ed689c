"""What a grid would run, what of it is done, and about how long the rest takes: `experiments.grid --dry_run`."""
import collections
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import graph
from w2s_jax.engine import grid, runner, sweep
from w2s_jax.engine.plan import Plan
from w2s_jax.graph import Phase, Source
from w2s_jax.models.modes import Model
from w2s_jax.phases import context, kinds
from w2s_jax.store import remote
from w2s_jax.store.artifacts import Artifact, Store
from w2s_jax.train.runs import num_steps

SHARE = 0.25  # of the matmul rate of this machine that training is taken to reach where the store knows no better
CHARACTERS = 4  # of a token, where texts are not tokenised yet


def dry_run(config, cells: sweep.Sweep, workdir, where: str | None = None) -> str:
    """Cells, unique phases, programs, an estimate of what is missing, as text. Runs nothing; raises UserError.

    where: the folder or URL of the store; None: in the work directory.
    """
    store = remote.open_store(where or pathlib.Path(workdir).expanduser().absolute() / 'store')
    planned = grid.plan(config, cells, lambda line: None)
    done = runner.finished(planned.phases, store)
    return '\n'.join([*_cells(planned, done), '', *_kinds(planned, done), '', *_programs(planned, done), '',
                      _cost(planned, done, store)])


def _cells(planned: grid.Grid, done: set[str]) -> list[str]:
    axes = sweep.axes([c.overrides for c in planned.cells])
    how = {field: 'traced' if sweep.traced(planned.config, field) else 'static' for field in axes}
    lines = [f'{field} ({how[field]}): {", ".join(map(str, options))}' for field, options in axes.items()]
    width = max(len(c.name) for c in planned.cells)
    for cell in planned.cells:
        missing = sum(p.id not in done for p in cell.plan.phases)
        state = 'done' if not missing else f'{missing} of {len(cell.plan.phases)} phases to run'
        lines.append(f'  {cell.name.ljust(width)}  {state}')
    return [f'{len(planned.cells)} cells', *lines]


def _kinds(planned: grid.Grid, done: set[str]) -> list[str]:
    alone = collections.Counter(p.role or p.kind for plan in planned.plans for p in plan.phases)
    unique = collections.Counter(p.role or p.kind for p in planned.phases)
    ready = collections.Counter(p.role or p.kind for p in planned.phases if p.id in done)
    rows = [(k, str(unique[k]), str(alone[k]), str(ready[k])) for k in unique]
    return _table([('phases', 'unique', 'cell by cell', 'done'), *rows])


def _programs(planned: grid.Grid, done: set[str]) -> list[str]:
    rows = [(graph.describe(g), str(len(g)), str(sum(p.id in done for p in g)))
            for g in graph.groups(planned.phases) if kinds.KINDS[g[0].kind].trains]
    return _table([('trained in one program', 'runs', 'done'), *rows])


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ['  '.join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows]


def _cost(planned: grid.Grid, done: set[str], store: Store) -> str:
    """One line: operations of the training that is missing, and the time it takes at the rate of what is done."""
    model_of = {p.id: context.model_of(p.section, plan.models)
                for plan in planned.plans for p in plan.phases if kinds.KINDS[p.kind].trains}
    positions = {id(plan.dataset): _positions(plan, store) for plan in planned.plans}
    plan_of = {p.id: plan for plan in planned.plans for p in plan.phases}
    work = {i: flops(model, _examples(p), positions[id(plan_of[i].dataset)])
            for p in planned.phases if (i := p.id) in model_of and (model := model_of[i])}
    missing = sum(w for i, w in work.items() if i not in done)
    seconds = {p.id: _seconds(_found(store, p)) for p in planned.phases if p.id in done and p.id in work}
    if total := sum(seconds.values()):
        rate, basis = sum(work[i] for i in seconds) / total, 'at the rate of what is done'
    else:
        rate, basis = SHARE * matmul_rate(), f'at {SHARE:.0%} of the matrix products of this machine'
    return (f'training that is missing: {missing / 1e12:.3g} TFLOP, about {_time(missing / rate)} {basis} '
            f'({rate / 1e9:.0f} GFLOP/s)')


def flops(model: Model, examples: int, positions: float) -> float:
    """Operations of training: 6 a parameter and position (Kaplan et al. 2020, arXiv 2001.08361), of a head on cached
    features 6 a parameter and example; attention and compilation are left out."""
    return 6.0 * (model.work or model.num_params) * examples * (1 if model.featurize else positions)


def _examples(phase: Phase) -> int:
    section = phase.section
    return num_steps(_rows(phase), section['batch_size'], section['epochs']) * section['batch_size']


def _rows(phase: Phase) -> int:
    """How many rows a phase learns from; before they are dropped, if a transform does that."""
    rows = phase.needs.get('rows')
    if isinstance(rows, Source):
        return len(rows.value)
    return max((_rows(p) for p in phase.before() if 'rows' in p.needs or 'labels' in p.needs), default=0)


def _positions(plan: Plan, store: Store) -> float:
    """The mean number of positions of an example: squares, tokens, or characters over CHARACTERS."""
    inputs = plan.dataset.pool.inputs
    if 'tokens' in inputs:
        return float(np.prod(inputs['tokens'].shape[1:]))
    if 'text' not in inputs:
        return 1.0
    ready = [p for p in plan.phases if p.kind == 'tokens' and store.find(p.kind, p.id)]
    if ready:
        measured = _found(store, ready[0]).metrics
        return measured['tokens'] / measured['texts'] * inputs['text'].shape[1]
    tokens = np.array([[len(t) / CHARACTERS for t in row] for row in inputs['text'][:1000]])
    return float(np.minimum(tokens, plan.config.task.max_length).sum(1).mean())


def _found(store: Store, phase: Phase) -> Artifact:
    artifact = store.find(phase.kind, phase.id)
    assert artifact is not None
    return artifact


def _seconds(artifact: Artifact) -> float:
    return artifact.metrics.get('seconds', 0.0) / artifact.metrics.get('runs', 1)


def matmul_rate(size: int = 1024) -> float:
    """Operations a second of a float32 matrix product on one device, the best of five."""
    x = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * size ** 3 / min(times)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 6000 else f'{seconds / 3600:.1f} h'
