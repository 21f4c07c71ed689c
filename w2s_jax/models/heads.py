"""Hidden states to logits: classes, scalar rewards, chess moves, a choice of two of them."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax.models import chess_moves


def read_out(hidden, length, place: str):
    """One vector a sequence: the `last` or `first` real token, or the `mean` over real tokens.

    Args:
      hidden: `[B, L, D]`.  length: `[B]`, at least 1.
    """
    if place == 'first':
        return hidden[:, 0]
    if place == 'last':
        return jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)[:, 0]
    real = (jnp.arange(hidden.shape[1])[None] < length[:, None])[..., None]
    return jnp.where(real, hidden, 0).sum(1) / length[:, None].astype(hidden.dtype)


def _exact(features: int, bias: bool = False) -> nn.Dense:
    """Zero at first; in float32 also where the hardware's products of float32 are shorter by default (TPU, TF32)."""
    return nn.Dense(features, use_bias=bias, dtype=jnp.float32, precision='highest', name='Dense_0',
                    kernel_init=nn.initializers.zeros)


class ClassHead(nn.Module):
    """`[B, D]` to `[B, K]`: K class logits in float32; zero at first, so that training starts at chance, or, with an
    intercept that `steps.init_state` sets, at the shares of the classes."""
    num_classes: int
    bias: bool = False

    @nn.compact
    def __call__(self, x):
        return _exact(self.num_classes, self.bias)(x)


class RewardHead(nn.Module):
    """`[B, D]` to `[B]`: one number a completion; the numbers of a pair are its logits (Bradley-Terry)."""

    @nn.compact
    def __call__(self, x):
        return _exact(1)(x)[..., 0]


# A gather's gradient is a scatter, which XLA runs one row at a time on a CPU; here it is a gather too.
_FORWARD = np.concatenate([chess_moves.PAIR_INDEX, chess_moves.STEP_INDEX])  # steps stand in both parts
_PAIR_AT = np.full(chess_moves.NUM_SQUARES ** 2, len(_FORWARD), np.int32)
_PAIR_AT[chess_moves.PAIR_INDEX] = np.arange(chess_moves.NUM_PAIRS)
_STEP_AT = np.full(chess_moves.NUM_SQUARES ** 2, len(_FORWARD), np.int32)
_STEP_AT[chess_moves.STEP_INDEX] = np.arange(len(chess_moves.STEP_INDEX)) + chess_moves.NUM_PAIRS


@jax.custom_vjp
def pick_moves(table):
    """`[B, 4096]` from-to scores to `[B, 1792 + 22]`: those of moves, then again those of last-rank steps."""
    return table[:, _FORWARD]


def _pick_forward(table):
    return pick_moves(table), None


def _pick_backward(_, gradient):
    padded = jnp.pad(gradient, ((0, 0), (0, 1)))
    return (padded[:, _PAIR_AT] + padded[:, _STEP_AT],)


pick_moves.defvjp(_pick_forward, _pick_backward)


class MoveHead(nn.Module):
    """`[B, 64, D]` to `[B, 1858]`: bilinear in from-square and to-square; lesser promotions add a bias."""
    features: int

    @nn.compact
    def __call__(self, x):
        start = nn.Dense(self.features, use_bias=False, name='start')(x)
        end = nn.Dense(self.features, use_bias=False, name='end')(x)
        table = jnp.einsum('bfd,btd->bft', start, end).astype(jnp.float32) / np.sqrt(self.features)
        scores = pick_moves(table.reshape(len(x), -1))
        pairs, steps = jnp.split(scores, [chess_moves.NUM_PAIRS], axis=1)
        lesser = nn.Dense(len(chess_moves.PROMOTIONS), name='promotion')(x[:, 48:56]).astype(jnp.float32)
        files = np.array([a % 8 for a, _ in chess_moves.LAST_RANK_STEPS])
        promotions = steps[:, :, None] + lesser[:, files]
        return jnp.concatenate([pairs, promotions.reshape(len(x), -1)], axis=1)


def at_squares(x, squares):
    """Of hidden states `[B, 64, D]` those of squares `[B, ...]`: `[B, ..., D]`."""
    chosen = jax.nn.one_hot(squares, chess_moves.NUM_SQUARES, dtype=x.dtype)  # a gather's gradient is slow on a CPU
    return jnp.einsum('b...s,bsd->b...d', chosen, x)


class ChoiceHead(nn.Module):
    """`[B, 2, 2, D]`, the hidden states of the from-square and the to-square of two moves, to `[B, 2]`: their scores,
    as MoveHead has them."""
    features: int

    @nn.compact
    def __call__(self, x):
        start = nn.Dense(self.features, use_bias=False, name='start')(x[:, :, 0])
        end = nn.Dense(self.features, use_bias=False, name='end')(x[:, :, 1])
        return jnp.einsum('bmd,bmd->bm', start, end).astype(jnp.float32) / np.sqrt(self.features)
