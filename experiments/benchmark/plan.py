"""What `experiments.benchmark` says on paper of students that are too large to try: memory and time on pods.

Arithmetic alone: docs/performance.md says the formula and what it leaves out. Gigabytes are 1e9 bytes.
"""
import dataclasses
import math
from types import SimpleNamespace

from experiments.benchmark import machine, subjects
from experiments.benchmark.tables import Table
from w2s_jax.models import families, hf
from w2s_jax.models.config import TransformerConfig

LENGTH, TEXTS, EPOCHS = 1024, 10_000, 2
REACHED = 0.4  # of the datasheet's peak, an assumption
CHIPS = {'v5e': 'TPU v5e', 'v5p': 'TPU v5p', 'H200': 'NVIDIA H200'}
LINKS = {'v5e': 180e9, 'v5p': 540e9, 'H200': 450e9}  # bytes a second of a chip to its neighbours
NODE, ACROSS = 8, 50e9  # GPUs that are linked so, and bytes a second of each to others


@dataclasses.dataclass(frozen=True)
class Case:
    """A student on a mesh. rows: of a step (of a microbatch, where there are several), over all devices."""
    model: str
    mode: str
    chip: str
    fsdp: int
    rows: int
    optimizer: str = 'adamw'
    tensor: int = 1

    @property
    def devices(self) -> int:
        return self.fsdp * self.tensor


OPTIMIZER_BYTES = {'adamw': 8.0, 'adafactor': 0.05}
CASES = [
    Case('1b', 'full', 'v5e', 4, 16), Case('1b', 'full', 'v5p', 4, 64), Case('1b', 'full', 'H200', 1, 16),
    Case('8b', 'full', 'v5e', 8, 8), Case('8b', 'full', 'v5e', 8, 32, 'adafactor'), Case('8b', 'full', 'v5e', 16, 32),
    Case('8b', 'full', 'v5e', 256, 256), Case('8b', 'full', 'v5p', 4, 16), Case('8b', 'full', 'v5p', 16, 128),
    Case('8b', 'full', 'H200', 1, 2), Case('8b', 'full', 'H200', 8, 64), Case('8b', 'lora', 'H200', 1, 8),
    Case('70b', 'full', 'v5e', 64, 64), Case('70b', 'full', 'v5e', 128, 128), Case('70b', 'full', 'v5e', 256, 512),
    Case('70b', 'full', 'v5e', 64, 256, tensor=4), Case('70b', 'lora', 'v5e', 64, 64),
    Case('70b', 'full', 'v5p', 32, 64), Case('70b', 'full', 'v5p', 128, 512),
    Case('70b', 'full', 'H200', 8, 8), Case('70b', 'full', 'H200', 8, 32, 'adafactor'),
    Case('70b', 'full', 'H200', 16, 64), Case('70b', 'full', 'H200', 64, 512), Case('70b', 'lora', 'H200', 8, 64)]


def plan(options: SimpleNamespace) -> tuple[Table, dict]:
    """The table of CASES."""
    head = ['student', 'mode', 'chips', 'mesh', 'optimiser', 'rows', 'state GB', 'kept GB', 'layer GB', 'total GB',
            'compute s', 'traffic s', 'minutes']
    return [head, *map(row, CASES)], {'cases': [dataclasses.asdict(c) | memory(c) | seconds(c) for c in CASES]}


def row(case: Case) -> list[str]:
    """A line of the table."""
    held, took = memory(case), seconds(case)
    sheet = machine.DATASHEETS[CHIPS[case.chip]].memory
    total = f'{held["total"] / 1e9:.1f} of {sheet / 1e9:g}' + (', too much' if held['total'] > sheet else '')
    mesh = f'fsdp={case.fsdp}' + (f' tensor={case.tensor}' if case.tensor > 1 else '')
    minutes = TEXTS * EPOCHS / case.rows * max(took['compute'], took['traffic']) / 60
    return [case.model.upper(), case.mode, f'{case.devices} {case.chip}', mesh,
            case.optimizer if case.mode == 'full' else '-', str(case.rows),
            *(f'{held[k] / 1e9:.1f}' for k in ('state', 'kept', 'layer')), total,
            f'{took["compute"]:.2f}', f'{took["traffic"]:.2f}', f'{minutes:.0f}']


def sizes(model: str) -> tuple[TransformerConfig, int, int]:
    """(config, parameters, those of them in kernels) of a Llama without a language head."""
    config = families.configure(subjects.SHAPES[f'llama-{model}'])
    flat = {k: math.prod(shape) for k, shape in hf.expected(config).items()}
    return config, sum(flat.values()), sum(v for k, v in flat.items() if k.endswith('.kernel'))


def memory(case: Case) -> dict[str, float]:
    """Bytes of a device: 'state' (parameters, gradients, optimiser), what the forward pass 'kept' for the backward pass
    with remat 'full', the 'layer' that is at work, and the 'total'."""
    c, parameters, kernels = sizes(case.model)
    tokens = case.rows * LENGTH / case.fsdp
    trained = 4 + OPTIMIZER_BYTES[case.optimizer] if case.mode == 'full' else 0
    state = parameters * (4 + trained) / case.devices
    kept = 2 * c.num_layers * tokens * c.d_model
    layer = 4 * kernels / c.num_layers / case.tensor + 2 * tokens * (12 * c.d_model + 5 * c.d_ff / case.tensor)
    return {'state': state, 'kept': kept, 'layer': layer, 'total': state + kept + layer}


def seconds(case: Case) -> dict[str, float]:
    """Of a step: 'compute' at REACHED of the peak, each forward product computed again, and 'traffic' of a device over
    its links; a step takes about the larger."""
    c, parameters, kernels = sizes(case.model)
    passes = 4 if case.mode == 'full' else 3  # forward, again, gradients of activations, of weights
    operations = 2 * passes * kernels + 16 * c.num_layers * LENGTH * c.num_heads * c.per_head
    peak = machine.DATASHEETS[CHIPS[case.chip]].flops
    link = ACROSS if case.chip == 'H200' and case.devices > NODE else LINKS[case.chip]
    moved = (6 if case.mode == 'full' else 4) * parameters / case.tensor if case.fsdp > 1 else 0
    return {'compute': operations * case.rows * LENGTH / (case.devices * peak * REACHED), 'traffic': moved / link}
