"""One Flax Linen transformer for every family. Shapes: B sequences, L tokens, D model, H heads, C per head."""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.models.attention import Past, attended, recalled
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.linear import ADAPTERS, LINEAR, Embed, Linear
from w2s_jax.models.norm import Norm
from w2s_jax.runtime import sharding

KEPT = 'kept'  # collection: keys and values `[B, K, L, C]` of each layer, written where it is mutable
CACHE = 'cache'  # collection of the same form: those of the tokens before, which a call with `past` reads

_ACTIVATIONS: dict[str, Callable] = {
    'gelu': lambda x: 0.5 * x * (1 + jax.lax.erf(x * 2 ** -.5)),  # jax.nn.gelu's erfc costs more
    'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
    'relu': jax.nn.relu,
    'silu': jax.nn.silu,
}


_KEPT = {  # remat: what the backward pass finds as it was; the rest is computed again
    'products': jax.checkpoint_policies.dots_saveable,
    'linear': jax.checkpoint_policies.save_only_these_names(LINEAR),
    'full': jax.checkpoint_policies.nothing_saveable,
}


def rotary_frequency(dims: int, base: float, scaling: tuple = ()) -> np.ndarray:
    """`[dims / 2]` float32: radians a token, as in arXiv 2104.09864, section 3.2.2, then scaled for longer texts.

    'linear' (arXiv 2306.15595) slows all of them down. 'llama3' (arXiv 2407.21783; the formula is that of Llama
    3.1's published code) slows down those whose wavelength is long against the length first trained on.
    """
    frequency = base ** (-np.arange(0, dims, 2) / dims)
    if scaling and scaling[0] == 'linear':
        frequency = frequency / scaling[1]
    if scaling and scaling[0] == 'llama3':
        _, factor, low, high, original = scaling
        waves = original * frequency / (2 * np.pi)
        keep = np.clip((waves - low) / (high - low), 0, 1)
        frequency = keep * frequency + (1 - keep) * frequency / factor
    return frequency.astype(np.float32)


def rotary_table(c: TransformerConfig, at):
    """`[T, 2, L, dims / 2]` float32, sines and cosines; T = 2 where layers that slide have a base of their own.

    Args:
      at: L, or positions `[L]`.
    """
    at = jnp.arange(at) if isinstance(at, int) else at
    frequency = [rotary_frequency(c.rotary_dims, c.rotary_base, c.rotary_scaling)]
    if c.sliding_rotary_base:
        frequency.append(rotary_frequency(c.rotary_dims, c.sliding_rotary_base))
    angle = at.astype(jnp.float32)[None, :, None] * np.stack(frequency)[:, None, :]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], 1)


def rotate(x, sin, cos):
    """Rotary position embedding (arXiv 2104.09864), half-split as in Hugging Face's Llama.

    Args:
      x: `[B, L, H, C]`.  sin, cos: `[L, R / 2]`; the first R of the C dimensions are rotated.
    """
    half = sin.shape[-1]
    sin, cos = sin[None, :, None, :], cos[None, :, None, :]
    a, b = x[..., :half].astype(jnp.float32), x[..., half:2 * half].astype(jnp.float32)
    turned = [(a * cos - b * sin).astype(x.dtype), (b * cos + a * sin).astype(x.dtype)]
    return jnp.concatenate(turned if 2 * half == x.shape[-1] else [*turned, x[..., 2 * half:]], -1)


def rotate_rows(x, sin, cos):
    """`rotate` for one token of each row: `[B, 1, H, C]`, with sin, cos `[B, R / 2]`."""
    return rotate(x.swapaxes(0, 1), sin, cos).swapaxes(0, 1)


def grid_bias(module: nn.Module, c: TransformerConfig):
    """`[1, H, L, L]`: one learned number a head for each step in files and ranks between two cells."""
    side = round(c.max_length ** .5)
    file, rank = np.arange(c.max_length) % side, np.arange(c.max_length) // side
    steps = [(x[:, None] - x[None]) + side - 1 for x in (file, rank)]
    table = module.param('grid', nn.initializers.zeros, ((2 * side - 1) ** 2, c.num_heads))
    return table[steps[0] * (2 * side - 1) + steps[1]].transpose(2, 0, 1)[None].astype(c.dtype)


def window_mask(c: TransformerConfig, length: int, slides):
    """`[1, 1, L, L]` bool: which tokens are near enough; None where all are. slides: this layer's flag, or None."""
    if length <= c.window or not c.window:
        return None
    at = np.arange(length)
    near = (np.abs(at[:, None] - at[None]) < c.window)[None, None]
    return jnp.asarray(near) if slides is None else near | ~slides


def seen_by(c: TransformerConfig, size: int, length, slides):
    """Which tokens each token attends to, bool `[1 or B, 1, 1 or L, L]`; None: all.

    Args:
      length: `[B]`, how many tokens of a row are real, or None.  slides: whether this layer's window is on, or None.
    """
    seen, at = window_mask(c, size, slides), jnp.arange(size)
    if c.causal:
        before = (at[:, None] >= at[None])[None, None]
        seen = before if seen is None else seen & before
    if length is not None:
        real = (at[None] < length[:, None])[:, None, None]
        seen = real if seen is None else seen & real
    return seen


@jax.custom_vjp
def scores(q, k):
    """`[..., X, C]` times `[..., C, M]` in float32, of shorter numbers. Its gradient is as short as they are before it
    is multiplied by them: else the two largest products of the backward pass would be float32's."""
    return jnp.matmul(q, k, preferred_element_type=jnp.float32)


def _scores_backward(arrays, gradient):
    q, k = arrays
    gradient = gradient.astype(q.dtype)
    return jnp.einsum('...xm,...cm->...xc', gradient, k), jnp.einsum('...xc,...xm->...cm', q, gradient)


scores.defvjp(lambda q, k: (scores(q, k), (q, k)), _scores_backward)


def attend(q, k, v, seen=None, bias=None, *, scale: float, cap: float = 0.0):
    """Attention with grouped keys, its softmax in float32, and divided by the softmax's sum at the end, where the
    numbers are fewer (the gradient is then cheaper too, as in arXiv 2205.14135, appendix B.4).

    Args:
      q: `[B, L, H, C]`.  k, v: `[B, L, K, C]`, K divides H.  seen: bool, as `seen_by` makes it.  bias: `[1, H, L, L]`.
      cap: the logits x become cap * tanh(x / cap) (arXiv 2408.00118, section 2); 0: as they are.
    """
    (batch, size, heads, width), groups = q.shape, k.shape[2]
    q = q.reshape(batch, size, groups, -1, width).transpose(0, 2, 3, 1, 4).reshape(batch, groups, -1, width)
    k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)  # k's gradient is then the faster product
    logits = jnp.einsum('bkxc,bkcm->bkxm', q * scale, k) if q.dtype == jnp.float32 else scores(q, k) * scale
    logits = logits.reshape(batch, heads, size, size)
    if cap:
        logits = cap * jnp.tanh(logits / cap)
    if bias is not None:
        logits = logits + bias
    if seen is not None:
        # Finite: a row that sees nothing must not become NaN. Added: its gradient is then no pass of its own.
        logits = logits + jnp.where(seen, 0.0, -1e30)
    weight = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    y = jnp.einsum('bkxm,bkmc->bkxc', weight.astype(v.dtype).reshape(batch, groups, -1, size), v)
    y = y.reshape(batch, heads, size, width) / weight.sum(-1, keepdims=True)
    return y.astype(v.dtype).transpose(0, 2, 1, 3)


class Shared(NamedTuple):
    """What every layer reads: the length of each row `[B]` (None: all are full), `rotary_table`'s numbers, and what it
    is to know of its cache, if it has one: then L is 1, and `rotary` has the positions of the rows."""
    length: Any = None
    rotary: Any = None
    past: Past | None = None


class Attention(nn.Module):
    """Multi-head attention with grouped keys, over the first `length` tokens of each row."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, x, shared: Shared, slides=None):
        c = self.config
        dense = functools.partial(Linear, use_bias=c.bias_qkv, dtype=c.dtype)
        q = dense((c.num_heads, c.per_head), name='query')(x)
        k = dense((c.kv_heads, c.per_head), name='key')(x)
        v = dense((c.kv_heads, c.per_head), name='value')(x)
        if c.qk_norm:
            q, k = Norm(c, name='query_norm')(q), Norm(c, name='key_norm')(k)
        if c.position == 'rotary':
            sin, cos = shared.rotary[slides.astype(int) if len(shared.rotary) > 1 else 0]
            turn = rotate if shared.past is None else rotate_rows
            q, k = turn(q, sin, cos), turn(k, sin, cos)
        if self.is_mutable_collection(KEPT) and not self.is_initializing():
            self.put_variable(KEPT, 'key', k.swapaxes(1, 2))
            self.put_variable(KEPT, 'value', v.swapaxes(1, 2))
        if shared.past is not None:
            cache: Any = [self.get_variable(CACHE, name) for name in ('key', 'value')]
            y = recalled(c, q, k, v, cache, shared.past, slides)
        else:
            bias = grid_bias(self, c) if c.position == 'grid' else None
            y = attended(c, q, k, v, shared.length, slides, bias)
        return Linear(c.d_model, axes=2, use_bias=c.bias_out, dtype=c.dtype, name='out')(y)


class MLP(nn.Module):
    """Two dense layers, the first gated where the config says so (arXiv 2002.05202)."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        dense = functools.partial(Linear, use_bias=c.bias_mlp, dtype=c.dtype)
        y = _ACTIVATIONS[c.activation](dense(c.d_ff, name='gate' if c.gated else 'up')(x))
        if c.gated:
            y = y * dense(c.d_ff, name='up')(x)
        return dense(c.d_model, name='down')(y)


class Block(nn.Module):
    """One layer. Returns (hidden, hidden if `keep` else None), the form that `nn.scan` wants."""
    config: TransformerConfig
    keep: bool = False

    @nn.compact
    def __call__(self, x, shared: Shared, slides=None):
        c = self.config
        attention, mlp = Attention(c, name='attention'), MLP(c, name='mlp')
        norms = {k: Norm(c, name=k) for k in ('attention_norm', 'mlp_norm')}
        if c.norm_place == 'post':
            x = norms['attention_norm'](x + attention(x, shared, slides))
            x = norms['mlp_norm'](x + mlp(x))
            return x, x if self.keep else None
        a = attention(norms['attention_norm'](x), shared, slides)
        if c.norm_place == 'both':
            a = Norm(c, name='attention_post_norm')(a)
        a = self._scaled('attention_scale', a)
        m = mlp(norms['mlp_norm'](x if c.parallel_residual else x + a))
        if c.norm_place == 'both':
            m = Norm(c, name='mlp_post_norm')(m)
        x = x + a + self._scaled('mlp_scale', m)
        return x, x if self.keep else None

    def _scaled(self, name: str, x):
        """`[B, L, D]` times a learned number for each of the D, where the config has layer scale."""
        if not self.config.layer_scale:
            return x
        return x * self.param(name, nn.initializers.ones, x.shape[-1:]).astype(x.dtype)[None, None]


def layered(c: TransformerConfig, x, shared: Shared, every_layer: bool = False):
    """`[B, L, D]` through all layers and the final norm, as submodules of the module that calls; with `every_layer`
    also `[N + 1, B, L, D]`: what enters the first layer, and what leaves each of the N."""
    slides = jnp.asarray(c.sliding) if c.sliding else None
    block: Any = Block if c.remat == 'none' else nn.remat(Block, prevent_cse=c.unroll, policy=_KEPT[c.remat])
    layers: Any = nn.scan(block, variable_axes=dict.fromkeys(('params', ADAPTERS, CACHE, KEPT), 0),
                          split_rngs={'params': True}, in_axes=(nn.broadcast, 0), length=c.num_layers,
                          unroll=c.num_layers if c.unroll else 1)
    y, kept = layers(c, every_layer, name='layers')(x, shared, slides)
    y = Norm(c, name='final_norm')(y) if c.final_norm else y
    return y, jnp.concatenate([x[None], kept]) if every_layer else None


class Transformer(nn.Module):
    """Tokens to hidden states; the layers are scanned, so their parameters carry a leading layer axis."""
    config: TransformerConfig

    @nn.compact
    def __call__(self, tokens, length=None, every_layer: bool = False, past: Past | None = None):
        """tokens `[B, L]` int32, length `[B]` int32 (None: all are full) -> `[B, L, D]`, after the final norm.

        With `every_layer` also `[N + 1, B, L, D]`: what enters the first layer, and what leaves each of the N.
        With `past` each row has one token, which comes after those whose keys and values the collection CACHE holds.
        Raises ConfigError where learned positions are fewer than L.
        """
        c, at = self.config, tokens.shape[1] if past is None else past.at
        x = sharding.split(self._embed(tokens, past), 'batch')
        shared = Shared(length, rotary_table(c, at) if c.position == 'rotary' else None, past)
        y, kept = layered(c, x, shared, every_layer)
        if c.embed_dim:
            y = Linear(c.embed_dim, use_bias=False, dtype=c.dtype, name='embed_out')(y)
        return (y, kept) if every_layer else y

    def _embed(self, tokens, past: Past | None = None):
        c = self.config
        embed = functools.partial(Embed, features=c.d_model, dtype=c.dtype)
        x = embed(c.vocab_size, features=c.d_out, name='tokens')(tokens)
        if c.embed_scale != 1:
            x = x * jnp.asarray(c.embed_scale, c.dtype)
        if c.embed_dim:
            x = Linear(c.d_model, use_bias=False, dtype=c.dtype, name='embed_in')(x)
        if c.position in ('learned', 'grid'):
            if tokens.shape[1] > c.max_length:
                raise ConfigError(f'model.max_length: {c.max_length} positions for texts of {tokens.shape[1]} tokens')
            table = embed(c.max_length + c.position_offset, name='positions')
            if past is None:
                x = x + table(jnp.arange(tokens.shape[1]) + c.position_offset)[None]
            else:
                x = x + table(past.at + c.position_offset)[:, None]
        if c.token_types:
            x = x + embed(c.token_types, name='types')(jnp.zeros((1, 1), jnp.int32))
        return Norm(c, name='embed_norm')(x) if c.embed_norm else x


def language_logits(hidden, table, c: TransformerConfig):
    """`[..., D]` to next-token logits `[..., V]` in float32.

    Args:
      table: `[V, D]`: the embeddings of the tokens where the head is tied to them, else `hf.load_head`'s.
    """
    logits = jnp.einsum('...d,vd->...v', hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return c.logit_cap * jnp.tanh(logits / c.logit_cap) if c.logit_cap else logits
