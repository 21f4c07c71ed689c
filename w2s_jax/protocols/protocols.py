"""Direct judging, consultancy and debate (Irving et al. 2018, arXiv 1805.00899; Khan et al. 2024, arXiv 2402.06782;
Kenton et al. 2024, arXiv 2407.04622), each of one question: `(judge, agents, question, key, settings) -> Transcript`.
"""
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from w2s_jax.errors import ConfigError
from w2s_jax.protocols.registry import JUDGE, NOBODY, PROTOCOLS, Agent, Judge, Question, Transcript, add, blank, decided
from w2s_jax.registry import Setting, Settings

TURNS = Setting(6, 0, 1000, doc='messages')


def monologue(judge: Judge, question: Question, key: jax.Array, turns: int, speak: Callable, seat: int,
              side: int | jax.Array) -> Transcript:
    """A transcript in which one speaks all the time, judged."""
    def turn(transcript, now):
        at, key = now
        return add(transcript, at, speak(question, transcript, side, key), seat, side), None
    keys = jax.random.split(key, turns)
    return decided(judge, jax.lax.scan(turn, blank(judge, question, turns), (jnp.arange(turns), keys))[0])


@PROTOCOLS.register('answers_only', agents=0)
def answers_only(judge: Judge, agents: tuple, question: Question, key: jax.Array, settings: Settings) -> Transcript:
    """The judge sees the question's public part and the two claims, and no argument."""
    return decided(judge, blank(judge, question, 0))


@PROTOCOLS.register('direct', agents=0, turns=TURNS)
def direct(judge: Judge, agents: tuple, question: Question, key: jax.Array, settings: Settings) -> Transcript:
    """The judge finds out what it can on its own, by `Judge.look`. Raises ConfigError for one that cannot."""
    if judge.look is None:
        raise ConfigError('judge.look: None, expected a function for the protocol direct')
    return monologue(judge, question, key, settings.turns, judge.look, JUDGE, NOBODY)


@PROTOCOLS.register('consultancy', agents=1, turns=TURNS)
def consultancy(judge: Judge, agents: tuple[Agent], question: Question, key: jax.Array,
                settings: Settings) -> Transcript:
    """One agent argues for one of the claims, which was drawn with even odds."""
    draw, speak = jax.random.split(key)
    side = jax.random.randint(draw, (), 0, 2)
    return monologue(judge, question, speak, settings.turns, agents[0].speak, 0, side)


@PROTOCOLS.register('open_consultancy', agents=1, turns=TURNS)
def open_consultancy(judge: Judge, agents: tuple[Agent], question: Question, key: jax.Array,
                     settings: Settings) -> Transcript:
    """One agent argues for the claim that it chose. Raises ConfigError for an agent that does not choose."""
    if agents[0].choose is None:
        raise ConfigError('agent.choose: None, expected a function for the protocol open_consultancy')
    choose, speak = jax.random.split(key)
    side = agents[0].choose(question, choose)
    return monologue(judge, question, speak, settings.turns, agents[0].speak, 0, side)


@PROTOCOLS.register('debate', agents=2, rounds=Setting(3, 0, 500, doc='messages of each'),
                    order=Setting('sequential', choices=('sequential', 'simultaneous'),
                                  doc='whether seat 1 sees what seat 0 said in the same round'))
def debate(judge: Judge, agents: tuple[Agent, Agent], question: Question, key: jax.Array,
           settings: Settings) -> Transcript:
    """Two agents argue for a claim each, seat 0 for the first; in every round both speak, seat 0 first."""
    def turn(transcript, now):
        at, (first, second) = now
        opening = add(transcript, 2 * at, agents[0].speak(question, transcript, 0, first), 0, 0)
        seen = transcript if settings.order == 'simultaneous' else opening
        return add(opening, 2 * at + 1, agents[1].speak(question, seen, 1, second), 1, 1), None
    keys = jax.random.split(key, (settings.rounds, 2))
    start = blank(judge, question, 2 * settings.rounds)
    return decided(judge, jax.lax.scan(turn, start, (jnp.arange(settings.rounds), keys))[0])


@PROTOCOLS.register('critique', agents=2, turns=TURNS)
def critique(judge: Judge, agents: tuple[Agent, Agent], question: Question, key: jax.Array,
             settings: Settings) -> Transcript:
    """Seat 0 proposes the claim that it would choose and says no more; seat 1 argues against it (arXiv 2605.27483).

    Raises ConfigError for a proposer that does not choose.
    """
    if agents[0].choose is None:
        raise ConfigError('agent.choose: None, expected a function for the proposer of the protocol critique')
    choose, speak = jax.random.split(key)
    against = 1 - agents[0].choose(question, choose)
    return monologue(judge, question, speak, settings.turns, agents[1].speak, 1, against)


def best_of(agent: Agent, judge: Judge, samples: int) -> Agent:
    """An agent that draws so many messages and says that after which this judge thinks best of its claim, the first of
    equals (best of n; Khan et al. 2024)."""
    return Agent(jax.tree_util.Partial(_drawing(samples), agent.speak, judge.judge), agent.choose)


@functools.cache
def _drawing(samples: int) -> Callable:
    return functools.partial(_best, samples)


def _best(samples, speak, verdict, question, transcript, side, key):
    drawn = jax.vmap(lambda key: speak(question, transcript, side, key))(jax.random.split(key, samples))
    at = transcript.said.sum()
    worth = jax.vmap(lambda message: verdict(add(transcript, at, message, 0, side))[side])(drawn)
    return jax.tree.map(lambda x: x[jnp.argmax(worth)], drawn)


def pushing(agent: Agent, side: int) -> Agent:
    """An agent that argues for that claim whatever it is given. Two for one claim collude: the control of debate."""
    return Agent(jax.tree_util.Partial(_push, agent.speak, side), jax.tree_util.Partial(_take, side))


def _push(speak, pushed, question, transcript, side, key):
    return speak(question, transcript, pushed, key)


def _take(side, question, key):
    return side
