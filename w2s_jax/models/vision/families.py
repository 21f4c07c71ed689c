"""FAMILIES of models of images: what their `config.json` means. Defaults are those of transformers 5.23."""
from collections.abc import Mapping

from w2s_jax.errors import WeightsError
from w2s_jax.models import tables
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.families import ACTIVATIONS, Family, Fields
from w2s_jax.models.vision import resnet
from w2s_jax.models.vision.resnet import ResNetConfig
from w2s_jax.models.vision.vit import ViTConfig

WIDEST, DEEPEST, SIDE = 2**16, 500, 2**14  # channels of a stage, blocks in all, pixels of a side


def _counted(fields: Fields, name: str, default: int, most: int) -> int:
    value = fields(name, int, default)
    if not 1 <= value <= most:
        raise WeightsError(f'{name}: {value}, out of range, expected 1 to {most}')
    return value


def _side(fields: Fields, name: str, default: int) -> int:
    """Pixels of a square's side; some configs give both sides."""
    value = fields.raw.get(name, default)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return _counted(Fields({name: value}), name, default, SIDE)


def _transformer(fields: Fields, inner: int, eps: float, scaled: bool) -> TransformerConfig:
    width, heads = _counted(fields, 'hidden_size', 768, 2**20), _counted(fields, 'num_attention_heads', 12, 2**14)
    if width % heads:
        raise WeightsError(f'num_attention_heads: {heads} does not divide hidden_size {width}')
    return TransformerConfig(
        vocab_size=0, d_model=width, num_layers=_counted(fields, 'num_hidden_layers', 12, 2000), num_heads=heads,
        d_ff=inner, max_length=0, causal=False, norm='layernorm', norm_bias=True, position='none', gated=False,
        norm_eps=fields('layer_norm_eps', float, eps), bias_qkv=fields('qkv_bias', bool, True), bias_out=True,
        bias_mlp=True, activation=fields.choice('hidden_act', ACTIVATIONS, 'gelu'), layer_scale=scaled)


def _patched(fields: Fields, transformer: TransformerConfig, patch: int) -> ViTConfig:
    fields.only(num_channels=3)
    image, patch = _side(fields, 'image_size', 224), _side(fields, 'patch_size', patch)
    if image < patch:
        raise WeightsError(f'image_size: {image}, expected at least patch_size {patch}')
    return ViTConfig(transformer, image, patch)


def _vit(fields: Fields) -> ViTConfig:
    fields.only(pooler_act='tanh', pooler_output_size=fields('hidden_size', int, 768))
    inner = _counted(fields, 'intermediate_size', 3072, 2**22)
    return _patched(fields, _transformer(fields, inner, 1e-12, False), 16)


def _dinov2(fields: Fields) -> ViTConfig:
    fields.only(use_swiglu_ffn=False)
    inner = fields('hidden_size', int, 768) * _counted(fields, 'mlp_ratio', 4, 64)
    return _patched(fields, _transformer(fields, inner, 1e-6, True), 14)


def _resnet(fields: Fields) -> ResNetConfig:
    fields.only(num_channels=3)
    kind = fields.choice('layer_type', {'basic': 'basic', 'bottleneck': 'bottleneck'}, 'bottleneck')
    widths = _several(fields, 'hidden_sizes', [256, 512, 1024, 2048], WIDEST)
    depths = _several(fields, 'depths', [3, 4, 6, 3], DEEPEST)
    if len(widths) != len(depths):
        raise WeightsError(f'depths: {len(depths)} stages, expected the {len(widths)} of hidden_sizes')
    if sum(depths) > DEEPEST:  # a network of so many would be traced for minutes
        raise WeightsError(f'depths: {sum(depths)} blocks, expected at most {DEEPEST} in all')
    if kind == 'bottleneck' and any(w < 4 for w in widths):
        raise WeightsError(f'hidden_sizes: {list(widths)}, expected at least 4 of bottlenecks')
    return ResNetConfig(_counted(fields, 'embedding_size', 64, WIDEST), widths, depths, kind == 'bottleneck',
                        fields.choice('hidden_act', {a: a for a in resnet.ACTIVATIONS}, 'relu'),
                        fields('downsample_in_first_stage', bool, False),
                        fields('downsample_in_bottleneck', bool, False))


def _several(fields: Fields, name: str, default: list[int], most: int) -> tuple[int, ...]:
    values = fields(name, list, default)
    if not 1 <= len(values) <= 16:
        raise WeightsError(f'{name}: {len(values)} stages, expected 1 to 16')
    return tuple(_counted(Fields({name: v}), name, 0, most) for v in values)


FAMILIES: Mapping[str, Family] = {  # by `model_type`
    'vit': Family('ViT', _vit, tables.VIT, ('vit.',), (r'(classifier|pooler)\..*', r'embeddings\.mask_token'), ()),
    'dinov2': Family('Dinov2', _dinov2, tables.DINOV2, ('dinov2.',), (r'classifier\..*', r'embeddings\.mask_token'),
                     ()),
    'resnet': Family('ResNet', _resnet, resnet.table, ('resnet.',), (r'classifier\..*', r'.*\.num_batches_tracked'),
                     ()),
}
