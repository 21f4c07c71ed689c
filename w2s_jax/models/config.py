"""The switchboard of the one transformer: what sets BERT, GPT-2, Llama and a chess model apart."""
import dataclasses

from w2s_jax.errors import ConfigError

_CHOICES = {
    'norm': ('layernorm', 'rmsnorm', 'none'),
    'norm_place': ('pre', 'post', 'both'),
    'position': ('learned', 'rotary', 'grid', 'none'),
    'activation': ('gelu', 'gelu_tanh', 'relu', 'silu'),
    'dtype': ('float32', 'bfloat16'),
    'remat': ('none', 'full'),
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes and switches. Hashable, so that a program can be compiled for it.

    norm_place: 'pre' (GPT-2, Llama), 'post' (BERT), or 'both' (a norm before and after, as in Gemma 2).
    norm_offset: the weight is stored less this much (1 for Gemma).
    embed_norm: a norm right after the embeddings (BERT).
    position: 'grid' is 'learned', and in each layer also a bias on attention by how far apart two tokens
      are in files and ranks of a square board of `max_length` cells.
    parallel_residual: attention and MLP read the same residual stream (GPT-NeoX).
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
    qk_norm: bool = False
    query_scale: float = 0.0  # 0: 1 / sqrt(head_dim)
    parallel_residual: bool = False
    activation: str = 'silu'
    gated: bool = True
    bias_qkv: bool = False
    bias_out: bool = False
    bias_mlp: bool = False
    dtype: str = 'float32'  # of the computation; parameters and softmax are float32
    remat: str = 'none'

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ConfigError(f'model.{field}: {getattr(self, field)!r}, expected one of {", ".join(choices)}')
        if not self.head_dim and self.d_model % self.num_heads:
            raise ConfigError(f'model.num_heads: {self.num_heads} does not divide d_model {self.d_model}')
        if self.num_heads % self.kv_heads:
            raise ConfigError(f'model.num_kv_heads: {self.num_kv_heads} does not divide num_heads {self.num_heads}')

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def per_head(self) -> int:
        return self.head_dim or self.d_model // self.num_heads
