"""On-policy training, the loop: a round draws texts, has them judged, takes some steps on them, and forgets them.

`Round` is a pure function of a state. All of it but the judging of texts is compiled; its draws are `fold_in`s of the
seed, the round, the row of the prompt and the number of the sample, so that a run that was killed goes on as it was.
"""
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax import data, sampling
from w2s_jax.errors import ConfigError, Preempted
from w2s_jax.models.generative import CHUNK
from w2s_jax.models.modes import Model
from w2s_jax.models.transformer import language_logits
from w2s_jax.objectives import ALGORITHMS
from w2s_jax.registry import Settings
from w2s_jax.runtime import multihost, preemption, sharding
from w2s_jax.train import optimizers
from w2s_jax.train.policy import Algorithm, mean_over, reverse_kl, shifted
from w2s_jax.train.step import overlay

INIT, DRAWS, ORDER = 0, 1, 2  # what a seed is used for


class Cast(NamedTuple):
    """Whose tokens count: the policy's, and those of the models it is distilled from: one after its training, and if
    their difference is what is distilled, the same before it. Hashable: programs are compiled for them."""
    policy: Model
    after: Model | None = None
    before: Model | None = None


class Weights(NamedTuple):
    """What is not trained: of the policy its frozen part and what it was before training, of a Cast's other models
    (params, frozen)."""
    frozen: Any
    reference: Any
    after: Any = None
    before: Any = None


@dataclasses.dataclass(frozen=True)
class Static:
    """What a program is compiled for.

    settings: the static ones of the algorithm.  samples: texts a prompt.  A round takes `passes` times `minibatches`
    steps: so often it goes through its texts, in another order each time.  temperature: of the draws; log-probabilities
    are those at this temperature, since that is the policy which is drawn from.
    """
    algorithm: str
    version: str
    settings: tuple[tuple[str, Any], ...]
    samples: int
    rounds: int
    minibatches: int
    passes: int = 1
    optimizer: str = 'adamw'
    schedule: str = 'constant'
    temperature: float = 1.0

    @property
    def entry(self):
        """What is registered."""
        return ALGORITHMS[self.algorithm]

    @property
    def functions(self) -> Algorithm:
        """Of the algorithm."""
        return self.entry.fn()

    @property
    def steps(self) -> int:
        """Of the optimiser, in all rounds."""
        return self.rounds * self.minibatches * self.passes

    def all_settings(self, hyper: dict) -> Settings:
        """Of the algorithm, static and traced."""
        return Settings(dict(self.settings) | hyper['algorithm'])

    def optimiser(self, hyper: dict) -> optax.GradientTransformation:
        """Over all rounds."""
        return optimizers.build(self.optimizer, self.schedule, self.steps, hyper)


@flax.struct.dataclass
class State:
    """Everything a run remembers between two rounds. round: how many are over.  params: `policy`, those of the model,
    and `critic`, if the algorithm has one."""
    round: Any
    params: Any
    opt_state: Any


def init_state(hyper: dict, seed, pretrained, start=None, *, model: Model, static: Static) -> State:
    """The state before the first round.

    Args:
      seed: may be traced.  pretrained: what `model.load` gave.  start: parameters of the same model and mode to go on
        from, or None. The critic says 0 of all texts at first.
    """
    key = jax.random.fold_in(jax.random.key(seed), INIT)
    params = {'policy': overlay(model.init(key, pretrained), start)}
    if static.entry.options.get('critic'):
        params['critic'] = {'weight': jnp.zeros(model.transformer.config.d_out), 'bias': jnp.zeros(())}
    return State(jnp.zeros((), jnp.int32), params, static.optimiser(hyper).init(params))


def rows_of(seed: int, number: int, n: int, prompts: int) -> np.ndarray:
    """`[prompts]`: which of n rows round `number` draws texts for: those of an epoch in a new order, as a fit's."""
    epoch, at = divmod(number, n // prompts)
    return data.epoch_batches(seed, epoch, n, prompts)[at]


def row_keys(seed: int, number: int, rows, samples: int):
    """`[P G]` keys: that of sample g of row r is a fold_in of seed, round, r and g, whatever else is drawn."""
    root = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), DRAWS), number)

    def one(row, sample):
        return jax.random.fold_in(jax.random.fold_in(root, row), sample)
    return jax.vmap(one)(jnp.repeat(jnp.asarray(rows), samples), jnp.tile(jnp.arange(samples), len(rows)))


def joined(prompts, begins, tokens, length):
    """Prompts `[B, L]` of `begins` `[B]` tokens, each with the `length` `[B]` first of `tokens` `[B, T]` behind it:
    `[B, L + T]`, 0 after the end, and how long they are `[B]`."""
    size, most = prompts.shape[1] + tokens.shape[1], tokens.shape[1]
    at, begins, ends = jnp.arange(size)[None], begins[:, None], (begins + length)[:, None]
    drawn = jnp.take_along_axis(tokens, jnp.clip(at - begins, 0, most - 1), axis=1)
    given = jnp.pad(prompts, ((0, 0), (0, most)))
    return jnp.where(at < begins, given, jnp.where(at < ends, drawn, 0)), ends[:, 0]


def states(model: Model, weights: tuple, batch: dict):
    """What a model's next-token head reads where each drawn token is to come, `[B, T, D]`, and the head's table.

    Args:
      weights: (params, frozen).  batch: `prompts`, `begins`, `tokens`, `length` as in `joined`.
    """
    assert model.language is not None
    variables, table = model.language(*weights)
    hidden = model.transformer.apply(variables, *joined(*(batch[k] for k in ('prompts', 'begins', 'tokens', 'length'))))
    at = batch['begins'][:, None] - 1 + jnp.arange(batch['tokens'].shape[1])[None]
    return jnp.take_along_axis(hidden, at[..., None], axis=1), table


def over_positions(fn: Callable, *arrays):
    """`fn` of arrays `[B, T, ...]` to a dict of `[B, T]`, in chunks of positions, and again when it is differentiated:
    distributions over the vocabulary are most of the memory."""
    fn, size = jax.checkpoint(fn), arrays[0].shape[1]
    if size <= CHUNK:
        return fn(*arrays)
    chunks = -(-size // CHUNK)

    def cut(x):
        x = jnp.pad(x, [(0, 0), (0, chunks * CHUNK - size)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(len(x), chunks, CHUNK, *x.shape[2:]), 1, 0)
    found = jax.lax.map(lambda part: fn(*part), tuple(map(cut, arrays)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)[:, :size], found)


def spoken(parts: list[tuple], tokens, temperature: float, target: Callable):
    """What models say of drawn tokens `[B, T]`: `logprob` of the first, `reference` of the second, both `[B, T]`, and
    of the first its `entropy` and its reverse KL to `target` of all the others, `divergence`.

    Args:
      parts: (model, what `states` gave of it), the policy first.  target: of log-probabilities `[B, T, V]`, a list.
    """
    def some(tokens, *hidden):
        said = [jax.nn.log_softmax(language_logits(h, table, model.transformer.config) / temperature)
                for h, (model, (_, table)) in zip(hidden, parts, strict=True)]
        found = {'entropy': -jnp.sum(jnp.exp(said[0]) * said[0], axis=-1),
                 'divergence': reverse_kl(said[0], target(said[1:])) if len(said) > 1 else jnp.zeros(tokens.shape)}
        own = [jnp.take_along_axis(x, tokens[..., None], axis=-1)[..., 0] for x in said[:2]]
        return found | dict(zip(('logprob', 'reference'), own, strict=False))
    return over_positions(some, tokens, *(hidden for _, (hidden, _) in parts))


def read(cast: Cast, params: dict, weights: Weights, batch: dict, static: Static, settings: Settings):
    """What the loss reads of the policy: `logprob` and `entropy`, with a critic `value`, with teachers `divergence`.

    The log-probabilities of teachers are at temperature 1: what is distilled is the distribution itself.
    """
    own = states(cast.policy, (params['policy'], weights.frozen), batch)
    parts, temperature = [(cast.policy, own)], static.temperature
    if cast.after is not None:
        pairs = [(cast.after, weights.after)]
        if cast.before is not None:
            pairs = [(cast.policy, (weights.reference, weights.frozen)), *pairs, (cast.before, weights.before)]
        parts += [(model, jax.lax.stop_gradient(states(model, w, batch))) for model, w in pairs]
        temperature = 1.0

    def target(said):
        return said[0] if cast.before is None else shifted(said[0], said[1], said[2], settings.alpha)
    return spoken(parts, batch['tokens'], temperature, target) | valued(params, own[0])


def valued(params: dict, hidden) -> dict:
    """`value` `[B, T]` of what hidden states `[B, T, D]` have read, if there is a critic."""
    if 'critic' not in params:
        return {}
    product = jnp.einsum('btd,d->bt', hidden.astype(jnp.float32), params['critic']['weight'], precision='highest')
    return {'value': product + params['critic']['bias']}


def appraised(cast: Cast, params: dict, weights: Weights, drawn: dict, static: Static, settings: Settings):
    """What was drawn with what the algorithm's loss reads beside it, and what is logged of it. In parts as large as a
    minibatch."""
    def part(batch):
        both = [(cast.policy, states(cast.policy, (p, weights.frozen), batch))
                for p in (params['policy'], weights.reference)]
        own, _ = both[0][1]
        return spoken(both, batch['tokens'], static.temperature, lambda said: said[0]) | valued(params, own)
    parts = jax.tree.map(lambda x: x.reshape(static.minibatches, -1, *x.shape[1:]), drawn)
    found = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(part, parts))
    mask = jnp.arange(drawn['tokens'].shape[1])[None] < drawn['length'][:, None]
    drawn = drawn | {'mask': mask, 'old': found['logprob'], 'reference': found['reference']}
    drawn |= {'value': found['value']} if 'value' in found else {}
    logged = {'reward': drawn['reward'].mean(), 'length': drawn['length'].astype(jnp.float32).mean(),
              'kl': jnp.where(mask, found['divergence'], 0).sum(1).mean(), 'entropy': mean_over(found['entropy'], mask)}
    return drawn | static.functions.judge(drawn, static.samples, settings), logged


def learn(state: State, drawn: dict, seed, hyper: dict, weights: Weights, *, cast: Cast, static: Static):
    """A round's steps on the texts that were drawn.

    Args:
      drawn: `prompts` `[B, L]`, `begins`, `length`, `reward` `[B]`, `tokens` `[B, T]`; B divides by the minibatches.
    Returns: the next state, and scalars: `reward`, `length`, `kl` (of whole texts to the reference, each token's exact
      given those before it), `entropy`, all before the steps; `loss`, `grad_norm` and what the algorithm logs, means of
      the steps.
    """
    settings, tx, rows = static.all_settings(hyper), static.optimiser(hyper), len(drawn['length'])
    columns, logged = appraised(cast, state.params, weights, drawn, static, settings)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), ORDER), state.round)
    order = jax.vmap(lambda k: jax.random.permutation(k, rows))(jax.random.split(key, static.passes))

    def step(carry, at):
        params, opt_state = carry
        batch = jax.tree.map(lambda x: x[at], columns)

        def loss_of(params):
            found = read(cast, params, weights, batch, static, settings)
            losses, more = static.functions.losses(found, batch, settings)
            return losses.mean(), more
        (loss, more), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        params, opt_state = optimizers.step(tx, grads, opt_state, params)
        return (params, opt_state), {'loss': loss, 'grad_norm': optax.tree.norm(grads), **more}

    (params, opt_state), found = jax.lax.scan(step, (state.params, state.opt_state),
                                              order.reshape(static.passes * static.minibatches, -1))
    return State(state.round + 1, params, opt_state), logged | jax.tree.map(jnp.mean, found)


@functools.cache
def compiled_init(model: Model, static: Static, mesh) -> Callable:
    """The jitted `init_state`: (hyper, seed, pretrained, start) -> state, where a mesh wants it."""
    return jax.jit(lambda *args: sharding.constrain(mesh, init_state(*args, model=model, static=static)))


@functools.cache
def compiled_learn(cast: Cast, static: Static, mesh) -> Callable:
    """The jitted `learn`: (state, drawn, seed, hyper, weights) -> (state, metrics), the state donated."""
    step = sharding.traced_on(mesh, functools.partial(learn, cast=cast, static=static))

    def placed(*args):
        state, metrics = step(*args)
        return sharding.constrain(mesh, state), metrics
    return jax.jit(placed, donate_argnums=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Round:
    """One round, state -> (state, metrics): a pure function, given what stands here.

    reward: (tokens `[B, T]`, length `[B]`, prompts `[B, L]`, begins `[B]`) -> `[B]` numbers, of B texts and the prompts
      before them, which `begins` tokens are of; None: texts are not judged, for an algorithm that reads no reward.
    rows: `tokens` `[n, L]` and `length` `[n]`, the prompts.  prompts: how many a round.  steps: T.  stops: tokens that
    end a text.  hyper: as of `optimizers.build`, and `algorithm`, its traced settings.
    """
    cast: Cast
    static: Static
    weights: Weights
    rows: data.Inputs
    prompts: int
    steps: int
    hyper: dict
    seed: int
    mesh: Any
    reward: Callable | None = None
    stops: Sequence[int] = ()

    def __call__(self, state: State) -> tuple[State, dict]:
        """The next state, and scalars to log."""
        drawn = self.draw(state)
        reward = np.zeros(len(drawn['length']), np.float32)
        if self.reward is not None:
            reward = np.asarray(self.reward(*(drawn[k] for k in ('tokens', 'length', 'prompts', 'begins'))), np.float32)
        if reward.shape != drawn['length'].shape:
            raise ConfigError(f'reward: gives {reward.shape}, expected one number for each of {drawn["length"].shape} '
                              'texts')
        drawn = sharding.place_rows(drawn | {'reward': reward}, self.mesh)
        return compiled_learn(self.cast, self.static, self.mesh)(state, drawn, np.uint32(self.seed), self.hyper,
                                                                 self.weights)

    def draw(self, state: State) -> dict:
        """The texts of a round: `prompts` `[P G, L]`, `begins`, `tokens` `[P G, T]`, `length`."""
        number, samples = int(multihost.fetch(state.round)), self.static.samples
        at = rows_of(self.seed, number, len(self.rows['length']), self.prompts)
        prompts, begins = (np.repeat(np.asarray(self.rows[k])[at], samples, axis=0) for k in ('tokens', 'length'))
        texts = sampling.bind(self.cast.policy, mesh=self.mesh)(
            state.params['policy'], prompts, begins, row_keys(self.seed, number, at, samples), steps=self.steps,
            pick=sampling.Pick(temperature=self.static.temperature), stops=self.stops, frozen=self.weights.frozen)
        return {'prompts': prompts, 'begins': begins, 'tokens': np.asarray(texts.tokens),
                'length': np.asarray(texts.length)}


@preemption.at_steps()
def train(one: Round, state: State, checkpoint=None, log: Callable = lambda *a: None) -> tuple[State, dict]:
    """All rounds, from the last checkpoint where there is one; it is saved after each.

    Args:
      checkpoint: a `checkpoint.Checkpoint` or None.  log: called as log(round, rounds, metrics).
    Returns: the last state, and name -> numbers of all rounds, fewer if the loss became no number. Raises Preempted,
      once all is saved, if the process is asked to stop.
    """
    rounds, history = one.static.rounds, {'over': np.zeros(1, np.int32)}
    found: dict[str, list[float]] = {}
    if checkpoint is not None:
        state, history, found = checkpoint.restore(state, history)
    for done in range(int(history['over'][0]) + 1, rounds + 1):
        state, metrics = one(state)
        for name, value in multihost.fetch(metrics).items():
            found.setdefault(name, []).append(float(value))
        log(done, rounds, {k: np.array(v[-1:]) for k, v in found.items()})
        if not np.isfinite(found['loss'][-1]):
            break
        if checkpoint is not None:
            checkpoint.save(done, state, {'over': np.full(1, done, np.int32)}, found)
        if preemption.due():
            raise Preempted(f'after round {done} of {rounds}')
    return state, {k: np.array(v, np.float32) for k, v in found.items()}
