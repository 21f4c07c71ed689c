"""What `experiments.benchmark` measures of many devices: the same training steps on 1, 2, 4, 8 of them."""
import pathlib
import statistics
import tempfile
from types import SimpleNamespace

from experiments.benchmark import subjects, train
from experiments.benchmark.tables import Table, number
from experiments.benchmark.worker import Worker
from w2s_jax.errors import ConfigError

SHARED = ('simulated devices share the cores of this machine: these numbers show what splitting the work costs, '
          'not what more devices gain')
MESHES = ('data', 'fsdp')


def scaling(options: SimpleNamespace) -> tuple[Table, dict]:
    """Steps of the same global batch, and of the same batch a device, over a `data` and an `fsdp` mesh.

    The efficiency is the rate over that of one device; on real devices also over their number, so that 100 % is the
    best there is in both cases. Raises ConfigError where the batch does not divide.
    """
    simulated = options.machine['platform'] == 'cpu'
    counts = [n for n in options.devices if simulated or n <= options.machine['devices']]
    if odd := [n for n in counts if options.batch % n]:
        raise ConfigError(f'--batch: {options.batch}, expected a multiple of the number of devices ({odd[0]})')
    table = [['work', 'mesh', 'devices', 'global batch', 'ms/step', 'tokens/s', 'efficiency', 'state MB/device']]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        name, one = subjects.materialised(options.model, pathlib.Path(scratch)), 0.0
        for work, axis, devices in cases(counts):
            batch = options.batch * devices if work == 'same a device' else options.batch
            measured = steps(options, name, scratch, axis, devices, batch)
            one = one or measured['rows_per_second']
            efficiency = measured['rows_per_second'] / one / (1 if simulated else devices)
            found.append(measured | {'work': work, 'mesh': axis, 'devices': devices, 'efficiency': efficiency})
            table.append([work, axis, str(devices), str(batch), number(1e3 * measured['seconds']),
                          number(measured['rows_per_second'] * options.length), f'{efficiency:.0%}',
                          number(measured['state_bytes'] / 1e6)])
            print(' '.join(table[-1]))
    return table, {'runs': found, 'simulated': simulated} | ({'note': SHARED} if simulated else {})


def cases(counts: list[int]) -> list[tuple[str, str, int]]:
    """(work, mesh, devices) of every line; one device, with which the others are compared, comes first and once."""
    many = sorted(set(counts) - {1})
    return [('same in all', MESHES[0], 1),
            *((work, axis, n) for work in ('same in all', 'same a device') for axis in MESHES for n in many)]


def steps(options: SimpleNamespace, name: str, scratch: str, axis: str, devices: int, batch: int) -> dict:
    """Blocks of steps in a process of its own."""
    own = SimpleNamespace(**vars(options) | {'batch': batch})
    spec, _ = train.spec_of(own, name, scratch)
    with Worker('jax', spec | {'devices': devices, 'mesh': axis}) as worker:
        blocks = [worker.block(options.steps) for _ in range(train.WARM + options.rounds)]
    seconds = statistics.median(b['seconds'] / b['steps'] for b in blocks[train.WARM:])
    return {'seconds': seconds, 'rows_per_second': batch / seconds, 'blocks': blocks,
            'state_bytes': blocks[-1]['state_bytes']}
