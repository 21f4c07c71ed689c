"""Which tensor of a Hugging Face checkpoint is which of our parameters, and how one becomes the other."""
import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rule:
    """take: (tensor, shape of the parameter) -> the parameter, perhaps not yet in its shape.
    give: the parameters that share a tensor -> the tensor."""
    take: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    give: Callable[[list[np.ndarray]], np.ndarray]


def _rows(x):
    """`[I, ...]` to `[I, O]`."""
    return x.reshape(x.shape[0], -1)


def _columns(x):
    """`[..., O]` to `[I, O]`."""
    return x.reshape(-1, x.shape[-1])


COPY = Rule(lambda x, shape: x, lambda xs: xs[0])
FLAT = Rule(lambda x, shape: x, lambda xs: xs[0].reshape(-1))  # biases, split by head in ours
LINEAR = Rule(lambda x, shape: x.T, lambda xs: _rows(xs[0]).T)  # torch: (out, in)
OUT = Rule(lambda x, shape: x.T, lambda xs: _columns(xs[0]).T)  # the same, from heads
CONV = Rule(lambda x, shape: x, lambda xs: _rows(xs[0]))  # GPT-2's Conv1D: (in, out)
IMAGE = Rule(lambda x, shape: x.transpose(2, 3, 1, 0), lambda xs: xs[0].transpose(3, 2, 0, 1))  # torch: (out, in, h, w)
CONV_OUT = Rule(lambda x, shape: x, lambda xs: _columns(xs[0]))


def _third(part: int) -> tuple[Rule, Rule]:
    """GPT-2: queries, keys, values side by side on the last axis. Returns the rules of weight and bias."""
    take = lambda x, shape: np.split(x, 3, axis=-1)[part]
    return (Rule(take, lambda xs: np.concatenate([_rows(x) for x in xs], 1)),
            Rule(take, lambda xs: np.concatenate([x.reshape(-1) for x in xs])))


def _per_head(part: int) -> tuple[Rule, Rule]:
    """GPT-NeoX: for each head its query, key and value rows."""
    def weight(x, shape):  # shape [D, H, C]
        return x.reshape(shape[1], 3, shape[2], shape[0])[:, part].transpose(2, 0, 1)

    def bias(x, shape):  # shape [H, C]
        return x.reshape(shape[0], 3, shape[1])[:, part]

    return (Rule(weight, lambda xs: np.stack(xs, 2).reshape(xs[0].shape[0], -1).T),
            Rule(bias, lambda xs: np.stack(xs, 1).reshape(-1)))


Table = dict[str, tuple[str, Rule]]  # parameter's path -> (tensor's name with {} for the layer, rule)


def _dense(path: str, name: str, weight: Rule = LINEAR, bias: Rule = FLAT) -> Table:
    return {f'{path}.kernel': (f'{name}.weight', weight), f'{path}.bias': (f'{name}.bias', bias)}


def _norm(path: str, name: str) -> Table:
    return {f'{path}.scale': (f'{name}.weight', COPY), f'{path}.bias': (f'{name}.bias', COPY)}


def _embed(path: str, name: str) -> Table:
    return {f'{path}.embedding': (f'{name}.weight', COPY)}


BERT: Table = {
    **_embed('tokens', 'embeddings.word_embeddings'),
    **_embed('positions', 'embeddings.position_embeddings'),
    **_embed('types', 'embeddings.token_type_embeddings'),
    **_norm('embed_norm', 'embeddings.LayerNorm'),
    **_dense('layers.attention.query', 'encoder.layer.{}.attention.self.query'),
    **_dense('layers.attention.key', 'encoder.layer.{}.attention.self.key'),
    **_dense('layers.attention.value', 'encoder.layer.{}.attention.self.value'),
    **_dense('layers.attention.out', 'encoder.layer.{}.attention.output.dense', OUT),
    **_norm('layers.attention_norm', 'encoder.layer.{}.attention.output.LayerNorm'),
    **_dense('layers.mlp.up', 'encoder.layer.{}.intermediate.dense'),
    **_dense('layers.mlp.down', 'encoder.layer.{}.output.dense'),
    **_norm('layers.mlp_norm', 'encoder.layer.{}.output.LayerNorm'),
}

GPT2: Table = {
    **_embed('tokens', 'wte'),
    **_embed('positions', 'wpe'),
    **_norm('layers.attention_norm', 'h.{}.ln_1'),
    **_dense('layers.attention.query', 'h.{}.attn.c_attn', *_third(0)),
    **_dense('layers.attention.key', 'h.{}.attn.c_attn', *_third(1)),
    **_dense('layers.attention.value', 'h.{}.attn.c_attn', *_third(2)),
    **_dense('layers.attention.out', 'h.{}.attn.c_proj', CONV_OUT),
    **_norm('layers.mlp_norm', 'h.{}.ln_2'),
    **_dense('layers.mlp.up', 'h.{}.mlp.c_fc', CONV),
    **_dense('layers.mlp.down', 'h.{}.mlp.c_proj', CONV),
    **_norm('final_norm', 'ln_f'),
}

NEOX: Table = {
    **_embed('tokens', 'embed_in'),
    **_norm('layers.attention_norm', 'layers.{}.input_layernorm'),
    **_dense('layers.attention.query', 'layers.{}.attention.query_key_value', *_per_head(0)),
    **_dense('layers.attention.key', 'layers.{}.attention.query_key_value', *_per_head(1)),
    **_dense('layers.attention.value', 'layers.{}.attention.query_key_value', *_per_head(2)),
    **_dense('layers.attention.out', 'layers.{}.attention.dense', OUT),
    **_norm('layers.mlp_norm', 'layers.{}.post_attention_layernorm'),
    **_dense('layers.mlp.up', 'layers.{}.mlp.dense_h_to_4h'),
    **_dense('layers.mlp.down', 'layers.{}.mlp.dense_4h_to_h'),
    **_norm('final_norm', 'final_layer_norm'),
}

OPT: Table = {
    **_embed('tokens', 'embed_tokens'),
    **_embed('positions', 'embed_positions'),
    **_dense('embed_in', 'project_in'),
    **_norm('layers.attention_norm', 'layers.{}.self_attn_layer_norm'),
    **_dense('layers.attention.query', 'layers.{}.self_attn.q_proj'),
    **_dense('layers.attention.key', 'layers.{}.self_attn.k_proj'),
    **_dense('layers.attention.value', 'layers.{}.self_attn.v_proj'),
    **_dense('layers.attention.out', 'layers.{}.self_attn.out_proj', OUT),
    **_norm('layers.mlp_norm', 'layers.{}.final_layer_norm'),
    **_dense('layers.mlp.up', 'layers.{}.fc1'),
    **_dense('layers.mlp.down', 'layers.{}.fc2'),
    **_norm('final_norm', 'final_layer_norm'),
    **_dense('embed_out', 'project_out'),
}

LLAMA: Table = {
    **_embed('tokens', 'embed_tokens'),
    **_norm('layers.attention_norm', 'layers.{}.input_layernorm'),
    **_dense('layers.attention.query', 'layers.{}.self_attn.q_proj'),
    **_dense('layers.attention.key', 'layers.{}.self_attn.k_proj'),
    **_dense('layers.attention.value', 'layers.{}.self_attn.v_proj'),
    **_norm('layers.attention.query_norm', 'layers.{}.self_attn.q_norm'),
    **_norm('layers.attention.key_norm', 'layers.{}.self_attn.k_norm'),
    **_dense('layers.attention.out', 'layers.{}.self_attn.o_proj', OUT),
    **_norm('layers.mlp_norm', 'layers.{}.post_attention_layernorm'),
    **_dense('layers.mlp.gate', 'layers.{}.mlp.gate_proj'),
    **_dense('layers.mlp.up', 'layers.{}.mlp.up_proj'),
    **_dense('layers.mlp.down', 'layers.{}.mlp.down_proj'),
    **_norm('final_norm', 'norm'),
}

GEMMA: Table = {
    **LLAMA,
    **_norm('layers.attention_post_norm', 'layers.{}.post_attention_layernorm'),
    **_norm('layers.mlp_norm', 'layers.{}.pre_feedforward_layernorm'),
    **_norm('layers.mlp_post_norm', 'layers.{}.post_feedforward_layernorm'),
}

_VISION: Table = {
    'cls': ('embeddings.cls_token', COPY),
    'positions': ('embeddings.position_embeddings', COPY),
    **_dense('patches', 'embeddings.patch_embeddings.projection', IMAGE),
    **_dense('layers.attention.query', 'encoder.layer.{}.attention.attention.query'),
    **_dense('layers.attention.key', 'encoder.layer.{}.attention.attention.key'),
    **_dense('layers.attention.value', 'encoder.layer.{}.attention.attention.value'),
    **_dense('layers.attention.out', 'encoder.layer.{}.attention.output.dense', OUT),
    **_norm('final_norm', 'layernorm'),
}

VIT: Table = {
    **_VISION,
    **_norm('layers.attention_norm', 'encoder.layer.{}.layernorm_before'),
    **_norm('layers.mlp_norm', 'encoder.layer.{}.layernorm_after'),
    **_dense('layers.mlp.up', 'encoder.layer.{}.intermediate.dense'),
    **_dense('layers.mlp.down', 'encoder.layer.{}.output.dense'),
    **_dense('pooler', 'pooler.dense'),
}

DINOV2: Table = {
    **_VISION,
    **_norm('layers.attention_norm', 'encoder.layer.{}.norm1'),
    'layers.attention_scale': ('encoder.layer.{}.layer_scale1.lambda1', COPY),
    **_norm('layers.mlp_norm', 'encoder.layer.{}.norm2'),
    **_dense('layers.mlp.up', 'encoder.layer.{}.mlp.fc1'),
    **_dense('layers.mlp.down', 'encoder.layer.{}.mlp.fc2'),
    'layers.mlp_scale': ('encoder.layer.{}.layer_scale2.lambda1', COPY),
}


def normed_convolution(path: str, name: str) -> Table:
    """A convolution without a bias, and the batch norm behind it."""
    return {f'{path}.convolution.kernel': (f'{name}.convolution.weight', IMAGE),
            f'{path}.scale': (f'{name}.normalization.weight', COPY),
            f'{path}.bias': (f'{name}.normalization.bias', COPY),
            f'{path}.mean': (f'{name}.normalization.running_mean', COPY),
            f'{path}.variance': (f'{name}.normalization.running_var', COPY)}
