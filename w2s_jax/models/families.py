"""FAMILIES: what a Hugging Face `config.json` means, and what its tensors are called.

Defaults of fields that a config may leave out are those of transformers 5.23.
"""
import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from w2s_jax.errors import WeightsError
from w2s_jax.models import tables
from w2s_jax.models.config import TransformerConfig

ACTIVATIONS = {'gelu': 'gelu', 'gelu_python': 'gelu', 'gelu_new': 'gelu_tanh', 'gelu_fast': 'gelu_tanh',
                'gelu_pytorch_tanh': 'gelu_tanh', 'relu': 'relu', 'silu': 'silu', 'swish': 'silu'}


# The most that a field may be, here at the top so that nothing is allocated for an absurd one; others: MOST.
MOST = 2**31
BOUNDS = {'num_hidden_layers': 2000, 'n_layer': 2000, 'num_attention_heads': 2**14, 'n_head': 2**14,
          'num_key_value_heads': 2**14, 'head_dim': 2**14, 'hidden_size': 2**20, 'n_embd': 2**20, 'vocab_size': 2**25,
          'word_embed_proj_dim': 2**20, 'intermediate_size': 2**22, 'n_inner': 2**22, 'ffn_dim': 2**22,
          'max_position_embeddings': 2**27, 'n_positions': 2**27, 'type_vocab_size': 2**16, 'partial_rotary_factor': 1,
          'rotary_pct': 1, 'layer_norm_eps': 1, 'layer_norm_epsilon': 1, 'rms_norm_eps': 1}
POSITIVE = ('rope_theta', 'rotary_emb_base', 'rope_local_base_freq', 'query_pre_attn_scalar', 'sliding_window_pattern',
            'layer_norm_eps', 'layer_norm_epsilon', 'rms_norm_eps')


class Fields:
    """A `config.json`, read by type. Raises WeightsError that names the field; a null is as good as left out."""

    def __init__(self, raw: Mapping[str, Any]):
        self.raw = {k: v for k, v in raw.items() if v is not None}
        self.off = raw.keys() - self.raw.keys()

    def __call__(self, name: str, kind: type, default: Any = None) -> Any:
        value: Any = self.raw.get(name, default)
        if value is None:
            raise WeightsError(f'{name} is missing')
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < 2**1000 else math.inf
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise WeightsError(f'{name}: {repr(value)[:60]}, expected {kind.__name__}')
        most = BOUNDS.get(name, 1e15 if kind is float else MOST)
        if isinstance(value, int | float) and not (0 <= value <= most and (value or name not in POSITIVE)):
            raise WeightsError(f'{name}: {value if abs(value) < 1e20 else "huge"}, out of range, expected a number '
                               f'{"above" if name in POSITIVE else "from"} 0 to {most:g}')
        return value

    def switch(self, name: str, kind: type, default: Any) -> Any:
        """A number that a null turns off: 0."""
        return kind(0) if name in self.off else self(name, kind, default)

    def only(self, **expected) -> None:
        """Refuses values that change the computation in a way that ours lacks."""
        for name, value in expected.items():
            if self.raw.get(name, value) != value:
                raise WeightsError(f'{name}: {self.raw[name]!r} is not supported, expected {value!r}')

    def choice(self, name: str, choices: Mapping[str, str], default: str) -> str:
        value = self(name, str, default)
        if value not in choices:
            raise WeightsError(f'{name}: {value!r} is not supported, expected one of {", ".join(choices)}')
        return choices[value]

    def sizes(self, *, vocab='vocab_size', width='hidden_size', layers='num_hidden_layers',
              heads='num_attention_heads', inner='intermediate_size', length='max_position_embeddings') -> dict:
        """The fields that every family has, under the names it gives them."""
        names = {'vocab_size': vocab, 'd_model': width, 'num_layers': layers, 'num_heads': heads, 'd_ff': inner,
                 'max_length': length}
        sizes = {ours: self(theirs, int) for ours, theirs in names.items()}
        for ours, size in sizes.items():
            if not size:
                raise WeightsError(f'{names[ours]}: 0, out of range, expected 1 or more')
        if sizes['d_model'] % sizes['num_heads'] and not self('head_dim', int, 0):
            raise WeightsError(f'{names["num_heads"]}: {sizes["num_heads"]} does not divide {names["d_model"]} '
                               f'{sizes["d_model"]}')
        return sizes


def _rope(fields: Fields, scaling: Mapping[str, Any], base: float, fraction: float = 1.) -> dict:
    """The rotary fields from one table of the config: `rope_parameters` (new) or `rope_scaling` (old) or neither."""
    table = Fields(scaling)
    kind = table('rope_type', str, table('type', str, 'default'))
    if kind not in ('default', 'linear', 'llama3'):
        raise WeightsError(f'rope_type: {kind!r} is not supported, expected one of default, linear, llama3')
    kept: tuple = ()
    if kind == 'linear':
        kept = (kind, table('factor', float))
    if kind == 'llama3':
        kept = (kind, *(table(k, float) for k in ('factor', 'low_freq_factor', 'high_freq_factor')),
                table('original_max_position_embeddings', float, float(fields('max_position_embeddings', int))))
    if any(number <= 0 for number in kept[1:]):
        raise WeightsError(f'{kind} rope scaling: {kept[1:]}, expected numbers above 0')
    return {'rotary_base': table('rope_theta', float, base), 'rotary_scaling': kept,
            'rotary_fraction': table('partial_rotary_factor', float, fraction)}


def _flat_rope(fields: Fields) -> dict:
    """The rotary fields of a family with one base, all of each head rotated."""
    table = fields('rope_scaling', dict, {}) or fields('rope_parameters', dict, {})
    if any(isinstance(v, dict) for v in table.values()):
        raise WeightsError('rope_parameters: one table a layer type is not supported')
    rope = _rope(fields, table, fields('rope_theta', float, 10_000.))
    if rope.pop('rotary_fraction') != 1 or fields.raw.get('partial_rotary_factor', 1) != 1:
        raise WeightsError('partial_rotary_factor: not supported, expected 1')
    return rope


def _layer_types(fields: Fields, layers: int, default: Callable[[int], bool]) -> tuple[bool, ...]:
    """Which layers slide: as `layer_types` lists them, or else as `default` says of each index."""
    names = ('full_attention', 'sliding_attention')
    kinds = fields('layer_types', list, [names[default(i)] for i in range(layers)])
    for kind in kinds:
        if kind not in names:
            raise WeightsError(f'layer_types: {kind!r} is not supported, expected one of {", ".join(names)}')
    if len(kinds) != layers:
        raise WeightsError(f'layer_types: {len(kinds)} entries, expected {layers}')
    return tuple(kind == names[1] for kind in kinds)


def _window(window: int, sliding: tuple[bool, ...]) -> dict:
    if not any(sliding):
        return {}
    if not window:
        raise WeightsError('layer_types: sliding_attention without a sliding_window')
    return {'window': window, 'sliding': () if all(sliding) else sliding}


_LAYERNORM = {'norm': 'layernorm', 'norm_bias': True, 'gated': False}
_BIASES = ('bias_qkv', 'bias_out', 'bias_mlp')


def _bert(fields: Fields, *, offset: int = 0) -> dict:
    fields.only(position_embedding_type='absolute', is_decoder=False, add_cross_attention=False, embedding_size=None)
    sizes = fields.sizes()
    sizes['max_length'] -= offset
    if sizes['max_length'] < 1:
        raise WeightsError(f'max_position_embeddings: {sizes["max_length"] + offset}, expected more than pad_token_id, '
                           f'{offset - 1}')
    return {**sizes, **_LAYERNORM, **dict.fromkeys(_BIASES, True), 'causal': False, 'norm_place': 'post',
            'norm_eps': fields('layer_norm_eps', float, 1e-12), 'final_norm': False, 'embed_norm': True,
            'token_types': fields('type_vocab_size', int, 2), 'position': 'learned', 'position_offset': offset,
            'activation': fields.choice('hidden_act', ACTIVATIONS, 'gelu')}


def _roberta(fields: Fields) -> dict:
    """Positions start after the padding's id, which is how fairseq left them."""
    return _bert(fields, offset=fields('pad_token_id', int, 1) + 1)


def _gpt2(fields: Fields) -> dict:
    fields.only(scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    fields.raw.setdefault('n_inner', 4 * fields('n_embd', int))
    return {**fields.sizes(width='n_embd', layers='n_layer', heads='n_head', inner='n_inner', length='n_positions'),
            **_LAYERNORM, **dict.fromkeys(_BIASES, True), 'norm_eps': fields('layer_norm_epsilon', float, 1e-5),
            'position': 'learned', 'query_scale': 0. if fields('scale_attn_weights', bool, True) else 1.,
            'activation': fields.choice('activation_function', ACTIVATIONS, 'gelu_new')}


def _neox(fields: Fields) -> dict:
    fields.only(is_decoder=False)
    table = fields('rope_scaling', dict, {}) or fields('rope_parameters', dict, {})
    bias = fields('attention_bias', bool, True)
    return {**fields.sizes(), **_LAYERNORM, 'bias_qkv': bias, 'bias_out': bias, 'bias_mlp': True,
            'norm_eps': fields('layer_norm_eps', float, 1e-5),
            'parallel_residual': fields('use_parallel_residual', bool, True),
            'activation': fields.choice('hidden_act', ACTIVATIONS, 'gelu'),
            **_rope(fields, table, fields('rotary_emb_base', float, fields('rope_theta', float, 10_000.)),
                    fields('rotary_pct', float, .25))}


def _opt(fields: Fields) -> dict:
    fields.only(layer_norm_elementwise_affine=True)
    before, sizes = fields('do_layer_norm_before', bool, True), fields.sizes(inner='ffn_dim')
    embed = fields('word_embed_proj_dim', int, sizes['d_model'])
    return {**sizes, **_LAYERNORM, **dict.fromkeys(_BIASES, fields('enable_bias', bool, True)), 'norm_eps': 1e-5,
            'norm_place': 'pre' if before else 'post',
            'final_norm': before and not fields('_remove_final_layer_norm', bool, False),
            'position': 'learned', 'position_offset': 2, 'embed_dim': 0 if embed == sizes['d_model'] else embed,
            'activation': fields.choice('activation_function', ACTIVATIONS, 'relu')}


def _decoder(fields: Fields, *, act: str = 'hidden_act', default_act: str = 'silu', kv_heads: int = 0) -> dict:
    """What Llama and its descendants share."""
    sizes = fields.sizes()
    return {**sizes, 'num_kv_heads': fields('num_key_value_heads', int, kv_heads or sizes['num_heads']),
            'head_dim': fields('head_dim', int, 0), 'norm_eps': fields('rms_norm_eps', float, 1e-6),
            'activation': fields.choice(act, ACTIVATIONS, default_act)}


def _llama(fields: Fields) -> dict:
    bias = fields('attention_bias', bool, False)
    return {**_decoder(fields), **_flat_rope(fields), 'bias_qkv': bias, 'bias_out': bias,
            'bias_mlp': fields('mlp_bias', bool, False)}


def _mistral(fields: Fields) -> dict:
    if 'layer_types' in fields.raw:
        raise WeightsError('layer_types: not supported for mistral')
    return {**_decoder(fields, kv_heads=8), **_flat_rope(fields), 'window': fields.switch('sliding_window', int, 4096)}


def _qwen(fields: Fields) -> dict:
    layers = fields('num_hidden_layers', int)
    window = fields.switch('sliding_window', int, 4096) if fields('use_sliding_window', bool, False) else 0
    first = fields('max_window_layers', int, 28)
    return {**_decoder(fields), **_flat_rope(fields),
            **_window(window, _layer_types(fields, layers, lambda i: bool(window) and i >= first))}


def _qwen2(fields: Fields) -> dict:
    return {**_qwen(fields), 'bias_qkv': True}


def _qwen3(fields: Fields) -> dict:
    bias = fields('attention_bias', bool, False)
    return {**_qwen(fields), 'head_dim': fields('head_dim', int, 128), 'qk_norm': True, 'bias_qkv': bias,
            'bias_out': bias}


def _gemma(fields: Fields, slides: Callable[[int], bool], caps: tuple[float, float]) -> dict:
    fields.only(use_bidirectional_attention=False)
    config = _decoder(fields, act='hidden_activation', default_act='gelu_pytorch_tanh', kv_heads=4)
    bias = fields('attention_bias', bool, False)
    return {**config, 'head_dim': fields('head_dim', int, 256), 'norm_place': 'both', 'norm_offset': 1.,
            'bias_qkv': bias, 'bias_out': bias, 'embed_scale': config['d_model'] ** .5,
            'query_scale': fields('query_pre_attn_scalar', float, 256.) ** -.5,
            'attention_cap': fields.switch('attn_logit_softcapping', float, caps[0]),
            'logit_cap': fields.switch('final_logit_softcapping', float, caps[1]),
            **_window(fields.switch('sliding_window', int, 4096), _layer_types(fields, config['num_layers'], slides))}


def _gemma2(fields: Fields) -> dict:
    return {**_gemma(fields, lambda i: i % 2 == 0, (50., 30.)), **_flat_rope(fields)}


def _gemma3(fields: Fields) -> dict:
    """Layers that slide have a rotary base of their own, and no scaling."""
    pattern = fields('sliding_window_pattern', int, 6)
    tables = Fields(fields('rope_parameters', dict, {}))
    scaling = {**tables('full_attention', dict, {}), **fields('rope_scaling', dict, {})}
    near = _rope(fields, tables('sliding_attention', dict, {}), fields('rope_local_base_freq', float, 10_000.))
    rope = _rope(fields, scaling, fields('rope_theta', float, 1_000_000.))
    if near['rotary_scaling'] or near['rotary_fraction'] != 1 or rope['rotary_fraction'] != 1:
        raise WeightsError('rope_parameters: sliding_attention is not supported with rope scaling, nor partial rotary')
    return {**_gemma(fields, lambda i: bool((i + 1) % pattern), (0., 0.)), **rope, 'qk_norm': True,
            'sliding_rotary_base': near['rotary_base']}


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    classes: what its `architectures` start with.  configure: config.json -> the fields of TransformerConfig, or another
    config, whose `build()` gives the module and shapes to call it with.  table: of its tensors, or a config -> that.
    prefixes: what a tensor's name may start with, the longest first.  ignored: regular expressions for the
    names of tensors that the backbone does not need.  heads: names of the next-token head's table.
    tied: whether that head is the embeddings where the config does not say.
    """
    classes: str
    configure: Callable[[Fields], Any]
    table: tables.Table | Callable[[Any], tables.Table]
    prefixes: tuple[str, ...]
    ignored: tuple[str, ...]
    heads: tuple[str, ...] = ('lm_head.weight',)
    tied: bool = False


_HEADS = (r'score\.weight', r'classifier\..*', r'qa_outputs\..*')
_ENCODER = (*_HEADS, r'(pooler|cls|lm_head)\..*', r'embeddings\.(position_ids|token_type_ids)')
_BUFFERS = (r'h\.\d+\.attn\.(masked_)?bias', r'layers\.\d+\.attention\.(masked_)?bias')  # causal masks
_ROTARY = (*_HEADS, r'(layers\.\d+\.(self_attn|attention)\.)?rotary_emb\.inv_freq')


def _causal(classes: str, configure, *, tied: bool = False, table: tables.Table = tables.LLAMA) -> Family:
    return Family(classes, configure, table, ('model.',), _ROTARY, tied=tied)


FAMILIES: dict[str, Family] = {  # by `model_type`
    'bert': Family('Bert', _bert, tables.BERT, ('bert.',), _ENCODER, (), True),
    'roberta': Family('Roberta', _roberta, tables.BERT, ('roberta.',), _ENCODER, (), True),
    'gpt2': Family('GPT2', _gpt2, tables.GPT2, ('transformer.',), (*_HEADS, *_BUFFERS), tied=True),
    'gpt_neox': Family('GPTNeoX', _neox, tables.NEOX, ('gpt_neox.',), (*_ROTARY, *_BUFFERS),
                       ('embed_out.weight', 'lm_head.weight')),
    'opt': Family('OPT', _opt, tables.OPT, ('model.decoder.', 'decoder.'), _HEADS, tied=True),
    'llama': _causal('Llama', _llama),
    'mistral': _causal('Mistral', _mistral),
    'qwen2': _causal('Qwen2', _qwen2),
    'qwen3': _causal('Qwen3', _qwen3),
    'gemma2': _causal('Gemma2', _gemma2, tied=True, table=tables.GEMMA),
    'gemma3_text': _causal('Gemma3', _gemma3, tied=True, table=tables.GEMMA),
}


def family_of(raw: Mapping[str, Any], families: Mapping[str, Family] = FAMILIES) -> str:
    """The family that a config.json names. Raises WeightsError that lists the known ones."""
    kind, classes = raw.get('model_type'), raw.get('architectures') or []
    named = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ''
    if kind is None:
        kind = next((k for k, f in families.items() if named in (f'{f.classes}Model', f'{f.classes}ForCausalLM')), None)
    if not isinstance(kind, str) or kind not in families:
        raise WeightsError(f'model_type {raw.get("model_type")!r}, architecture {named or None!r}: unknown, '
                           f'expected one of {", ".join(families)}')
    if named and not re.match(f'{families[kind].classes}(Text)?(Model|For|LMHead|DoubleHeads|PreTrained)', named):
        raise WeightsError(f'architectures: {named!r} is unknown for model_type {kind!r}')
    return kind


def configure(raw: Mapping[str, Any], families: Mapping[str, Family] = FAMILIES) -> Any:
    """Our config from theirs, a TransformerConfig for all models of texts. Raises WeightsError that names the field,
    and ConfigError for sizes that do not fit."""
    if raw.get('quantization_config'):
        raise WeightsError('quantization_config: quantized weights are not supported')
    found = families[family_of(raw, families)].configure(Fields(raw))
    return TransformerConfig(**found) if isinstance(found, dict) else found
