"""Generation: equality with transformers by golden files, the cache, what rows share, stops, runs, and bad input."""
import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import own_data
from w2s_jax import sampling
from w2s_jax.data import Dataset, Examples
from w2s_jax.errors import ConfigError, DataError, WeightsError
from w2s_jax.models import zoo
from w2s_jax.models.families import FAMILIES, family_of
from w2s_jax.models.transformer import Transformer, language_logits
from w2s_jax.sampling import GREEDY, Pick
from w2s_jax.sampling.generate import SHORTEST, bucketed, program

GOLDENS = pathlib.Path(__file__).parents[1] / 'parity' / 'goldens'
STORED = np.load(GOLDENS / 'generated.npz')
NAMES = sorted({k.partition(':')[0] for k in STORED})
QUICK = ('gemma3', 'mistral')  # windows, caps of neither; two rotary bases and sliding layers among others
WARM = Pick(temperature=1.5)


@functools.cache
def model(name='mistral', **options):
    return sampling.opened(GOLDENS / name, **options)


def want(name):
    return {k.partition(':')[2]: STORED[k] for k in STORED if k.partition(':')[0] == name}


def keys(rows, seed=0):
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.arange(rows))


def prompts(name='mistral'):
    return STORED[f'{name}:tokens'], STORED[f'{name}:length']


def same(a, b, atol=1e-5):
    """The same tokens; log-probabilities are products of matrices, whose rounding differs with their shapes."""
    for field in ('tokens', 'stopped', 'length'):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=atol)


@pytest.mark.parametrize('name', [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in NAMES])
def test_greedy_texts_are_those_of_transformers(name):
    golden, (generate, params) = want(name), model(name)
    found = generate(params, golden['tokens'], golden['length'], keys(4), steps=10, pick=GREEDY)
    sure = np.cumprod(golden['margins'] > 1e-4, axis=1).astype(bool)
    assert sure.mean() >= .5  # one model has many equal logits, at its cap
    np.testing.assert_array_equal(np.where(sure, found.tokens, -1), np.where(sure, golden['ids'], -1))
    np.testing.assert_allclose(np.where(sure, found.logprobs, 0), np.where(sure, golden['logprobs'], 0), atol=1e-4)
    assert (found.length == 10).all() and not found.stopped.any()


def test_all_families_that_predict_tokens_have_goldens():
    causal = {f for f in FAMILIES if f not in ('bert', 'roberta')}
    assert {family_of(json.loads((GOLDENS / name / 'config.json').read_text())) for name in NAMES} == causal


def cached(decoder, weights, tokens, length, more):
    """`[T + 1, B, V]`: the logits at each of T steps that read `more` `[B, T]` after the prompts, and before them."""
    first, cache = decoder.start(weights, tokens, length, more.shape[1])

    def step(carry, at):
        logits, carry = decoder.step(weights, carry, more[:, at], length, at, tokens.shape[1])
        return carry, logits
    return jnp.concatenate([first[None], jax.lax.scan(step, cache, jnp.arange(more.shape[1]))[1]])


def whole(decoder, weights, tokens, length):
    variables, table = decoder.read(*weights)
    return language_logits(Transformer(decoder.config).apply(variables, tokens, length), table, decoder.config)


@pytest.mark.parametrize(('name', 'cache', 'atol'), [
    ('gemma2', 'float32', 1e-4), ('mistral', 'bfloat16', .1), *(pytest.param(n, 'float32', 1e-4, marks=pytest.mark.long)
                                                                for n in NAMES if n != 'gemma2')])
def test_cached_logits_are_those_of_the_whole_text_at_every_step(name, cache, atol):
    (generate, params), (tokens, length) = model(name, cache=cache), prompts(name)
    decoder, weights = generate.args[0], (params, None)
    more = np.random.default_rng(1).integers(2, 40, (4, 8)).astype(np.int32)
    texts = np.zeros((4, 20), np.int32)
    for row in range(4):
        texts[row, :length[row] + 8] = [*tokens[row, :length[row]], *more[row]]
    found = jax.jit(cached, static_argnums=0)(decoder, weights, tokens, length, more)
    full = np.asarray(jax.jit(whole, static_argnums=0)(decoder, weights, texts, length + 8))
    for row in range(4):
        np.testing.assert_allclose(found[:, row], full[row, length[row] - 1:length[row] + 8], atol=atol)
    apart = np.abs(np.asarray(found) - np.stack([full[r, n - 1:n + 8] for r, n in enumerate(length)], 1)).max()
    assert cache == 'float32' or apart > 1e-4, 'nothing was kept in bfloat16'


def test_a_row_depends_on_its_own_prompt_and_key():
    (generate, params), (tokens, length) = model(), prompts()
    together = generate(params, tokens, length, keys(4), steps=6, pick=WARM)
    assert len({tuple(row) for row in np.asarray(together.tokens)}) == 4
    alone = generate(params, tokens[2:3], length[2:3], keys(4)[2:3], steps=6, pick=WARM)
    same(alone, jax.tree.map(lambda x: x[2:3], together))
    order = np.array([3, 1, 0, 2])
    moved = generate(params, tokens[order], length[order], keys(4)[order], steps=6, pick=WARM)
    same(moved, jax.tree.map(lambda x: x[order], together))
    junk = np.where(np.arange(12) < length[:, None], tokens, 7)
    same(generate(params, junk, length, keys(4), steps=6, pick=WARM), together, atol=0)
    changed = np.where((np.arange(4) == 2)[:, None], tokens, tokens[::-1] + 1)
    beside = generate(params, changed, np.int32([3, 12, length[2], 1]), keys(4), steps=6, pick=WARM)
    same(*(jax.tree.map(lambda x: x[2], x) for x in (beside, together)), atol=0)
    other = generate(params, tokens, length, keys(4, seed=1), steps=6, pick=WARM)
    assert (other.tokens != together.tokens).any(1).sum() >= 3
    once_more = generate(params, tokens[[2, 2]], length[[2, 2]], keys(4)[2:], steps=6, pick=WARM)
    assert (once_more.tokens[0] == together.tokens[2]).all() and (once_more.tokens[1] != once_more.tokens[0]).any()


def test_a_row_is_the_same_in_another_bucket():
    (generate, params), (tokens, length) = model(), prompts()
    one = generate(params, tokens, length, keys(4), steps=6, pick=WARM)
    arrays = [jnp.asarray(x) for x in (np.pad(tokens, ((0, 0), (0, 7))), length, )]
    other = program(generate.args[0], (params, None), *arrays, keys(4), jnp.zeros(0, jnp.int32), steps=6, pick=WARM,
                    runs=False)
    same(one, other)


def test_one_program_for_a_bucket_and_a_number_of_steps():
    (generate, params), (tokens, length) = model(), prompts()
    program.clear_cache()
    for rows in ([5, 3, 1, 1], [12, 1, 5, 9], [1, 1, 1, 2]):
        generate(params, tokens, np.int32(rows), keys(4), steps=3, pick=GREEDY)
    assert program._cache_size() == 1
    sampling.opened(GOLDENS / 'mistral')[0](params, tokens, length, keys(4), steps=3, pick=Pick(temperature=0.))
    assert program._cache_size() == 1, 'a model that is opened again is another'


def test_buckets_double_up_to_what_the_model_can_read():
    for longest, size in ((1, 16), (16, 16), (17, 32), (33, 64), (64, 64), (65, 100)):
        tokens = np.ones((2, 70), np.int32)
        assert bucketed(tokens, np.int32([1, longest]), 100).shape == (2, size), longest
    assert SHORTEST == 16


@dataclasses.dataclass(frozen=True)
class Script:
    """A decoder that is sure of `token = 10 * row + number`, and counts its steps."""
    counts: tuple = ()

    def start(self, weights, tokens, length, steps):
        return 99 * jax.nn.one_hot(10 * jnp.arange(len(length)), 50), jnp.zeros(len(length))

    def step(self, weights, cache, token, length, number, size):
        jax.debug.callback(COUNTED.append, number)
        return 99 * jax.nn.one_hot(10 * jnp.arange(len(length)) + number + 1, 50), cache


COUNTED: list = []


@pytest.mark.parametrize(('stops', 'lengths', 'steps'), [((1, 13, 20), (2, 4, 1), 3), ((1, 13), (2, 4, 8), 7)])
def test_rows_stop_at_their_own_token_and_the_loop_with_the_last(stops, lengths, steps):
    COUNTED.clear()
    arrays = jnp.zeros((3, 4), jnp.int32), jnp.ones(3, jnp.int32), keys(3)
    found = program(Script(), (), *arrays, jnp.int32(stops), steps=8, pick=GREEDY, runs=False)
    jax.effects_barrier()
    assert len(COUNTED) == steps
    for row, n in enumerate(lengths):
        assert found.tokens[row].tolist() == [10 * row + i if i < n else 0 for i in range(8)]
        assert found.stopped[row] == (n < 8) and found.length[row] == n
    assert (np.asarray(found.logprobs) == 0).all()  # it is sure


def test_runs_are_those_one_by_one():
    (generate, params), (tokens, length) = model(), prompts()
    several = [params, jax.tree.map(lambda x: x * 1.1, params)]
    run_keys = jnp.stack([keys(4, 0), keys(4, 1)])
    stops = tuple(range(2, 6))
    found = generate(jax.tree.map(lambda *x: jnp.stack(x), *several), tokens, length, run_keys, steps=6, pick=WARM,
                     stops=stops, runs=True)
    for run, one in enumerate(several):
        alone = generate(one, tokens, length, run_keys[run], steps=6, pick=WARM, stops=stops)
        same(jax.tree.map(lambda x, run=run: x[run], found), alone)
    assert found.stopped.any() and not found.stopped.all()


def generative(folder, mode):
    section = own_data.get_config().student
    section.model, section.mode = str(folder), mode
    rows = np.array([['abc']], object)
    examples = Examples({'text': rows}, np.zeros(1, np.int32), np.arange(1))
    return zoo.get(section, 'student', Dataset('texts', 2, examples, examples))


@pytest.mark.long
@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_a_trained_model_is_sampled_and_contrasted_with_what_it_was(tmp_path, mode):
    found = generative(tiny.folder(tmp_path / 'tiny'), mode).generative()
    frozen = found.frozen(None)
    before = found.init(jax.random.key(0), found.load(None))
    after = jax.tree.map(lambda x: x + .05 * jax.random.normal(jax.random.key(1), x.shape), before)
    tokens, length = np.int32([[3, 4, 5, 6], [7, 8, 0, 0]]), np.int32([4, 2])
    texts = sampling.bind(found)(after, tokens, length, keys(2), steps=5, pick=GREEDY, frozen=frozen)
    rows = np.zeros((2, 9), np.int32)
    for row, n in enumerate(length):
        rows[row, :n + 5] = [*tokens[row, :n], *texts.tokens[row]]

    def likelihood(params):
        lengths = np.stack([length + 5, length], 1)
        return [-found.apply(params, {'tokens': rows[:, None], 'length': n[:, None]}, frozen)[:, 0] for n in lengths.T]
    total, prompt = likelihood(after)
    np.testing.assert_allclose(texts.logprobs.sum(1), total - prompt, atol=1e-3)  # what training measures

    pair = sampling.bind(found, found)
    ask = functools.partial(pair, (before, after), tokens, length, keys(2), steps=5, frozen=(frozen, frozen))
    same(ask(pick=Pick(temperature=0, alpha=1., head=0.)), texts)
    contrast = ask(pick=Pick(temperature=0, alpha=0., head=.01))
    assert (contrast.tokens != texts.tokens).any() and (contrast.logprobs <= 0).all()
    with pytest.raises(ConfigError, match='needs 1 models, but there are 2'):
        ask(pick=GREEDY)
    with pytest.raises(ConfigError, match='no next-token head, expected a generative model'):
        sampling.bind(generative(tmp_path / 'tiny', mode))


def test_an_encoder_is_refused():
    with pytest.raises(WeightsError, match='bert has no next-token head'):
        sampling.opened(GOLDENS / 'bert')


@pytest.mark.parametrize(('changes', 'error', 'says'), [
    ({'steps': 13}, DataError, 'up to 12 tokens and 13 steps, expected at most 24'),
    ({'steps': 0}, ConfigError, 'steps: 0'),
    ({'stops': (3, 40)}, ConfigError, 'stops: 40, expected a token from 0 to 39'),
    ({'stops': (-1,)}, ConfigError, 'stops: -1'),
    ({'pick': Pick(alpha=.5)}, ConfigError, 'needs 2 models, but there are 1'),
    ({'length': np.int32([0, 1, 1, 1])}, DataError, 'lengths 0 to 1, expected 1 to 12'),
    ({'length': np.int32([13, 1, 1, 1])}, DataError, 'lengths 1 to 13'),
    ({'tokens': np.full((4, 12), 40)}, DataError, 'token 40, expected 0 to 39'),
    ({'keys': keys(3)}, DataError, r'keys \(3,\)'),
    ({'tokens': np.zeros((0, 12), int), 'length': np.zeros(0, int), 'keys': keys(1)[:0]}, DataError, 'prompts'),
])
def test_what_cannot_be_generated_is_said_in_one_line(changes, error, says):
    (generate, params), (tokens, length) = model(), prompts()
    asked = {'tokens': tokens, 'length': length, 'keys': keys(4), 'steps': 3, 'pick': GREEDY} | changes
    with pytest.raises(error, match=says):
        generate(params, **asked)


def test_a_type_of_cache_that_there_is_not():
    with pytest.raises(ConfigError, match="cache: 'int8', expected float32 or bfloat16"):
        model(cache='int8')
