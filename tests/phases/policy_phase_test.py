"""The kind `policy`: from texts to a policy through the store, killed and resumed, rewards, and what is refused."""
import copy
import dataclasses
import functools
import json

import chex
import jax
import numpy as np
import pytest
import tiny
from rounds_test import folder, model  # noqa: F401  (folder is a fixture)

from configs import own_data
from w2s_jax import graph
from w2s_jax.engine import cost, execute
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase
from w2s_jax.phases import kinds, policy
from w2s_jax.phases.context import Context
from w2s_jax.runtime import sharding
from w2s_jax.store.artifacts import Store
from w2s_jax.train.policy import ALGORITHMS

WORDS = ('ab', 'c', 'xyz', 'Hello', 'q r', 'mnop', 'Z', '12')


def context(*models, log=lambda *_: None):
    return Context({str(i): m for i, m in enumerate(models)}, sharding.make_mesh(), own_data.get_config().train, log)


def section(policy_model, name='reinforce', seed=0, **changes):
    """Of a small phase; `changes` in its fields, or the algorithm's settings."""
    entry = ALGORITHMS[name]
    values = {k: s.default for k, s in entry.settings.items()}
    values |= {k: changes.pop(k) for k in list(changes) if k in values}
    found = {'model': policy_model.generative().identity, 'algorithm': entry.identity(values),
             'optimizer': {'name': 'adamw', 'version': '1', 'schedule': 'constant'}, 'pick': {'temperature': 1.},
             'steps': 5, 'stops': [5], 'rounds': 4, 'prompts': 4, 'samples': 2, 'minibatches': 2, 'passes': 1,
             'hyper': {'seed': seed, 'learning_rate': 3e-3, 'weight_decay': 0., 'clip': 1., 'warmup': 0.,
                       'optimizer': {'beta2': .999}, 'algorithm': entry.traced(values)}}
    return found | changes


def texts(policy_model):
    """The phase that makes tokens of the prompts."""
    made = {'tokenizer': policy_model.tokenizer.fingerprint, 'max_length': 12, 'truncate': 'end'}
    words = graph.source({'text': np.array([[w] for w in WORDS], object)})
    return Phase('tokens', made, {'inputs': words}, 'tokens of the prompts', 'tokens')


def table():
    """A gold reward of each token."""
    return graph.source((np.arange(len(tiny.CHARACTERS)) < 33).astype(np.float32))


def phase(policy_model, *, needs=None, **changes):
    needs = {'inputs': texts(policy_model), 'reward': table()} | (needs or {})
    needs = {k: v for k, v in needs.items() if v is not None}
    return Phase('policy', section(policy_model, **changes), needs, 'policy', 'policy')


def executed(phases, place, *models, log=lambda *_: None):
    """What becomes of phases in a store at a place, by id."""
    return execute.execute(phases, Store(place), functools.partial(kinds.run, context=context(*models, log=log)),
                           lambda *_: None)


@pytest.mark.long
def test_seeds_are_trained_killed_and_resumed_to_the_same_bits(folder, tmp_path):  # noqa: F811
    class Killed(Exception):
        pass
    seen = []

    def kill(label, done, rounds, metrics):
        seen.append((label, done))
        if len(seen) == 7:  # in the third round of the second seed
            raise Killed
    one = model(folder)
    both = [phase(one, seed=seed) for seed in (0, 1)]
    assert both[0].group == both[1].group and both[0].id != both[1].id
    whole = executed(both, tmp_path / 'whole', one)
    with pytest.raises(Killed):
        executed(both, tmp_path / 'killed', one, log=kill)
    found = executed(both, tmp_path / 'killed', one, log=lambda label, done, *_: seen.append((label, done)))
    assert [done for _, done in seen] == [1, 2, 3, 4, 1, 2, 3, 3, 4]
    for p in both:
        assert found[p.id].arrays.keys() >= {'reward', 'kl', 'entropy', 'length', 'loss'}
        assert found[p.id].arrays['reward'].shape == (4,) and found[p.id].metrics['texts'] == 32
        chex.assert_trees_all_equal(dict(found[p.id].arrays), dict(whole[p.id].arrays))
        chex.assert_trees_all_equal(found[p.id].params(), whole[p.id].params())
    assert (found[both[0].id].arrays['reward'] != found[both[1].id].arrays['reward']).any()

    further = phase(one, rounds=1, needs={'start': both[0], 'rows': graph.source(np.array([1, 3, 4, 6]))})
    more = executed([further], tmp_path / 'killed', one)[further.id]
    assert more.arrays['kl'][0] == 0  # the reference is where it started
    start, ended = found[both[0].id].params(), more.params()
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, ended)
    assert 0 < max(jax.tree.leaves(moved)) < .02


@pytest.mark.long
@pytest.mark.parametrize(('name', 'mode'), [('grpo', 'lora'), ('ppo', 'full')])
def test_what_is_kept_is_the_policy_alone(folder, tmp_path, name, mode):  # noqa: F811
    one = model(folder, mode)
    p = phase(one, name=name, rounds=2)
    found = executed([p], tmp_path, one)[p.id]
    own = jax.eval_shape(lambda: one.generative().init(jax.random.key(0), one.generative().load(None)))
    chex.assert_trees_all_equal_shapes(found.params(), own)
    assert found.metrics['last'].keys() >= {'reward', 'kl', 'clipped'}
    assert set(found.arrays) == {*found.metrics['last']}


@pytest.mark.slow
def test_a_teacher_with_and_without_a_weak_model_before(folder, tmp_path):  # noqa: F811
    """The target of anchor + 1 (after - before) is that of `after` alone, if anchor and before are one model."""
    one = model(folder)
    identity = one.generative().identity
    trained = phase(one, rounds=2, needs={})
    changes = {'name': 'distill', 'rounds': 2}
    needs = {'reward': None, 'after': trained}
    alone = phase(one, teacher={'after': identity}, needs=needs, **changes)
    shifted = phase(one, teacher={'after': identity, 'before': identity}, needs=needs, **changes)
    still = phase(one, teacher={'after': identity, 'before': identity}, needs=needs | {'before': trained},
                  minibatches=1, **changes)
    found = executed([alone, shifted, still], tmp_path, one)
    assert found[alone.id].arrays['divergence'][0] > 1e-3
    np.testing.assert_allclose(found[shifted.id].arrays['divergence'], found[alone.id].arrays['divergence'], rtol=.01)
    assert found[still.id].arrays['divergence'][0] < 1e-6  # nothing is to be learned: the policy itself


def reward_model(folder, place, mode='full', texts=2, head=True):  # noqa: F811
    """(model of pairs, a fit of it with a random head)."""
    found = model(folder, mode, texts)
    params = jax.tree.map(np.asarray, found.init(jax.random.key(3), found.load(None)))
    if head:
        params['head'] = jax.tree.map(lambda x: np.random.default_rng(0).normal(size=x.shape).astype(np.float32),
                                      params['head'])
    fit = {'kind': 'fit', 'mode': mode, 'texts': texts}
    return found, Store(place).save(fit, {'seconds': 0.}, {}, params)


@pytest.mark.long
@pytest.mark.parametrize('mode', ['full', 'lora'])
def test_a_reward_model_judges_each_text_with_its_prompt_alone(folder, tmp_path, mode):  # noqa: F811
    judge, artifact = reward_model(folder, tmp_path, mode)
    one = model(folder)
    rng = np.random.default_rng(1)
    tokens, prompts = rng.integers(6, 60, (5, 4)).astype(np.int32), rng.integers(6, 60, (5, 3)).astype(np.int32)
    length, begins = np.array([4, 2, 3, 1, 4]), np.array([3, 1, 2, 3, 1])
    tokens[1, 1] = 5
    for stop, read in ((True, length), (False, length - [0, 1, 0, 0, 0])):
        s = section(one, reward={'model': judge.identity, 'stop': stop})
        needs = {'reward': artifact, 'inputs': {'length': np.full((2, 1), 3)}}
        c = context(one, judge)
        c = dataclasses.replace(c, execution=copy.deepcopy(c.execution))
        c.execution.eval_batch_size = 3
        found = policy.reward_of(s, needs, c, one.generative())(tokens, length, prompts, begins)
        assert found.shape == (5,) and found.std() > 0
        for row in range(5):
            text = [*prompts[row, :begins[row]], *tokens[row, :read[row]]]
            pair = {'tokens': np.array([[text, [9] * len(text)]], np.int32), 'length': np.full((1, 2), len(text))}
            want = judge.apply(artifact.params(), pair, judge.frozen(None))[0, 0]
            np.testing.assert_allclose(found[row], want, rtol=1e-3, atol=1e-3)


@pytest.mark.long
def test_a_policy_learns_what_a_reward_model_likes(folder, tmp_path):  # noqa: F811
    judge, artifact = reward_model(folder, tmp_path / 'fit')
    one, pair = model(folder), model(folder, texts=2)
    s = section(one, rounds=25, samples=4, kl=0., reward={'model': judge.identity, 'stop': True})
    words = np.random.default_rng(0).integers(6, 60, (8, 1, 4)).astype(np.int32)
    needs = {'inputs': {'tokens': words, 'length': np.full((8, 1), 4, np.int32)}, 'reward': artifact}
    p = Phase('policy', s, {}, 'policy', 'policy')
    (_, arrays, _), = policy.run([p], [needs], context(one, pair), tmp_path / 'pending')
    reward = arrays['reward']
    assert reward[-4:].mean() > reward[:4].mean() + 2 * reward[:4].std()


def test_a_run_that_diverged_says_where():
    history = {'loss': np.float32([1, np.nan]), 'length': np.float32([3, 2.5])}
    metrics, arrays, params = policy.result(
        Phase('policy', {'prompts': 4, 'samples': 2}, {}, 'policy'), None, history, 2.)
    assert metrics['failed'].startswith('loss is nan in round 2, expected a finite number')
    assert (metrics['tokens'], metrics['rounds'], arrays, params) == (44, 2, None, None)


def test_a_table_rewards_tokens_or_steps():
    tokens, length = np.array([[1, 2, 0], [2, 2, 1]]), np.array([2, 3])
    prompts, begins = np.array([[0, 2], [1, 0]]), np.array([2, 1])
    one, two = np.array([.5, 1., 10.]), np.arange(9.).reshape(3, 3)
    assert policy.tabled(one, 3)(tokens, length, prompts, begins).tolist() == [11., 21.]
    steps = [two[2, 1] + two[1, 2], two[1, 2] + two[2, 2] + two[2, 1]]
    assert policy.tabled(two, 3)(tokens, length, prompts, begins).tolist() == steps


def test_who_tunes_more_takes_longer(folder):  # noqa: F811
    one = model(folder)
    short, long = (cost.operations(phase(one, rounds=r), {'student': one}, 4.) for r in (2, 6))
    assert long == 3 * short > 0
    assert json.loads(json.dumps(section(one))) == section(one)


def asked(one, pairs, changes, needs, place):
    s = section(one, **changes)
    words = {'tokens': np.full((8, 1, 3), 7, np.int32), 'length': np.full((8, 1), 3, np.int32)}
    return policy.run([Phase('policy', s, {}, 'policy', 'policy')],
                      [{'inputs': words, 'reward': np.zeros(len(tiny.CHARACTERS))} | needs], context(one, pairs), place)


@pytest.mark.parametrize(('changes', 'needs', 'says'), [
    ({'pick': {'temperature': 0.}}, {}, "pick: {'temperature': 0.0}, expected a temperature above 0 and no filters"),
    ({'pick': {'top_p': .9}}, {}, 'expected a temperature above 0 and no filters'),
    ({'rounds': 0}, {}, 'rounds: 0, expected a whole number, 1 or more'),
    ({'minibatches': 3}, {}, 'minibatches: 3, expected a divisor of the 8 texts of a round'),
    ({'prompts': 10}, {}, 'prompts: 10 a round, expected at most the 8 that there are'),
    ({'kl': -1.}, {}, r'algorithm.kl: -1.0, expected a number in \[0, 10000\]'),
    ({'algorithm': {'name': 'reinforced'}}, {}, "algorithm.name: unknown 'reinforced'.*did you mean 'reinforce'"),
    ({'optimizer': {'name': 'lbfgs', 'schedule': 'constant'}}, {}, "optimizer.name: 'lbfgs' takes no steps"),
    ({'samples': 1, 'rounds': 1}, {}, 'samples: 1 a prompt, expected 2 or more'),
    ({}, {'reward': np.zeros(3)}, r'reward: a table of shape \(3,\), expected a number for each of 66 tokens'),
    ({'teacher': {'after': {}}}, {}, "teacher: .'after'., expected none for algorithm 'reinforce'"),
    ({'name': 'distill'}, {}, "teacher: .., expected after, or after and before for algorithm 'distill'"),
    ({}, {'inputs': {'tokens': np.ones((8, 2, 3), int), 'length': np.full((8, 2), 3)}}, r'one text a row \[n, 1, L\]'),
])
def test_what_cannot_be_run_is_said_in_one_line(folder, tmp_path, changes, needs, says):  # noqa: F811
    with pytest.raises(ConfigError, match=says):
        asked(model(folder), model(folder, texts=2), dict(changes), needs, tmp_path)


@pytest.mark.long
def test_who_cannot_be_a_policy_or_its_reward(folder, tmp_path):  # noqa: F811
    one, pairs = model(folder), model(folder, texts=2)
    with pytest.raises(ConfigError, match='reward: none, expected a phase or a table'):
        policy.reward_of(section(one), {}, context(one), one.generative())
    with pytest.raises(ConfigError, match="'tiny' predicts no tokens of texts, expected a generative causal"):
        asked(one, pairs, {'model': one.identity}, {}, tmp_path)

    def judged_by(judge, artifact, needed=None, steps=5):
        s = section(one, reward={'model': judge.identity, 'stop': True}, steps=steps)
        return policy.reward_of(s, {'reward': artifact, 'inputs': {'length': np.full((2, 1), 3)}},
                                context(one, judge), needed or one.generative())
    classes = reward_model(folder, tmp_path / 'classes', texts=1)
    with pytest.raises(ConfigError, match="reward: 'tiny' of mode 'full' gives texts no reward, expected a model that "
                                          'was trained on pairs'):
        judged_by(*classes)
    judge, artifact = reward_model(folder, tmp_path / 'pairs')
    with pytest.raises(ConfigError, match=r"reads up to 128 tokens, expected 203"):
        judged_by(judge, artifact, steps=200)
    other = dataclasses.replace(one.generative(), name='other', tokenizer=dataclasses.replace(
        one.tokenizer, fingerprint='another'))
    with pytest.raises(ConfigError, match="reward: 'tiny' has another tokenizer than 'other', expected the same"):
        judged_by(judge, artifact, other)
