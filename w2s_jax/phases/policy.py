"""Kind `policy`: a causal language model trained on the texts that it draws itself, from their reward or from teachers.
"""
import functools
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from w2s_jax import data
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, describe
from w2s_jax.models.modes import Model
from w2s_jax.objectives import ALGORITHMS
from w2s_jax.phases import context as common
from w2s_jax.phases.context import Context
from w2s_jax.runtime import multihost, sharding
from w2s_jax.sampling import Pick
from w2s_jax.store import lease
from w2s_jax.store.artifacts import Artifact
from w2s_jax.train.checkpoint import Checkpoint
from w2s_jax.train.optimizers import OPTIMIZERS
from w2s_jax.train.rounds import Cast, Round, Static, Weights, compiled_init, joined, train
from w2s_jax.train.step import overlay


def run(phases: list[Phase], inputs: list[dict], context: Context, folder: pathlib.Path) -> list[tuple]:
    """Trains phases one after the other, each from its own last round; the result of each has what its rounds logged
    and the parameters of the policy."""
    return [one(phase, needs, context, folder / phase.id) for phase, needs in zip(phases, inputs, strict=True)]


def one(phase: Phase, needs: dict, context: Context, folder: pathlib.Path) -> tuple:
    """The result of one phase, `(metrics, arrays, params)`; of one that diverged, only why."""
    section, seed, began = phase.section, phase.section['hyper']['seed'], time.perf_counter()
    static, model = static_of(section), common.model_of(section, context.models)
    check(section, model, static)
    rows, reward = prompts(needs, model, section), reward_of(section, needs, context, model)
    after, before = (teacher(name, section, needs, context, model) for name in ('after', 'before'))
    start = needs['start'].params() if 'start' in needs else None
    shardings = functools.partial(sharding.sharding, context.mesh)
    hyper = jax.tree.map(np.float32, {k: v for k, v in section['hyper'].items() if k != 'seed'})
    state = compiled_init(model, static, context.mesh)(hyper, np.uint32(seed), model.load(shardings), start)
    reference = jax.tree.map(jnp.copy, state.params['policy'])  # the state's own are given away at every step
    weights = Weights(model.frozen(shardings), reference, after[1], before[1])
    play = Round(Cast(model, after[0], before[0]), static, weights, rows, section['prompts'], section['steps'], hyper,
                 seed, context.mesh, reward, tuple(section['stops']))
    checkpoint = Checkpoint(folder / 'checkpoint', check=lease.check)
    try:
        state, history = train(play, state, checkpoint, functools.partial(context.log, describe([phase])))
    finally:
        checkpoint.close()
    return result(phase, state, history, time.perf_counter() - began)


def result(phase: Phase, state, history: dict, seconds: float) -> tuple:
    """What is kept of a run that is over."""
    section, loss = phase.section, history['loss']
    texts = section['prompts'] * section['samples']
    measured = {'seconds': seconds, 'rounds': len(loss), 'texts': texts * len(loss),
                'tokens': round(float(history['length'].sum()) * texts)}
    if not np.isfinite(loss).all():
        return measured | {'failed': f'loss is {loss[-1]} in round {len(loss)}, expected a finite number (a smaller '
                                     'learning rate may help)'}, None, None
    measured['last'] = {k: float(v[-1]) for k, v in history.items()}
    return measured, history, multihost.fetch(state.params['policy']) if phase.keep else None


def static_of(section: dict) -> Static:
    """What the program of a phase is compiled for. Raises ConfigError for an algorithm or optimiser that is none."""
    named, optimizer = section['algorithm'], section['optimizer']
    entry = ALGORITHMS.get_entry(named['name'], 'algorithm.name')
    if OPTIMIZERS.get_entry(optimizer['name'], 'optimizer.name').options.get('exact'):
        raise ConfigError(f'optimizer.name: {optimizer["name"]!r} takes no steps, expected another')
    values = tuple((k, named[k]) for k, s in entry.settings.items() if not s.traced)
    return Static(entry.name, entry.version, values, section['samples'], section['rounds'], section['minibatches'],
                  section['passes'], optimizer['name'], optimizer['schedule'], drawn_with(section).temperature)


def drawn_with(section: dict) -> Pick:
    """How tokens are picked. Raises ConfigError unless that is as the policy itself says, at some temperature: else
    its gradient would be that of another."""
    pick = Pick(**section['pick'])
    if pick != Pick(temperature=pick.temperature) or not pick.temperature:
        raise ConfigError(f'pick: {section["pick"]}, expected a temperature above 0 and no filters: a policy learns '
                          'from what it says itself')
    return pick


def check(section: dict, model: Model, static: Static) -> None:
    """Raises ConfigError for a section or a model that cannot be run."""
    if multihost.count() > 1:
        raise ConfigError(f'policy: {multihost.count()} hosts, expected one')
    if model.language is None or model.tokenizer is None:
        raise ConfigError(f'policy: {model.name!r} predicts no tokens of texts, expected a generative causal language '
                          'model')
    for field in ('prompts', 'samples', 'rounds', 'minibatches', 'passes', 'steps'):
        if not isinstance(section[field], int) or section[field] < 1:
            raise ConfigError(f'{field}: {section[field]!r}, expected a whole number, 1 or more')
    if (texts := section['prompts'] * section['samples']) % section['minibatches']:
        raise ConfigError(f'minibatches: {section["minibatches"]}, expected a divisor of the {texts} texts of a round')
    for name, setting in static.entry.settings.items():
        given = section['hyper']['algorithm'] if setting.traced else section['algorithm']
        if name not in given:
            raise ConfigError(f'algorithm.{name}: not given, expected a number or word as {setting.default!r}')
        setting.check(f'algorithm.{name}', given[name])
    group = jax.ShapeDtypeStruct((section['samples'], 1), jnp.float32)
    drawn = dict.fromkeys(('old', 'reference', 'value'), group) | {
        'mask': jax.ShapeDtypeStruct(group.shape, bool), 'reward': jax.ShapeDtypeStruct(group.shape[:1], jnp.float32)}
    jax.eval_shape(lambda x: static.functions.judge(x, section['samples'], static.all_settings(section['hyper'])),
                   drawn)  # raises if texts of a prompt are too few to be compared


def prompts(needs: dict, model: Model, section: dict) -> data.Inputs:
    """`tokens` `[n, L]` and `length` `[n]` of the prompts of a phase. Raises ConfigError."""
    found = common.arrays(needs['inputs'])
    at = common.rows(needs)
    tokens, length = (np.asarray(found[k])[at] for k in ('tokens', 'length'))
    if tokens.ndim != 3 or tokens.shape[1] != 1:
        raise ConfigError(f'inputs: tokens of shape {tokens.shape}, expected one text a row [n, 1, L] as prompt')
    if len(tokens) < section['prompts']:
        raise ConfigError(f'prompts: {section["prompts"]} a round, expected at most the {len(tokens)} that there are')
    common.check_vocabulary(model, {'tokens': tokens})
    return {'tokens': tokens[:, 0, :int(length.max())], 'length': length[:, 0]}


def teacher(name: str, section: dict, needs: dict, context: Context, policy: Model) -> tuple:
    """(model, (params, frozen)) of a model that is distilled, trained by the phase that is needed under that name or as
    it was published; (None, None) if there is none. Raises ConfigError for one that speaks of other tokens."""
    wanted = section.get('teacher', {})
    asks = ALGORITHMS[section['algorithm']['name']].options.get('teacher', False)
    if asks != ('after' in wanted):
        raise ConfigError(f'teacher: {sorted(wanted)}, expected {"after, or after and before" if asks else "none"} for '
                          f'algorithm {section["algorithm"]["name"]!r}')
    if name not in wanted:
        return None, None
    model = common.model_of({'model': wanted[name]}, context.models)
    same_tokens(f'teacher.{name}', model, policy)
    if model.language is None or model.transformer.config.vocab_size != policy.transformer.config.vocab_size:
        raise ConfigError(f'teacher.{name}: {model.name!r} predicts {model.vocab_size} tokens, expected a generative '
                          f'model of {policy.vocab_size}')
    params = model.init(jax.random.key(0), model.load(None))
    params = overlay(params, needs[name].params()) if name in needs else params
    return model, sharding.put_tree((params, model.frozen(None)), context.mesh)


def same_tokens(field: str, model: Model, policy: Model) -> None:
    """Raises ConfigError unless a model has the policy's tokenizer."""
    assert policy.tokenizer is not None
    if model.tokenizer is None or model.tokenizer.fingerprint != policy.tokenizer.fingerprint:
        raise ConfigError(f'{field}: {model.name!r} has another tokenizer than {policy.name!r}, expected the same, '
                          'since it reads the tokens that were drawn')


def reward_of(section: dict, needs: dict, context: Context, policy: Model) -> Callable | None:
    """The reward of texts (`rounds.Round`): of a reward model, or of a table. None if nothing judges them, which only
    distillation allows. Raises ConfigError."""
    if 'reward' not in needs:
        if not ALGORITHMS[section['algorithm']['name']].options.get('teacher'):
            raise ConfigError(f'reward: none, expected a phase or a table for algorithm '
                              f'{section["algorithm"]["name"]!r}')
        return None
    if not isinstance(needs['reward'], Artifact):
        return tabled(np.asarray(needs['reward'], np.float32), policy.vocab_size)
    model, params = common.model_of({'model': section['reward']['model']}, context.models), needs['reward'].params()
    if model.featurize is not None or 'reward' not in params.get('head', {}):
        raise ConfigError(f'reward: {model.name!r} of mode {model.identity.get("mode")!r} gives texts no reward, '
                          'expected a model that was trained on pairs of texts, of mode full or lora')
    same_tokens('reward', model, policy)
    longest = int(np.max(common.arrays(needs['inputs'])['length'])) + section['steps']
    if longest > model.max_length:
        raise ConfigError(f'reward: {model.name!r} reads up to {model.max_length} tokens, expected {longest}, those of '
                          'a prompt and steps')
    stops = () if section['reward']['stop'] else tuple(section['stops'])
    return functools.partial(judged, model, sharding.put_tree((params, model.frozen(None)), context.mesh), stops,
                             context.execution.eval_batch_size)


def judged(model: Model, weights: tuple, stops: tuple[int, ...], most: int, tokens, length, prompts, begins):
    """`[B]`: the scalar rewards of texts with their prompts, by a model of pairs, which judges both of a pair apart.

    Args:
      weights: (params, frozen).  stops: tokens that it does not read at a text's end.  most: texts at a time.
    """
    last = np.take_along_axis(tokens, length[:, None] - 1, axis=1)[:, 0]
    whole, size = joined(prompts, begins, tokens, length - np.isin(last, stops))
    rows, width = len(length), min(most, len(length)) // 2 * 2 or 2
    found = []
    for at, real in data.eval_batches(rows, width):
        pair = {'tokens': whole[at].reshape(width // 2, 2, -1), 'length': size[at].reshape(width // 2, 2)}
        found.append(np.asarray(compiled_reward(model)(*weights, pair)).reshape(-1)[:real])
    return np.concatenate(found)


@functools.cache
def compiled_reward(model: Model) -> Callable:
    """The jitted (params, frozen, pairs of texts) -> their rewards `[B / 2, 2]`."""
    return jax.jit(lambda params, frozen, inputs: model.apply(params, inputs, frozen))


def tabled(table: np.ndarray, tokens: int) -> Callable:
    """The reward of texts as the sum of what a table says of each drawn token, `[V]`, or of each and the one before it,
    `[V, V]` (before, drawn). Raises ConfigError for another shape."""
    if table.shape not in ((tokens,), (tokens, tokens)):
        raise ConfigError(f'reward: a table of shape {table.shape}, expected a number for each of {tokens} tokens '
                          'or pairs')

    def reward(drawn, length, prompts, begins):
        said = np.asarray(drawn)
        first = np.take_along_axis(np.asarray(prompts), begins[:, None] - 1, axis=1)
        found = table[said] if table.ndim == 1 else table[np.concatenate([first, said[:, :-1]], axis=1), said]
        return np.where(np.arange(said.shape[1])[None] < np.asarray(length)[:, None], found, 0).sum(1)
    return reward
