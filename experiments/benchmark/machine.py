"""What a machine can do: the rate of its matrix products, the bandwidth of its memory, what its datasheet promises.

A rate says little by itself. Beside it stand its share of the measured peak in that precision and, where the device is
in DATASHEETS, its share of what the vendor promises. `python -m experiments.benchmark.worker machine {}` prints
`facts()`.
"""
import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.benchmark.tables import Table, number
from experiments.benchmark.worker import status

PRECISIONS = ('float32', 'bfloat16')
SIZES = {'cpu': (768, 1024, 2048, 3072)}  # of the square products; elsewhere:
LARGE_SIZES = (2048, 4096, 8192, 16384)
PATIENCE = 1.0  # seconds of one product, from which on larger ones are not tried
ROUNDS, ROUND = 5, 0.2  # how often a rate is measured, and seconds each time at least


@dataclasses.dataclass(frozen=True)
class Datasheet:
    """What a vendor says of a device. flops: bfloat16, dense, a second.  bandwidth: bytes a second.  memory: bytes."""
    flops: float
    bandwidth: float
    memory: float
    source: str


_TPU = 'https://cloud.google.com/tpu/docs/'
_NVIDIA = 'https://www.nvidia.com/en-us/data-center/'
DATASHEETS: dict[str, Datasheet] = {  # by JAX's `device_kind`; vendors' sparse numbers are halved
    'TPU v4': Datasheet(275e12, 1228e9, 32e9, f'{_TPU}v4'),
    'TPU v5 lite': Datasheet(197e12, 819e9, 16e9, f'{_TPU}v5e'),
    'TPU v5e': Datasheet(197e12, 819e9, 16e9, f'{_TPU}v5e'),
    'TPU v5': Datasheet(459e12, 2765e9, 95e9, f'{_TPU}v5p'),
    'TPU v5p': Datasheet(459e12, 2765e9, 95e9, f'{_TPU}v5p'),
    'TPU v6 lite': Datasheet(918e12, 1640e9, 32e9, f'{_TPU}v6e'),
    'TPU v6e': Datasheet(918e12, 1640e9, 32e9, f'{_TPU}v6e'),
    'NVIDIA A100-SXM4-40GB': Datasheet(312e12, 1555e9, 40e9, f'{_NVIDIA}a100'),
    'NVIDIA A100-SXM4-80GB': Datasheet(312e12, 2039e9, 80e9, f'{_NVIDIA}a100'),
    'NVIDIA A100 80GB PCIe': Datasheet(312e12, 1935e9, 80e9, f'{_NVIDIA}a100'),
    'NVIDIA H100 80GB HBM3': Datasheet(989.5e12, 3350e9, 80e9, f'{_NVIDIA}h100'),
    'NVIDIA H100 PCIe': Datasheet(756e12, 2000e9, 80e9, f'{_NVIDIA}h100'),
    'NVIDIA H200': Datasheet(989.5e12, 4800e9, 141e9, f'{_NVIDIA}h200'),
    'NVIDIA L4': Datasheet(121e12, 300e9, 24e9, f'{_NVIDIA}l4'),
    'NVIDIA L40S': Datasheet(362e12, 864e9, 48e9, f'{_NVIDIA}l40s'),
}


def facts() -> dict:
    """All of it, as JSON: platform, device_kind, devices, peaks by precision, bandwidth, datasheet (None if unknown).

    Takes some ten seconds. Measured on one device. float32 products are those that JAX makes by default: on TPUs and
    on NVIDIA GPUs with TF32 these round their inputs.
    """
    device = jax.devices()[0]
    sheet = DATASHEETS.get(device.device_kind)
    return {'platform': device.platform, 'device_kind': device.device_kind, 'devices': jax.device_count(),
            'peaks': {p: matmul_peak(p) for p in PRECISIONS}, 'bandwidth': bandwidth(),
            'datasheet': sheet and dataclasses.asdict(sheet)}


def matmul_peak(precision: str) -> dict:
    """The best rate of square products: {'flops': a second, 'size': where, 'by_size': {size: flops a second}}."""
    found: dict[int, float] = {}
    for size in SIZES.get(jax.default_backend(), LARGE_SIZES):
        found[size] = matmul_rate(precision, size)
        if 2 * size ** 3 / found[size] > PATIENCE:
            break
    best = max(found, key=found.__getitem__)
    return {'flops': found[best], 'size': best, 'by_size': found}


def matmul_rate(precision: str, size: int) -> float:
    """Floating-point operations a second of `size` by `size` products in steady state; each feeds the next one."""
    keys = jax.random.split(jax.random.key(0))
    x, w = (jax.random.normal(k, (size, size), jnp.dtype(precision)) for k in keys)
    w = w * jnp.asarray(size ** -.5, w.dtype)  # so that numbers stay of a size however many products follow
    product = jax.jit(jnp.matmul)
    return 2 * size ** 3 / best_seconds(lambda x: product(x, w), x)


def bandwidth(numbers: int = 0) -> float:
    """Bytes a second of the triad a = b + s c (McCalpin's STREAM) over arrays far larger than caches, three a number.

    numbers: of each array; 0: 64 million on a CPU, 256 million elsewhere.
    """
    numbers = numbers or (2 ** 26 if jax.default_backend() == 'cpu' else 2 ** 28)
    b = jnp.ones(numbers)
    triad = jax.jit(lambda b, c: b + 0.5 * c)
    return 3 * b.nbytes / best_seconds(lambda c: triad(b, c), jnp.zeros(numbers))


def best_seconds(call: Callable, x) -> float:
    """Seconds of `x = call(x)`: the best of ROUNDS rounds of so many calls as take ROUND seconds, after a first one."""
    x = jax.block_until_ready(call(x))
    calls, best = 1, float('inf')
    for _ in range(ROUNDS + 1):  # the first one says how many calls a round takes
        began = time.perf_counter()
        for _ in range(calls):
            x = call(x)
        jax.block_until_ready(x)
        best = min(best, (time.perf_counter() - began) / calls)
        calls = max(1, round(ROUND / best))
    return best


def promised(precision: str, known: dict) -> float | None:
    """Operations a second of a device by its sheet, out of `facts`; None for an unknown device and for float32, for
    which the sheets have no comparable number."""
    sheet = known['datasheet']
    return sheet['flops'] if sheet and precision == 'bfloat16' else None


def table(known: dict) -> Table:
    """What `facts` say, and beside it what the datasheet does."""
    sheet = known['datasheet'] or {}
    promised = {'bfloat16': f'{sheet["flops"] / 1e12:g}'} if sheet else {}
    rows = [[f'{p} products, TFLOP/s', f'{peak["flops"] / 1e12:.3g} (size {peak["size"]})', promised.get(p, '-')]
            for p, peak in known['peaks'].items()]
    return [[f'{known["devices"]} x {known["device_kind"]}', 'measured on one', 'datasheet'], *rows,
            ['memory, GB/s', number(known['bandwidth'] / 1e9), f'{sheet["bandwidth"] / 1e9:g}' if sheet else '-']]


def roofline(flops: float, moved: float, peak: float, stream: float) -> dict:
    """The roofline (Williams et al. 2009, doi 10.1145/1498765.1498785): {'intensity': operations a byte, 'attainable':
    min(peak, intensity * stream) operations a second, 'bound': 'compute' or 'memory'}.

    Args:
      moved: bytes.  peak: operations a second.  stream: bytes a second.
    """
    intensity = flops / moved
    return {'intensity': intensity, 'attainable': min(peak, intensity * stream),
            'bound': 'compute' if intensity * stream >= peak else 'memory'}


def memory_peak() -> dict:
    """{'peak_bytes', 'peak_of'}: the most that this process held, on its fullest device where the backend says so, else
    on the host."""
    found = [(d.memory_stats() or {}).get('peak_bytes_in_use') for d in jax.local_devices()]
    if any(found):
        return {'peak_bytes': max(x for x in found if x), 'peak_of': 'device'}
    return {'peak_bytes': status('VmHWM'), 'peak_of': 'host'}
