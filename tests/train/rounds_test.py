"""Rounds of on-policy training: what is drawn and by which key, what is read of it, and that all algorithms learn."""
import contextlib
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import own_data
from w2s_jax import sampling
from w2s_jax.data import Dataset, Examples
from w2s_jax.errors import ConfigError, Preempted
from w2s_jax.models import zoo
from w2s_jax.runtime import sharding
from w2s_jax.train import policy, rounds
from w2s_jax.train.checkpoint import Checkpoint
from w2s_jax.train.policy import ALGORITHMS
from w2s_jax.train.rounds import Cast, Round, Static, Weights

WANTED = 31  # the token that is rewarded: at first about 4 of 100
PROMPTS = np.random.default_rng(0).integers(1, 60, (8, 5)).astype(np.int32)
BEGINS = np.array([5, 1, 3, 4, 2, 5, 3, 1], np.int32)


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp('rounds') / 'tiny')


@functools.cache
def model(folder, mode='full', texts=1):
    section = own_data.get_config().student
    section.model, section.mode = str(folder), mode
    examples = Examples({'text': np.array([['abc'] * texts], object)}, np.zeros(1, np.int32), np.arange(1))
    return zoo.get(section, 'student', Dataset('texts', 2, examples, examples))


def share(tokens, length, prompts, begins):
    """How many of the drawn tokens are the wanted one."""
    real = np.arange(tokens.shape[1])[None] < np.asarray(length)[:, None]
    return ((np.asarray(tokens) == WANTED) & real).sum(1) / np.asarray(length)


def early(tokens, length, prompts, begins):
    """How many of the drawn tokens are of the first half of the vocabulary."""
    real = np.arange(tokens.shape[1])[None] < np.asarray(length)[:, None]
    return ((np.asarray(tokens) < 33) & real).sum(1) / np.asarray(length)


def made(folder, name, number=4, rate=1e-2, *, mode='full', seed=0, prompts=8, samples=4, minibatches=2, passes=1,
         after=None, reward=share, steps=6, **changes):
    """(a Round, its first state)."""
    entry, policy_model = ALGORITHMS[name], model(folder, mode).generative()
    values = {k: s.default for k, s in entry.settings.items()} | changes
    static = Static(name, entry.version, tuple((k, values[k]) for k, s in entry.settings.items() if not s.traced),
                    samples, number, minibatches, passes)
    hyper = jax.tree.map(np.float32, {'learning_rate': rate, 'weight_decay': 0., 'clip': 1., 'warmup': 0.,
                                      'optimizer': {'beta2': .999}, 'algorithm': entry.traced(values)})
    mesh = sharding.make_mesh()
    state = rounds.compiled_init(policy_model, static, mesh)(hyper, np.uint32(seed), policy_model.load(None), None)
    weights = Weights(policy_model.frozen(None), jax.tree.map(jnp.copy, state.params['policy']), after)
    cast = Cast(policy_model, None if after is None else policy_model)
    return Round(cast, static, weights, {'tokens': PROMPTS, 'length': BEGINS}, prompts, steps, hyper, seed, mesh,
                 reward, (5,)), state


def test_a_drawn_text_stands_behind_its_prompt():
    tokens, length = np.arange(1, 25).reshape(8, 3).astype(np.int32), np.array([3, 1, 2, 3, 1, 2, 3, 3], np.int32)
    found, size = rounds.joined(PROMPTS, BEGINS, tokens, length)
    assert found.shape == (8, 8)
    for row in range(8):
        want = [*PROMPTS[row, :BEGINS[row]], *tokens[row, :length[row]]]
        assert size[row] == len(want) and found[row].tolist() == want + [0] * (8 - len(want))


def test_the_key_of_a_text_is_that_of_its_seed_round_row_and_sample():
    def drawn(*args):
        return jax.random.key_data(rounds.row_keys(*args)).tolist()
    found = drawn(0, 3, np.array([6, 2]), 3)
    assert found[:3] == drawn(0, 3, np.array([6]), 3) and found[3:] == drawn(0, 3, np.array([1, 2]), 3)[3:]
    others = [*found, *drawn(1, 3, np.array([6, 2]), 3), *drawn(0, 4, np.array([6, 2]), 3)]
    assert len(set(map(tuple, others))) == 18


def test_an_epoch_of_rounds_has_all_prompts_once():
    for epoch in range(2):
        at = [rounds.rows_of(0, epoch * 3 + i, 9, 3) for i in range(3)]
        assert sorted(np.concatenate(at)) == list(range(9))
    assert rounds.rows_of(0, 0, 9, 3).tolist() != rounds.rows_of(1, 0, 9, 3).tolist()


def test_positions_in_chunks_give_what_they_give_at_once(monkeypatch):
    x, y = np.random.default_rng(0).normal(size=(2, 3, 7)).astype(np.float32)

    def total(x, y):
        found = rounds.over_positions(lambda a, b: {'p': jnp.sin(a) * b, 'q': a + b}, x, y)
        return (found['p'] * jnp.arange(7.)[None]).sum(), found
    whole = jax.value_and_grad(total, has_aux=True)(x, y)
    monkeypatch.setattr(rounds, 'CHUNK', 3)
    assert jax.make_jaxpr(lambda *a: total(*a)[0])(x, y).pretty_print().count('scan') > 0
    chex.assert_trees_all_close(jax.value_and_grad(total, has_aux=True)(x, y), whole, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_training_reads_the_probabilities_that_were_drawn_with(folder, mode):
    one, state = made(folder, 'grpo', mode=mode, reward=None)
    params = jax.tree.map(lambda x: x + .02 * jax.random.normal(jax.random.key(1), x.shape), state.params['policy'])
    drawn = one.draw(state.replace(params={'policy': params}))
    texts = sampling.bind(one.cast.policy)(
        params, drawn['prompts'], drawn['begins'], rounds.row_keys(0, 0, rounds.rows_of(0, 0, 8, 8), 4), steps=6,
        pick=sampling.Pick(), stops=(5,), frozen=one.weights.frozen)
    np.testing.assert_array_equal(texts.tokens, drawn['tokens'])
    parts = [(one.cast.policy, rounds.states(one.cast.policy, (p, one.weights.frozen), drawn))
             for p in (params, one.weights.reference)]
    found = rounds.spoken(parts, drawn['tokens'], 1., lambda said: said[0])
    real = np.arange(6) < drawn['length'][:, None]
    np.testing.assert_allclose(np.where(real, found['logprob'], 0), texts.logprobs, atol=1e-3)
    assert np.abs(found['logprob'] - found['reference'])[real].max() > .01
    assert (np.asarray(found['divergence'])[real] > 0).all()


def other(folder, scale=.05):
    """A model near the policy, as what is distilled."""
    found = model(folder).generative()
    return jax.tree.map(lambda x: x + scale * jax.random.normal(jax.random.key(1), x.shape),
                        found.init(jax.random.key(0), found.load(None))), None


@pytest.mark.long
@pytest.mark.parametrize('name', ['reinforce', 'grpo', 'ppo'])
def test_an_algorithm_raises_the_share_of_a_token_that_is_rewarded(folder, name):
    _, found = rounds.train(*made(folder, name, 40, rate=5e-3, kl=.01))
    assert found['reward'][:3].mean() < .1 and found['reward'][-5:].mean() > .45
    assert found['kl'][0] == 0 and found['kl'][-1] > 1
    assert set(found) >= {'reward', 'kl', 'entropy', 'length', 'loss', 'grad_norm'}
    assert all(len(v) == 40 and np.isfinite(v).all() for v in found.values())


@pytest.mark.long
@pytest.mark.parametrize('name', ['reinforce', *(pytest.param(name, marks=pytest.mark.slow)
                                                 for name in ('grpo', 'ppo'))])
def test_a_large_coefficient_of_kl_keeps_the_policy_where_it_was(folder, name):
    def last(kl):
        found = rounds.train(*made(folder, name, 24, rate=1e-3, kl=kl, reward=early))[1]
        return found['kl'][-5:].mean()
    assert last(0.) > 1.5 > .5 > last(20.)


@pytest.mark.long
def test_distillation_reaches_its_teacher(folder):
    _, found = rounds.train(*made(folder, 'distill', 60, rate=5e-3, after=other(folder), reward=None))
    assert found['divergence'][-5:].mean() < .5 * found['divergence'][0]
    assert found['reward'].tolist() == [0.] * 60


@pytest.mark.long
def test_the_first_step_of_a_round_is_on_policy(folder):
    one, state = made(folder, 'grpo', minibatches=1, prompts=4, reward=early)
    for _ in range(3):
        state, found = one(state)
        assert found['clipped'] == 0  # the ratio is 1
    one, state = made(folder, 'grpo', minibatches=1, passes=3, prompts=4, reward=early)
    assert one(state)[1]['clipped'] > 0


@pytest.mark.long
@pytest.mark.parametrize('name', ['ppo', 'reinforce'])
def test_a_run_that_was_killed_goes_on_with_the_same_bits(folder, tmp_path, name):
    class Killed(Exception):
        pass

    def kill(done, *_):
        if done == 3:
            raise Killed
    want, whole = rounds.train(*made(folder, name, 5))
    for log in (kill, lambda *_: None):
        checkpoint = Checkpoint(tmp_path / 'c')
        one, state = made(folder, name, 5)
        with contextlib.suppress(Killed):
            got, found = rounds.train(one, state, checkpoint, log)
        checkpoint.close()
    chex.assert_trees_all_equal(got, want)
    chex.assert_trees_all_equal(found, whole)
    assert len(found['loss']) == 5


@pytest.mark.long
def test_a_process_that_is_to_stop_saves_the_round_first(folder, tmp_path, monkeypatch):
    asked = iter([False, True])
    monkeypatch.setattr(rounds.preemption, 'due', lambda: next(asked))
    checkpoint = Checkpoint(tmp_path / 'c')
    with pytest.raises(Preempted, match='after round 2 of 5'):
        rounds.train(*made(folder, 'reinforce', 5), checkpoint)
    checkpoint.close()
    assert Checkpoint(tmp_path / 'c').manager.latest_step() == 2


@pytest.mark.long
def test_seeds_and_rates_share_a_program(folder):
    rounds.compiled_learn.cache_clear()
    for seed, rate in ((0, 1e-2), (1, 1e-3)):
        one, state = made(folder, 'reinforce', seed=seed, rate=rate, kl=rate)
        one(state)
    assert rounds.compiled_learn(one.cast, one.static, one.mesh)._cache_size() == 1


def test_a_reward_has_one_number_for_each_text(folder):
    one, state = made(folder, 'grpo', reward=lambda *_: np.zeros(3))
    drawn = {'prompts': PROMPTS, 'begins': BEGINS, 'tokens': PROMPTS, 'length': BEGINS}
    object.__setattr__(one, 'draw', lambda state: drawn)
    with pytest.raises(ConfigError, match=r'reward: gives \(3,\), expected one number for each of \(8,\) texts'):
        one(state)


def test_all_algorithms_are_tested_here():
    assert set(policy.ALGORITHMS) == {'reinforce', 'grpo', 'ppo', 'distill'}
