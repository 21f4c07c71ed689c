"""The models that benchmarks run, by name, with rows for them and how much there is to compute.

A name is a folder (or hub id), a rung of the chess ladder, or `random:SHAPE`: a Llama with random weights, where SHAPE
is one of SHAPES or LAYERSxWIDTH. A random model is written out as a folder, so that both sides load the same one.
"""
import functools
import json
import pathlib
import re
from collections.abc import Iterator

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy
import tokenizers

from w2s_jax import config, data
from w2s_jax.errors import ConfigError
from w2s_jax.models import chess_moves, language, modes, zoo
from w2s_jax.models.modes import Parts
from w2s_jax.registry import known

RANDOM = 'random:'
ROWS = 16  # batches in the data; an epoch
CLASSES = 2  # of texts


def llama(layers: int, width: int, heads: int, kv_heads: int, inner: int, vocab: int, base: float = 1e4) -> dict:
    """A config.json as transformers writes it."""
    return {'model_type': 'llama', 'architectures': ['LlamaModel'], 'num_hidden_layers': layers, 'hidden_size': width,
            'num_attention_heads': heads, 'num_key_value_heads': kv_heads, 'intermediate_size': inner,
            'vocab_size': vocab, 'max_position_embeddings': 8192, 'rms_norm_eps': 1e-5, 'rope_theta': base,
            'hidden_act': 'silu', 'tie_word_embeddings': True, 'dtype': 'bfloat16'}


SHAPES = {
    'llama-135m': llama(30, 576, 9, 3, 1536, 49_152),  # SmolLM2-135M
    'llama-1b': llama(16, 2048, 32, 8, 8192, 128_256, 5e5),  # Llama 3.2 1B
    'llama-8b': llama(32, 4096, 32, 8, 14_336, 128_256, 5e5),  # Llama 3.1 8B
    'llama-70b': llama(80, 8192, 64, 8, 28_672, 128_256, 5e5),  # Llama 3.1 70B
}


def shape(name: str) -> dict:
    """The config.json of SHAPE. Raises ConfigError."""
    if free := re.fullmatch(r'(\d+)x(\d+)', name):
        layers, width = map(int, free.groups())
        if layers and width and width % 64 == 0:
            return llama(layers, width, width // 64, width // 64, -(-8 * width // 3 // 64) * 64, 8192)
    known('--model, random', name, SHAPES | {'LAYERSxWIDTH (WIDTH a multiple of 64)': None})
    return SHAPES[name]


def check(name: str | None, field: str = '--model') -> str:
    """The name, where there is such a model. Raises ConfigError."""
    if not name:
        raise ConfigError(f'{field}: {name!r}, expected a folder, random:llama-1b or a name such as chess-l')
    if name.startswith(RANDOM):
        shape(name.removeprefix(RANDOM))
    elif name not in zoo.CHESS_LADDER and not pathlib.Path(name).expanduser().is_dir():
        raise ConfigError(f'{field}: {name!r}, expected an existing folder, one of {", ".join(zoo.CHESS_LADDER)}, or '
                          f'random: with one of {", ".join(SHAPES)} or LAYERSxWIDTH')
    return name


def is_chess(name: str) -> bool:
    """Whether a name is one of the ladder: boards, and nothing of PyTorch to compare with."""
    return name in zoo.CHESS_LADDER


def materialised(name: str, scratch: pathlib.Path) -> str:
    """The name of what can be loaded: that of a random model is a folder in `scratch`, written now."""
    if not name.startswith(RANDOM):
        return name if is_chess(name) else str(pathlib.Path(name).expanduser().absolute())
    kind = name.removeprefix(RANDOM)
    folder = scratch / kind
    if not folder.exists():
        write_random(folder, shape(kind))
    return str(folder)


def write_random(folder: pathlib.Path, raw: dict) -> None:
    """A Llama with normal weights of deviation 0.02 in bfloat16 (one seed), as a folder in Hugging Face's layout."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def draw(size):
        if len(size) == 1:
            return np.ones(size, ml_dtypes.bfloat16)
        return (rng.standard_normal(size, np.float32) * np.float32(.02)).astype(ml_dtypes.bfloat16)
    tensors = {name: draw(size) for name, size in llama_tensors(raw)}
    safetensors.numpy.save_file(tensors, str(folder / 'model.safetensors'), metadata={'format': 'pt'})
    (folder / 'config.json').write_text(json.dumps(raw))
    tokenizers.Tokenizer(tokenizers.models.WordLevel({'?': 0}, unk_token='?')).save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def llama_tensors(raw: dict) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes `(out, in)` of a Llama's tensors, without a next-token head."""
    width, inner = raw['hidden_size'], raw['intermediate_size']
    head = width // raw['num_attention_heads']
    queries, keys = (raw[k] * head for k in ('num_attention_heads', 'num_key_value_heads'))
    yield 'model.embed_tokens.weight', (raw['vocab_size'], width)
    for i in range(raw['num_hidden_layers']):
        for name, size in {
                'self_attn.q_proj': (queries, width), 'self_attn.k_proj': (keys, width),
                'self_attn.v_proj': (keys, width), 'self_attn.o_proj': (width, queries),
                'mlp.gate_proj': (inner, width), 'mlp.up_proj': (inner, width), 'mlp.down_proj': (width, inner),
                'input_layernorm': (width,), 'post_attention_layernorm': (width,)}.items():
            yield f'model.layers.{i}.{name}.weight', size
    yield 'model.norm.weight', (width,)


def parts(name: str, dtype: str) -> Parts:
    """The parts of a model that `materialised` names; nothing is loaded yet."""
    if is_chess(name):
        return chess(name, dtype)
    nothing = data.Examples({'text': np.array([['']], object)}, np.zeros(1, np.int32), np.zeros(1, np.int64))
    part = config.default_config().student
    part.dtype, part.intercept = dtype, False  # the head that the other side has, too
    return language.parts(name, 'model', data.Dataset('benchmark', CLASSES, nothing, nothing), part)


@functools.cache
def chess(name: str, dtype: str) -> Parts:
    """A rung of the ladder that computes in `dtype`; the ladder itself computes in float32."""
    return modes.computing(zoo.pretrained_chess(name), dtype)


def classes(name: str) -> int:
    """K of a model's logits."""
    return chess_moves.NUM_MOVES if is_chess(name) else CLASSES


def length_of(name: str, length: int) -> int:
    """Tokens of a row: the squares of a board, else as asked for."""
    return chess_moves.NUM_SQUARES if is_chess(name) else length


def arrays(name: str, found: Parts, batch: int, length: int) -> dict[str, np.ndarray]:
    """Random rows, full length: `tokens` `[N, L]`, `truth` `[N]`, of texts `length` `[N]` and a random `head` `[D, 2]`,
    and the `order` `[steps, batch]` in which a run of seed 0 sees them."""
    config, rng, n = found.backbone.config, np.random.default_rng(0), ROWS * batch
    made = {'tokens': rng.integers(0, config.vocab_size, (n, length)).astype(np.int32),
            'truth': rng.integers(0, classes(name), n).astype(np.int32),
            'order': np.concatenate([data.epoch_batches(0, epoch, n, batch) for epoch in range(50)])}
    if is_chess(name):
        return made
    head = (rng.normal(size=(config.d_out, CLASSES)) * config.d_out ** -.5).astype(np.float32)
    return made | {'length': np.full(n, length, np.int32), 'head': head}


def kernels(tree) -> int:
    """Numbers of all kernels in a tree of shapes: what each token is multiplied with."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return sum(x.size for path, x in flat if path[-1].key == 'kernel')


def forward_flops(found: Parts, batch: int, length: int) -> float:
    """Model floating-point operations of a forward pass: 2 a token for each number of a kernel (arXiv 2001.08361,
    section 2.1), 4 L H C a token and layer for attention (arXiv 2204.02311, appendix B: nothing off for causal masks or
    windows), and the head. Norms, biases and tables count nothing."""
    c = found.backbone.config
    attention = 4 * c.num_layers * length * c.num_heads * c.per_head
    return float(batch * (length * (2 * kernels(found.shapes['backbone']) + attention) + head_flops(found)))


def head_flops(found: Parts) -> int:
    """Operations a row of the head: of the classes, or of `heads.MoveHead`, bilinear in two squares."""
    size = kernels(found.shapes['head'])
    if found.family != 'chess':
        return 2 * size
    squares, width = chess_moves.NUM_SQUARES, found.backbone.config.d_model
    promotion = found.shapes['head']['promotion']['kernel'].size
    return 2 * (squares * (size - promotion) + 8 * promotion + squares * squares * width)


def step_flops(found: Parts, batch: int, length: int) -> float:
    """Of a training step of everything: for each product of the forward pass two of the same size backwards. What
    rematerialisation computes again is not counted."""
    return 3 * forward_flops(found, batch, length)


def moved_bytes(found: Parts, batch: int, length: int) -> float:
    """The least that a forward pass moves: every kernel once as it is stored (float32), of each token its row of the
    table, and each layer's activations in and out. What stays inside a layer is taken to stay in caches."""
    c = found.backbone.config
    width = np.dtype(c.dtype).itemsize * c.d_model
    rows = batch * length * (4 * c.d_out + 2 * c.num_layers * width)
    return float(4 * kernels(found.shapes) + rows)


def bound(name: str, found: Parts) -> modes.Model:
    """The model, fine-tuned whole."""
    return modes.bind(found, 'full', ())
