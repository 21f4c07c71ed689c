"""Recursive self-critique (Wen et al. 2025, arXiv 2502.04675) as a protocol, and a game in which it can be solved.

A trace of some steps is right, or one of them is wrong. The critic of order 1 names a step; the critic of order i + 1
says whether critic i is right. The judge, who can verify one step, believes the critic of the highest order, knows by
it what to think of those below, and verifies the step that was named if the claim stands, any step if it does not.
Claim 0 is that the trace is right, claim 1 that a step is wrong.

A message is {'step': which one, 'says': whether that is confirmed}: critics confirm or deny, a judge's own look says
whether the step is wrong. public of a question: {'wrong' bool [T], ...}, which the judge reads at one place only.
"""
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from w2s_jax.errors import ConfigError
from w2s_jax.protocols.registry import JUDGE, NOBODY, PROTOCOLS, Agent, Judge, Question, Transcript, add, blank, decided
from w2s_jax.registry import Setting, Settings

SILENCE = {'step': jnp.int32(0), 'says': jnp.bool_(False)}
MOST = 10**6  # combinations that a closed form goes through


@PROTOCOLS.register('self_critique', agents=1, depth=Setting(1, 0, 100, doc='orders of critique'))
def self_critique(judge: Judge, agents: tuple[Agent], question: Question, key: jax.Array,
                  settings: Settings) -> Transcript:
    """One agent criticises, then criticises its last critique, and so on; the judge looks once and decides.
    Raises ConfigError for a judge that cannot look."""
    if judge.look is None:
        raise ConfigError('judge.look: None, expected a function for the protocol self_critique')

    def turn(transcript, now):
        at, key = now
        return add(transcript, at, agents[0].speak(question, transcript, 1, key), 0, 1), None
    keys = jax.random.split(key, settings.depth + 1)
    start = blank(judge, question, settings.depth + 1)
    said = jax.lax.scan(turn, start, (jnp.arange(settings.depth), keys[:-1]))[0]
    look = judge.look(question, said, NOBODY, keys[-1])
    return decided(judge, add(said, settings.depth, look, JUDGE, NOBODY))


def stands(transcript: Transcript) -> jax.Array:
    """Whether the claim of order 1 stands if the highest order is right: denials are turned round, one by one. False
    where nobody spoke."""
    denied = (transcript.said & (transcript.seat == 0) & ~transcript.messages['says']).sum()
    return transcript.said[0] & (denied % 2 == 0)


def look(question: Question, transcript: Transcript, side: Any, key: jax.Array) -> dict[str, jax.Array]:
    """The judge verifies one step: the one that was named if that claim stands, else any."""
    wrong = question.public['wrong']
    step = jnp.where(stands(transcript), transcript.messages['step'][0], jax.random.randint(key, (), 0, len(wrong)))
    return {'step': step, 'says': wrong[step]}


def verdict(transcript: Transcript) -> jax.Array:
    """That a step is wrong if the judge, who spoke last, saw that it is; else that the trace is right."""
    return jax.nn.one_hot(transcript.messages['says'][-1].astype(int), 2)


def judge() -> Judge:
    """Of traces."""
    return Judge(Partial(verdict), SILENCE, Partial(look))


def is_true(question: Question, transcript: Transcript) -> jax.Array:
    """Whether the last critic is right, bool; of what all say, what each denies is the statement before it."""
    spoken = transcript.said.sum()
    true = question.public['wrong'][transcript.messages['step'][0]]
    for i in range(1, len(transcript.said)):
        true = jnp.where(i < spoken, transcript.messages['says'][i] == true, true)
    return true


def skilled(skill: float) -> Agent:
    """A critic who is right with this probability: at order 1 it names the wrong step, else any other one; of a right
    trace any step; above it says whether the critic before it is right."""
    return Agent(Partial(_criticise, skill))


def _criticise(skill, question, transcript, side, key):
    k, wrong = jax.random.split(key, 3), question.public['wrong']
    hit = jax.random.bernoulli(k[0], skill)
    chance = jnp.where(wrong.any(), jnp.where(hit, wrong, ~wrong), jnp.ones(len(wrong)))
    named = jax.random.categorical(k[1], jnp.log(chance.astype(jnp.float32)))
    first = transcript.said.sum() == 0
    return {'step': jnp.where(first, named, transcript.messages['step'][0]),
            'says': first | (is_true(question, transcript) == hit)}


def standing(claim_true: float, true: Sequence[float], false: Sequence[float]) -> tuple[float, float]:
    """Probabilities that the claim of order 1 is true and stands, and that it is false and stands.

    Args:
      claim_true: probability that it is true.  true, false: of each order from 2 on the probability that its critic is
        right if the statement below is true, and if it is false, whatever else there is to know.
    """
    found = []
    for claim, chance in ((1, claim_true), (0, 1 - claim_true)):
        top = float(claim)  # probability that the highest statement so far is true
        for a, b in zip(true, false, strict=True):
            top = a * top + b * (1 - top)
        # Denials are turned round until the top: the claim is thought to be what it is if and only if the top is true.
        found.append(chance * (top if claim else 1 - top))
    return found[0], found[1]


def accuracy(steps: int, share: float, claim_true: float | None = None, true: Sequence[float] = (),
             false: Sequence[float] = ()) -> float:
    """The judge's, in closed form (derived here). On right traces it never errs, as it verifies; a wrong step it sees
    if a true claim stands, and by luck if no claim does. With one skill q at all orders a true claim stands with
    probability q at depth 1 and q^2 at every depth above, for what the judge believes hangs on the top critic alone.

    Args:
      steps: of a trace.  share: of traces that have a wrong step.  claim_true, true, false: as in `standing`, on traces
        with a wrong step; None: nobody criticises.
    """
    hit, miss = (0., 0.) if claim_true is None else standing(claim_true, true, false)
    return 1 - share + share * (hit + (1 - hit - miss) / steps)


def winners(chances: Sequence[float], votes: int, given: int | None = None) -> np.ndarray:
    """Probability `[K]` of each option that it has most of so many independent votes, of equals each as often.

    Args:
      chances: `[K]`, of a vote.  votes: how many are drawn.  given: an option that has one vote more.

    Raises ConfigError if there are more than MOST ways to vote: all are gone through.
    """
    options = len(chances)
    if options ** votes > MOST:
        raise ConfigError(f'votes: {votes} for {options} options, expected at most {MOST} ways to vote')
    ways = np.indices((options,) * votes).reshape(votes, -1).T
    chance = np.asarray(chances)[ways].prod(1)
    count = (ways[..., None] == np.arange(options)).sum(1) + (0 if given is None else np.arange(options) == given)
    best = count == count.max(1, keepdims=True)
    return chance @ (best / best.sum(1, keepdims=True))


def vote_of_critiques(steps: int, share: float, claim_true: float, votes: int) -> float:
    """Accuracy of a judge who verifies the step that most of so many independent critics of order 1 name."""
    other = (1 - claim_true) / (steps - 1)
    return float(1 - share + share * winners([claim_true] + [other] * (steps - 1), votes)[0])


def vote_of_responses(answers: int, share: float, votes: int) -> float:
    """Accuracy of one who takes a trace for right if its result is that of most of it and so many other traces, `share`
    of which have a wrong step and with it any of the other results, each as often."""
    chances = [1 - share] + [share / (answers - 1)] * (answers - 1)
    return float((1 - share) * winners(chances, votes, 0)[0] + share * (1 - winners(chances, votes, 1)[1]))
