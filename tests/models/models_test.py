"""The transformer's switches, the heads, and weights on disk."""
import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2s_jax.errors import ConfigError
from w2s_jax.models import chess_moves, heads, modes, zoo
from w2s_jax.models.config import TransformerConfig
from w2s_jax.models.transformer import (
    Block,
    Shared,
    Transformer,
    attend,
    language_logits,
    rotary_frequency,
    rotary_table,
    rotate,
    seen_by,
)

TINY = TransformerConfig(vocab_size=11, d_model=16, num_layers=2, num_heads=4, d_ff=32, max_length=8)
FAMILIES = {
    'llama': {'num_kv_heads': 2},
    'gpt2': {'norm': 'layernorm', 'norm_bias': True, 'position': 'learned', 'gated': False, 'activation': 'gelu_tanh',
             'bias_qkv': True, 'bias_out': True, 'bias_mlp': True},
    'neox': {'norm': 'layernorm', 'norm_bias': True, 'rotary_fraction': .5, 'parallel_residual': True, 'gated': False,
             'activation': 'gelu', 'bias_qkv': True, 'bias_out': True, 'bias_mlp': True},
    'bert': {'causal': False, 'norm': 'layernorm', 'norm_bias': True, 'norm_place': 'post', 'final_norm': False,
             'embed_norm': True, 'token_types': 2, 'position': 'learned', 'gated': False, 'activation': 'gelu',
             'bias_qkv': True, 'bias_out': True, 'bias_mlp': True},
    'gemma': {'norm_place': 'both', 'norm_offset': 1., 'embed_scale': 4., 'activation': 'gelu_tanh', 'head_dim': 8,
              'num_kv_heads': 1, 'query_scale': .25},
    'qwen3': {'qk_norm': True, 'num_kv_heads': 2, 'head_dim': 8},
    'opt': {'norm': 'layernorm', 'norm_bias': True, 'position': 'learned', 'position_offset': 2, 'gated': False,
            'activation': 'relu'},
}


def fast(function, **static):
    """Compiled in a hurry: these programs run once."""
    return jax.jit(functools.partial(function, **static), compiler_options={
        'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True})


def draw(path, shape):
    """Numbers around what a parameter starts from."""
    noise = np.random.default_rng(shape.size).normal(size=shape.shape).astype(np.float32)
    return {'scale': 1 + .1 * noise, 'bias': .1 * noise}.get(path[-1].key, .3 * noise)


def make(**changes):
    module = Transformer(dataclasses.replace(TINY, **changes))
    tokens = np.random.default_rng(1).integers(0, 11, (3, 8)).astype(np.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens)['params']
    return module, jax.tree_util.tree_map_with_path(draw, shapes), tokens


def apply(module, params, tokens, length=None, **static):
    return fast(module.apply, **static)({'params': params}, tokens, length)


def reach(module, params, tokens, length=None):
    """[L, L] bool: does output i change with the embedding of input j?"""
    table = params['tokens']['embedding']

    def outputs(rows):  # every position gets an embedding row of its own
        own = {**params, 'tokens': {'embedding': rows}}
        wide = Transformer(dataclasses.replace(module.config, vocab_size=len(rows)))
        return wide.apply({'params': own}, jnp.arange(tokens.shape[1])[None], length)[0]
    jacobian = fast(jax.jacobian(outputs))(table[tokens[0]])
    return np.abs(np.asarray(jacobian)).max((1, 3)) > 1e-8


@pytest.mark.parametrize('family', FAMILIES)
def test_attention_reaches_what_it_may(family):
    module, params, tokens = make(**FAMILIES[family])
    may = np.tril(np.ones((8, 8), bool)) if module.config.causal else np.ones((8, 8), bool)
    np.testing.assert_array_equal(reach(module, params, tokens), may)


@pytest.mark.parametrize('causal', [True, False])
def test_a_window_hides_what_is_far(causal):
    module, params, tokens = make(window=3, num_layers=1, causal=causal)
    apart = np.arange(8)[:, None] - np.arange(8)[None]
    may = (np.abs(apart) < 3) & ((apart >= 0) | (not causal))
    np.testing.assert_array_equal(reach(module, params, tokens), may)


@pytest.mark.parametrize('cap, sliding, far', [(0., (True, True), 5), (0., (True, False), 8), (5., (False, True), 8)])
def test_only_marked_layers_slide(cap, sliding, far):
    apart = np.arange(8)[:, None] - np.arange(8)[None]
    module, params, tokens = make(window=3, sliding=sliding, attention_cap=cap)
    np.testing.assert_array_equal(reach(module, params, tokens), (apart >= 0) & (apart < far))


def test_a_window_as_long_as_the_text_changes_nothing():
    module, params, tokens = make()
    for changes in ({'window': 8}, {'window': 9, 'sliding': (True, False)}):
        again = Transformer(dataclasses.replace(module.config, **changes))
        chex.assert_trees_all_equal(apply(again, params, tokens), apply(module, params, tokens))


@pytest.mark.parametrize('causal', [True, False])
@pytest.mark.parametrize('cap', [0., 1e4])
def test_attention_is_that_of_jax(causal, cap):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(3, 6, heads, 8)).astype(np.float32) for heads in (4, 2, 2))
    bias = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    lengths, near = np.array([6, 2, 4]), np.abs(np.arange(6)[:, None] - np.arange(6)[None])[None, None] < 4

    def ours(q, k, v, length, bias, window):
        c = dataclasses.replace(TINY, causal=causal, window=window)
        return attend(q, k, v, seen_by(c, 6, length, None), bias, scale=.3, cap=cap)

    def theirs(q, k, v, length, bias, window):
        return jax.nn.dot_product_attention(q, k, v, bias=bias, mask=near if window else None, scale=.3,
                                            is_causal=causal, key_value_seq_lengths=length)

    def both(fn, window, *args):  # later rows may be padding, which sees nothing
        fn = functools.partial(fn, window=window)
        return fast(fn)(*args)[:, :2], fast(jax.grad(lambda *x: jnp.sin(fn(*x)[:, :2]).sum(), (0, 1, 2)))(*args)
    for window, length, b in ((0, None, None), (4, None, bias), (4, lengths, None), (0, lengths, bias)):
        args = (window, q, k, v, length, None if cap else b)
        chex.assert_trees_all_close(both(ours, *args), both(theirs, *args), atol=1e-5)
        assert np.isfinite(fast(functools.partial(ours, window=window))(*args[1:])).all()


def test_a_low_cap_makes_attention_the_mean():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(3, 6, heads, 8)).astype(np.float32) for heads in (4, 2, 2))
    low = fast(attend, scale=1., cap=.01)(q, k, v)
    mean = np.repeat(v.mean(1), 2, axis=1)[:, None]
    np.testing.assert_allclose(low, np.broadcast_to(mean, low.shape), atol=.05)


def test_every_layer_is_what_a_shallower_model_gives():
    module, params, tokens = make(num_layers=3)
    hidden, layers = apply(module, params, tokens, every_layer=True)
    chex.assert_trees_all_close(hidden, apply(module, params, tokens), atol=1e-5)
    np.testing.assert_array_equal(layers[0], params['tokens']['embedding'][tokens])
    for n in (1, 2, 3):
        shallow = Transformer(dataclasses.replace(module.config, num_layers=n, final_norm=False))
        first = {'tokens': params['tokens'], 'layers': jax.tree.map(lambda p, n=n: p[:n], params['layers'])}
        chex.assert_trees_all_close(layers[n], apply(shallow, first, tokens), atol=1e-5)


def test_learned_positions_end_where_the_table_ends():
    module, params, tokens = make(position='learned')
    with pytest.raises(ConfigError, match='8 positions for texts of 9 tokens'):
        module.apply({'params': params}, np.pad(tokens, ((0, 0), (0, 1))))


def test_logits_are_capped():
    hidden, table = (10 * jax.random.normal(jax.random.key(i), (5, 16)) for i in (0, 1))
    plain = language_logits(hidden, table, TINY)
    np.testing.assert_allclose(plain, hidden @ table.T, rtol=1e-5)
    capped = language_logits(hidden, table, dataclasses.replace(TINY, logit_cap=30.))
    assert np.abs(capped).max() <= 30 < np.abs(plain).max()
    np.testing.assert_array_equal(np.argsort(capped[:, :2]), np.argsort(plain[:, :2]))


def test_padding_is_not_reached():
    module, params, tokens = make(causal=False)
    seen = reach(module, params, tokens, jnp.array([5]))
    assert seen[:5, :5].all() and not seen[:5, 5:].any()


@pytest.mark.parametrize('family', ['llama', 'bert', 'qwen3'])
def test_padded_rows_equal_short_ones(family):
    module, params, tokens = make(**FAMILIES[family])
    full = apply(module, params, tokens, np.full(3, 5))[:, :5]
    short = apply(module, params, tokens[:, :5], np.full(3, 5))
    chex.assert_trees_all_close(full, short, atol=1e-5)


def test_scanned_layers_equal_a_loop():
    _, params, tokens = make()
    one = Transformer(dataclasses.replace(TINY, num_layers=1, final_norm=False, position='none'))
    two = Transformer(dataclasses.replace(TINY, num_layers=2, final_norm=False, position='none'))
    layers = params['layers']
    scanned = apply(two, {'tokens': params['tokens'], 'layers': layers}, tokens)
    x = params['tokens']['embedding'][tokens]
    block = Block(dataclasses.replace(TINY, position='none'))
    for i in range(2):
        x, _ = fast(block.apply)({'params': jax.tree.map(lambda p, i=i: p[i], layers)}, x, Shared())
    chex.assert_trees_all_close(scanned, x, atol=1e-5)
    first = {'tokens': params['tokens'], 'layers': jax.tree.map(lambda p: p[:1], layers)}
    assert not np.allclose(apply(one, first, tokens), scanned)


@pytest.mark.long
@pytest.mark.parametrize('remat', ['none', 'products', 'full'])
def test_unrolled_layers_are_no_loop_and_have_its_gradients(remat):
    module, params, tokens = make(remat=remat)

    def compiled(module):
        grad = fast(jax.grad(lambda p: jnp.sin(module.apply({'params': p}, tokens)).sum()))
        return grad.lower(params).compile({'xla_cpu_use_fusion_emitters': True})  # else a scatter is a loop as well
    looped = compiled(module)
    unrolled = compiled(module.clone(config=dataclasses.replace(module.config, unroll=True)))
    assert ' while(' not in unrolled.as_text() and ' while(' in looped.as_text()
    chex.assert_trees_all_close(unrolled(params), looped(params), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('remat', ['products', 'full'])
def test_remat_changes_no_gradient(remat):
    _, params, tokens = make()
    module, again = (Transformer(dataclasses.replace(TINY, remat=r)) for r in ('none', remat))

    def loss(m):
        return lambda p: jnp.square(m.apply({'params': p}, tokens)).sum()
    text = str(jax.make_jaxpr(jax.grad(loss(again)))(params))
    assert 'remat' in text or 'checkpoint' in text
    found, want = (fast(jax.grad(loss(m)))(params) for m in (module, again))
    chex.assert_trees_all_close(found, want, rtol=1e-5, atol=1e-5)


def test_rotation_is_relative():
    q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 8)) for i in (0, 1))

    def product(i, j, fraction=1.):
        table = rotary_table(dataclasses.replace(TINY, head_dim=8, rotary_fraction=fraction), 10)[0]
        at = lambda x, n: rotate(x, *table[:, n:n + 1])
        return float(jnp.sum(at(q, i) * at(k, j)))
    assert product(3, 1) == pytest.approx(product(7, 5), abs=1e-5)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)
    kept = rotate(q, *rotary_table(dataclasses.replace(TINY, head_dim=8, rotary_fraction=.5), 10)[0, :, 5:6])
    np.testing.assert_array_equal(kept[..., 4:], q[..., 4:])


def test_rotary_scaling_slows_down_what_it_should():
    plain = rotary_frequency(64, 10_000.)
    np.testing.assert_allclose(rotary_frequency(64, 10_000., ('linear', 4.)) * 4, plain, rtol=1e-6)
    scaled = rotary_frequency(64, 10_000., ('llama3', 8., 1., 4., 512.))
    waves = 512 * plain / (2 * np.pi)
    np.testing.assert_allclose(scaled[waves > 4], plain[waves > 4], rtol=1e-6)
    np.testing.assert_allclose(scaled[waves < 1] * 8, plain[waves < 1], rtol=1e-6)
    between = (waves > 1) & (waves < 4)
    assert between.any() and (scaled < plain)[between].all() and (scaled * 8 > plain)[between].all()


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters():
    module, params, tokens = make(dtype='bfloat16')
    assert apply(module, params, tokens).dtype == jnp.bfloat16
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))


@pytest.mark.parametrize('field, value', [('norm', 'batch'), ('num_heads', 3), ('num_kv_heads', 3), ('remat', 'some'),
                                          ('sliding', (True,)), ('rotary_scaling', ('yarn', 2.)),
                                          ('rotary_fraction', .25)])
def test_bad_switches_are_named(field, value):
    with pytest.raises(ConfigError, match=f'model.{field}'):
        dataclasses.replace(TINY, **{field: value})


@pytest.mark.parametrize('place', ['first', 'last', 'mean'])
def test_read_out_sees_real_tokens_only(place):
    hidden, length = jax.random.normal(jax.random.key(0), (3, 6, 4)), jnp.array([1, 4, 6])
    want = {'first': lambda h: h[0], 'last': lambda h: h[-1], 'mean': lambda h: h.mean(0)}[place]
    got = heads.read_out(hidden, length, place)
    for row, n in enumerate(length):
        np.testing.assert_allclose(got[row], want(np.asarray(hidden[row, :n])), rtol=1e-5)


def test_new_heads_start_at_chance():
    x = jax.random.normal(jax.random.key(0), (2, 8))
    for head, shape in ((heads.ClassHead(3), (2, 3)), (heads.RewardHead(), (2,))):
        out = head.apply(head.init(jax.random.key(1), x), x)
        assert out.shape == shape and not out.any()


def test_move_head_scores_each_move_by_its_squares():
    head, x = heads.MoveHead(4), jax.random.normal(jax.random.key(0), (2, 64, 8))
    params = head.init(jax.random.key(1), x)
    logits = head.apply(params, x)
    p = params['params']
    start, end = x @ p['start']['kernel'], x @ p['end']['kernel']
    promotion = x @ p['promotion']['kernel'] + p['promotion']['bias'][None, None]
    for index in [*range(0, 1792, 97), *range(1792, 1858, 5)]:
        a, b, piece = chess_moves.move_squares(index)
        want = (start[:, a] * end[:, b]).sum(-1) / 2
        if piece:
            want = want + promotion[:, a, chess_moves.PROMOTIONS.index(piece)]
        np.testing.assert_allclose(logits[:, index], want, rtol=1e-4, atol=1e-5)


def test_picking_moves_has_the_gradient_of_a_gather():
    table = jax.random.normal(jax.random.key(0), (2, 4096))
    weight = jax.random.normal(jax.random.key(1), (2, 1792 + 22))
    plain = lambda t: jnp.sum(t[:, heads._FORWARD] * weight)
    picked = lambda t: jnp.sum(heads.pick_moves(t) * weight)
    chex.assert_trees_all_close(jax.grad(plain)(table), jax.grad(picked)(table), atol=1e-6)


@pytest.mark.parametrize('name', zoo.CHESS_LADDER)
def test_built_in_weights_fit_and_are_finite(name):
    model = zoo.pretrained_chess(name)
    assert modes.count(model.load(None)) == model.num_params
    assert model.weights


def test_pretrained_leaves_take_the_place_of_drawn_ones():
    drawn = {'a': {'x': jnp.zeros(2), 'y': jnp.zeros(2)}, 'head': jnp.zeros(3)}
    got = modes.overlay(drawn, {'a': {'x': jnp.ones(2)}})
    assert got['a']['x'].all() and not got['a']['y'].any() and not got['head'].any()
