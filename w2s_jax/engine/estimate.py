"""What a grid would run, what of it is done, and about how long the rest takes: `experiments.grid --dry_run`."""
import collections

from w2s_jax import graph, paths
from w2s_jax.engine import grid, runner, sweep
from w2s_jax.engine.cost import Cost
from w2s_jax.phases import kinds
from w2s_jax.store import remote


def dry_run(config, cells: sweep.Sweep, workdir, where: str | None = None) -> str:
    """Cells, unique phases, programs, an estimate of what is missing, as text. Runs nothing; raises UserError.

    where: the folder or URL of the store; None: in the work directory.
    """
    store = remote.open_store(where or paths.folder(workdir, '--workdir') / 'store')
    planned = grid.plan(config, cells, lambda line: None)
    done = runner.finished(planned.phases, store)
    return '\n'.join([*_cells(planned, done), '', *_kinds(planned, done), '', *_programs(planned, done), '',
                      Cost(planned.plans, store).text()])


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
