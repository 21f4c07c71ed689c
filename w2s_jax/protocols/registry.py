"""PROTOCOLS: name -> `fn(judge, agents, question, key, settings) -> Transcript` of one question; `held` does many.

An agent is given the whole question and the transcript so far, and the claim that it argues for; a judge is given the
transcript alone. What they are made of (parameters) travels with them: a `jax.tree_util.Partial(function, params)` is a
pytree, so that one compiled program serves all agents and judges of a kind. Nothing here knows which claim is right:
that is for scores.py, afterwards.
"""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from w2s_jax.errors import ConfigError
from w2s_jax.registry import Entry, Registry, Settings

PROTOCOLS = Registry('protocol', options=('agents',))
JUDGE, NOBODY = 2, -1  # beside the seats 0 and 1


class Question(NamedTuple):
    """public: what the judge may see, a pytree.  private: what agents see beside it.  claims: `[2]`, two answers."""
    public: Any
    private: Any
    claims: jax.Array


class Transcript(NamedTuple):
    """What a judge sees, and what it makes of it; `[N, ...]` of many questions.

    public, claims: of the question.  messages: a pytree `[T, ...]`.  seat: `[T]`, who spoke, 0, 1 or JUDGE.  side:
    `[T]`, the claim that was argued for, 0, 1 or NOBODY.  said: bool `[T]`, which turns took place: the others are to
    be ignored.  verdict: `[2]`, how probable each claim is to the judge.
    """
    public: Any
    claims: jax.Array
    messages: Any
    seat: jax.Array
    side: jax.Array
    said: jax.Array
    verdict: jax.Array


class Agent(NamedTuple):
    """speak: `(question, transcript, side, key) -> message`.  choose: `(question, key) -> side`, which it would take;
    None: it takes what it is given."""
    speak: Callable
    choose: Callable | None = None


class Judge(NamedTuple):
    """judge: `(transcript) -> [2]` probabilities.  silence: a message that says nothing, with the shapes and types of
    all.  look: as an agent's `speak`, by which a judge finds out on its own; None: it cannot."""
    judge: Callable
    silence: Any
    look: Callable | None = None


def blank(judge: Judge, question: Question, turns: int) -> Transcript:
    """A transcript with room for so many turns, in which nothing was said."""
    messages = jax.tree.map(lambda x: jnp.broadcast_to(x, (turns, *jnp.shape(x))), judge.silence)
    nobody = jnp.full(turns, NOBODY, jnp.int8)
    return Transcript(question.public, question.claims, messages, nobody, nobody, jnp.zeros(turns, bool),
                      jnp.full(2, .5))


def add(transcript: Transcript, turn: int | jax.Array, message: Any, seat: Any, side: Any) -> Transcript:
    """The transcript with what was said in that turn."""
    messages = jax.tree.map(lambda all, one: all.at[turn].set(one), transcript.messages, message)
    put = lambda x, value: x.at[turn].set(jnp.asarray(value).astype(x.dtype))
    return transcript._replace(messages=messages, seat=put(transcript.seat, seat), side=put(transcript.side, side),
                               said=put(transcript.said, True))


def decided(judge: Judge, transcript: Transcript) -> Transcript:
    """The transcript with the judge's verdict, which hangs on nothing else."""
    return transcript._replace(verdict=judge.judge(transcript))


def swapped(question: Question) -> Question:
    """The question, or many, with its claims the other way round: each is argued from the other seat."""
    return question._replace(claims=question.claims[..., ::-1])


def settings(entry: Entry, given: dict) -> Settings:
    """Those of a protocol: its defaults and what is given. Raises ConfigError."""
    for name, value in given.items():
        if name not in entry.settings:
            raise ConfigError(f'{entry.name}: unknown setting {name!r}, expected one of '
                              f'{", ".join(entry.settings) or "none"}')
        entry.settings[name].check(f'{entry.name}.{name}', value)
    return Settings({k: s.default for k, s in entry.settings.items()} | given)


def held(name: str, judge: Judge, agents: tuple[Agent, ...], questions: Question, key: jax.Array,
         **given: Any) -> Transcript:
    """A protocol on many questions: transcripts `[N, ...]`, in one compiled program.

    Args:
      name: of a protocol.
      judge, agents: pytrees; the agents by seat, as many as the protocol has (`PROTOCOLS[name].options['agents']`).
      questions: `[N, ...]`.
      key: each question's own is this one, folded with its number.
      given: settings of the protocol, the others have their defaults.

    Raises ConfigError for an unknown protocol or setting, a value out of range, or another number of agents.
    """
    entry = PROTOCOLS.get_entry(name, 'protocol')
    if len(agents) != entry.options['agents']:
        raise ConfigError(f'{name}: {len(agents)} agents, expected {entry.options["agents"]}')
    chosen = tuple(sorted(settings(entry, given).items()))
    return _held(entry.fn, chosen, judge, agents, questions, key)


def both(name: str, judge: Judge, agents: tuple[Agent, ...], questions: Question, key: jax.Array,
         **given: Any) -> Transcript:
    """`held`, in both seatings `[2, N, ...]`: as asked, and with claims and agents in each other's seats, so that who
    argued a claim goes on to argue it."""
    first = held(name, judge, agents, questions, key, **given)
    second = held(name, judge, agents[::-1], swapped(questions), key, **given)
    return jax.tree.map(lambda *x: jnp.stack(x), first, second)


@functools.partial(jax.jit, static_argnames=('fn', 'chosen'))
def _held(fn, chosen, judge, agents, questions, key):
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(questions.claims)))
    return jax.vmap(lambda question, key: fn(judge, agents, question, key, Settings(chosen)))(questions, keys)
