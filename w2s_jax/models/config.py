"""The switchboard of the one transformer: what sets BERT, GPT-2, Llama and a chess model apart."""
import dataclasses

from w2s_jax.errors import ConfigError

ATTENTIONS = ('auto', 'xla', 'cudnn', 'splash')
REMATS = ('none', 'products', 'linear', 'full')
_CHOICES = {
    'norm': ('layernorm', 'rmsnorm', 'none'),
    'norm_place': ('pre', 'post', 'both'),
    'position': ('learned', 'rotary', 'grid', 'none'),
    'activation': ('gelu', 'gelu_tanh', 'relu', 'silu'),
    'dtype': ('float32', 'bfloat16'),
    'remat': REMATS,
    'attention': ATTENTIONS,
}
_SCALINGS = {'linear': 2, 'llama3': 5}  # how many entries each has, its name included


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes and switches. Hashable, so that a program can be compiled for it.

    norm_place: 'pre' (GPT-2, Llama), 'post' (BERT), or 'both' (a norm before and after, as in Gemma 2).
    norm_offset: the weight is stored less this much (1 for Gemma).
    embed_norm: a norm right after the embeddings (BERT).
    position: 'grid' is 'learned', and in each layer also a bias on attention by how far apart two tokens
      are in files and ranks of a square board of `max_length` cells.
    rotary_scaling: none, or ('linear', factor), or ('llama3', factor, low, high, original length).
    window: a token attends to the last `window` tokens, itself included, in every layer, or only in those that
      `sliding` marks; 0: no limit.  sliding_rotary_base: the rotary base of the layers that slide, which then
      have no scaling (Gemma 3); 0: the same as in the others.
    attention_cap, logit_cap: attention and next-token logits x become cap * tanh(x / cap) (Gemma 2); 0: as they are.
    embed_dim: the width of the token embeddings and of the output where it is not d_model (OPT-350m).
    parallel_residual: attention and MLP read the same residual stream (GPT-NeoX).
    layer_scale: what attention and MLP add is multiplied by learned numbers (DINOv2; arXiv 2103.17239, eq. 4).
    remat: what the backward pass computes again: nothing; all but matrix products (less memory, and on a CPU faster
      than reading it back); all but the products with weights, so that what is kept grows with the length and not
      with its square; or whole layers.
    attention: what computes it (attention.py): plain products, a GPU's or a TPU's fused kernel, or what there is.
    unroll: no loop over layers.
    """
    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    num_kv_heads: int = 0  # 0: as many as heads
    head_dim: int = 0  # 0: d_model / num_heads
    max_length: int = 512
    causal: bool = True
    norm: str = 'rmsnorm'
    norm_place: str = 'pre'
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    norm_bias: bool = False
    final_norm: bool = True
    embed_norm: bool = False
    embed_scale: float = 1.0
    token_types: int = 0
    position: str = 'rotary'
    position_offset: int = 0  # OPT and RoBERTa keep their first rows for something else
    rotary_base: float = 10_000.0
    rotary_fraction: float = 1.0
    rotary_scaling: tuple = ()
    window: int = 0
    sliding: tuple[bool, ...] = ()  # one a layer; empty: all alike
    sliding_rotary_base: float = 0.0
    qk_norm: bool = False
    query_scale: float = 0.0  # 0: 1 / sqrt(head_dim)
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    embed_dim: int = 0
    parallel_residual: bool = False
    layer_scale: bool = False
    activation: str = 'silu'
    gated: bool = True
    bias_qkv: bool = False
    bias_out: bool = False
    bias_mlp: bool = False
    dtype: str = 'float32'  # of the computation; parameters and softmax are float32
    remat: str = 'products'
    attention: str = 'auto'
    unroll: bool = False

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ConfigError(f'model.{field}: {getattr(self, field)!r}, expected one of {", ".join(choices)}')
        if not self.head_dim and self.d_model % self.num_heads:
            raise ConfigError(f'model.num_heads: {self.num_heads} does not divide d_model {self.d_model}')
        if self.num_heads % self.kv_heads:
            raise ConfigError(f'model.num_kv_heads: {self.num_kv_heads} does not divide num_heads {self.num_heads}')
        if self.sliding and (len(self.sliding) != self.num_layers or not self.window):
            raise ConfigError(f'model.sliding: {len(self.sliding)} entries with a window of {self.window}, '
                              f'expected {self.num_layers} and a window of at least 1')
        if self.rotary_scaling and len(self.rotary_scaling) != _SCALINGS.get(self.rotary_scaling[0]):
            raise ConfigError(f'model.rotary_scaling: {self.rotary_scaling!r}, expected one of {", ".join(_SCALINGS)}')
        if self.attention_cap and self.position == 'grid':
            raise ConfigError('model.attention_cap: not with position \'grid\'')
        if self.position == 'rotary' and self.rotary_dims % 2:
            raise ConfigError(f'model.rotary_fraction: {self.rotary_fraction} of {self.per_head} is not an even number')

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def per_head(self) -> int:
        return self.head_dim or self.d_model // self.num_heads

    @property
    def rotary_dims(self) -> int:
        return int(self.per_head * self.rotary_fraction)

    @property
    def d_out(self) -> int:
        return self.embed_dim or self.d_model
