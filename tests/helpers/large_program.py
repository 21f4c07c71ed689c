"""A training step of a large model, compiled for simulated devices with nothing allocated, and what it says of itself.

As a program: `python large_program.py DEVICES DATA,FSDP,TENSOR OPTIMIZER`, Llama-2-7B's sizes, JSON to standard output.
"""
import functools
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.models import heads, modes
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.language import TextHead
from w2s_jax.models.modes import Parts
from w2s_jax.models.transformer import Transformer
from w2s_jax.runtime import sharding as parallel
from w2s_jax.train import memory, program
from w2s_jax.train import step as steps

LLAMA_7B = TransformerConfig(vocab_size=32_000, d_model=4096, num_layers=32, num_heads=32, d_ff=11_008,
                             max_length=4096, norm_eps=1e-5, dtype='bfloat16', remat='full')  # arXiv 2307.09288
LENGTH = 1024
QUICKLY = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}  # it is never run
COLLECTIVES = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'
BYTES = {'f32': 4, 'bf16': 2, 's32': 4, 'u32': 4, 'pred': 1}


def read(backbone, variables, inputs):
    length = inputs['length'].reshape(-1)
    hidden = backbone.apply(variables, inputs['tokens'].reshape(len(length), -1), length)
    return heads.read_out(hidden, length, 'last').reshape(*inputs['length'].shape, -1)


def parts(config: TransformerConfig) -> Parts:
    """Those of a classifier of texts as `language.parts` makes them, without weights."""
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    return Parts('large', 'llama', Transformer(config), TextHead(2), read, (shape((1, 8)), shape((1,))),
                 {'tokens': shape((1, 1, 8)), 'length': shape((1, 1))})


def model(config: TransformerConfig, mode: str = 'full') -> modes.Model:
    """The classifier, fine-tuned in a mode."""
    lora = (('rank', 8), ('alpha', 16.), ('targets', 'attention'))
    return modes.bind(parts(config), mode, lora if mode == 'lora' else ())


def abstract(config: TransformerConfig, mesh, optimizer: str, batch: int, length: int):
    """What the compiled step of one run is called with, as shapes with shardings."""
    made, static = model(config), steps.Static('xent', 1000, batch, 2, optimizer=optimizer)
    number = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    hyper = steps.hyper(*(number((1,)) for _ in range(5)))
    init = program.compiled_init(made.init, static, mesh)
    states = jax.eval_shape(lambda h, s: init(h, s, None, None, 1), hyper, jax.ShapeDtypeStruct((1,), jnp.uint32))

    def lay(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, ('data', 'fsdp')))
    inputs = {'tokens': jax.ShapeDtypeStruct((1, batch, 1, length), jnp.int32),
              'length': jax.ShapeDtypeStruct((1, batch, 1), jnp.int32)}
    supervision = {'targets': number((1, batch, 2)), 'weight': number((1, batch))}
    inputs, supervision = jax.tree.map(lambda x: lay(x, rows), (inputs, supervision))
    states = jax.tree.map(lay, states, parallel.shardings(mesh, states))
    return program.compiled_step(made.apply, static, 'map', mesh), (states, inputs, supervision, hyper, None)


def report(config: TransformerConfig, mesh, optimizer: str, batch: int, length: int) -> dict:
    """Bytes of the state, all and on a device, those that every device has, the compiler's own count, collectives."""
    step, args = abstract(config, mesh, optimizer, batch, length)
    compiled = step.compiled.lower(*args).compile(compiler_options=QUICKLY)
    used, leaves = compiled.memory_analysis(), jax.tree_util.tree_leaves_with_path(args[0])
    own = sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for _, x in leaves)
    whole = {jax.tree_util.keystr(path, simple=True, separator='/'): x.size * x.dtype.itemsize
             for path, x in leaves if x.sharding.is_fully_replicated}
    return {'params': memory.nbytes(args[0].params) // 4, 'state': memory.nbytes(args[0]), 'own': own, 'whole': whole,
            'arguments': used.argument_size_in_bytes, 'temporary': used.temp_size_in_bytes,
            'donated': used.alias_size_in_bytes, 'collectives': collectives(compiled.as_text())}


def collectives(text: str) -> list[dict]:
    """Those of a compiled program: kind, whether in a loop, what of the model they are from, the shapes they give."""
    found = []
    for line in text.splitlines():
        if match := re.search(rf'= (.*?) ({COLLECTIVES})(-start)?\(', line):
            shapes = [(kind, [int(n) for n in dims.split(',') if n])
                      for kind, dims in re.findall(r'(\w+)\[([\d,]*)\]', match[1])]
            origin = re.search(r'op_name="([^"]*)"', line)
            name = origin[1] if origin else ''
            found.append({'kind': match[2], 'loop': '/while/body/' in name, 'origin': name, 'shapes': shapes,
                          'bytes': sum(BYTES[kind] * int(np.prod(dims)) for kind, dims in shapes)})
    return found


if __name__ == '__main__':
    jax.config.update('jax_num_cpu_devices', int(sys.argv[1]))
    sizes = tuple(map(int, sys.argv[2].split(',')))
    made = report(LLAMA_7B, parallel.make_mesh(*sizes), sys.argv[3], 256, LENGTH)
    print(json.dumps(made))
