"""Two moves of a chess position, of which one is best, and the lines that agents play out after either.

A claim is a move's class. A message is the next move of one of the two lines, or none where the side to move has none:
by turns of the second line, of the first, of the first, of the second, so that in a debate each agent answers the
other's move first, as the opponent would, and goes on in its own line then. A single agent moves for both sides. What a
judge sees is the position, the two lines and nothing of who played them.

A rung is `{'policy': tokens [64] -> logits [1858], 'states': tokens [64] -> features [F]}`, Partials. A judge compares
the two positions in which the lines end by a linear function of their features, and the two moves by its own policy:
`weights` of `compared`. An agent looks at the `width` legal moves that its policy likes most, and
takes that after which this judge thinks best of its claim.
Messages are counted, so agents have to have seen all that were before theirs: debates are sequential here. As
neither moves in the line in which the other just did, the order changes nothing.
"""
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from w2s_jax.protocols import chess_board
from w2s_jax.protocols.registry import Agent, Judge, Question, Transcript

ORDER = (1, 0, 0, 1)  # the line of a message, by its number modulo 4
NO_MOVE = -1
KINDS = 5  # pawn to queen: what is counted


def line_of(turn: jax.Array) -> jax.Array:
    """In which line, 0 or 1, a message of that number moves."""
    return jnp.asarray(ORDER)[turn % len(ORDER)]


def ends(transcript: Transcript) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where the two lines end: boards `[2, 64]` from the side to move, how many moves after the claims `[2]`, and
    whether the side to move had none `[2]`."""
    start = jax.vmap(chess_board.play, (None, 0))(transcript.public, transcript.claims)

    def add(state, now):
        turn, move, said = now
        line, moves = line_of(turn), said & (move != NO_MOVE)
        boards, plies, over = state
        after = jnp.where(moves, chess_board.play(boards[line], move), boards[line])
        return (boards.at[line].set(after), plies.at[line].add(moves), over.at[line].max(said & ~moves)), None
    state = start, jnp.zeros(2, jnp.int32), jnp.zeros(2, bool)
    turns = jnp.arange(len(transcript.said))
    return jax.lax.scan(add, state, (turns, transcript.messages, transcript.said))[0]


def features(states: Any, tokens: jax.Array, plies: jax.Array, over: jax.Array) -> jax.Array:
    """`[2 (KINDS + F + 2)]`: of a position after so many moves from a claim: who is ahead in which pieces, what the
    judge's model sees, and whether the game is over; for either side to move apart, zero for the other."""
    count = lambda first: (tokens[:, None] == first + jnp.arange(KINDS)[None]).sum(0)
    found = jnp.concatenate([(count(1) - count(7)).astype(jnp.float32), states(tokens), jnp.stack([over, True])])
    return jnp.where(plies % 2 == jnp.arange(2)[:, None], found[None], 0.).reshape(-1)


def compared(rung: dict, public: jax.Array, claims: jax.Array, end: tuple) -> jax.Array:
    """`[1 + 2 (KINDS + F + 2)]`: what of the first claim is more than of the second, to the judge's policy and in the
    positions in which their lines end."""
    policy = rung['policy'](public)[claims]
    found = jax.vmap(features, (None, 0, 0, 0))(rung['states'], *end)
    return jnp.concatenate([policy[:1] - policy[1:], found[0] - found[1]])


def verdict(rung: dict, weights: jax.Array, transcript: Transcript) -> jax.Array:
    """The judge's probabilities of the two claims `[2]`."""
    odds = weights @ compared(rung, transcript.public, transcript.claims, ends(transcript))
    return jax.nn.softmax(jnp.stack([odds, 0.]))


def persuade(width: int, policy: Any, states: Any, weights: jax.Array, question: Question, transcript: Transcript,
             side: jax.Array, key: jax.Array) -> jax.Array:
    """The move of an agent for claim `side`: of those that its policy likes most the one after which the judge with
    these weights thinks best of the claim."""
    line = line_of(transcript.said.sum())
    boards, plies, over = ends(transcript)
    moves, there = chess_board.best(boards[line], policy(boards[line]), width)
    after = jax.vmap(chess_board.play, (None, 0))(boards[line], moves)
    found = jax.vmap(features, (None, 0, None, None))(states, after, plies[line] + 1, over[line])
    worth = found @ weights[1:] * jnp.where(line == side, 1, -1)
    best = moves[jnp.argmax(jnp.where(there, worth, -jnp.inf))]
    return jnp.where(there.any() & ~over[line], best, NO_MOVE).astype(jnp.int32)


def play_on(policy: Any, question: Question, transcript: Transcript, side: Any, key: jax.Array) -> jax.Array:
    """The legal move that a policy likes most, whoever is to move."""
    line = line_of(transcript.said.sum())
    boards, _, over = ends(transcript)
    moves, there = chess_board.best(boards[line], policy(boards[line]), 1)
    return jnp.where(there[0] & ~over[line], moves[0], NO_MOVE).astype(jnp.int32)


def believed(policy: Any, question: Question, key: jax.Array) -> jax.Array:
    """The claim that a policy likes more, the first of equals."""
    return jnp.argmax(policy(question.public)[question.claims])


def judge(rung: dict, weights: jax.Array) -> Judge:
    """With these weights; on its own it plays both lines out by its policy."""
    return Judge(Partial(verdict, rung, weights), jnp.int32(NO_MOVE), Partial(play_on, rung['policy']))


def advocate(rung: dict, judge_rung: dict, weights: jax.Array, width: int) -> Agent:
    """An agent of one rung that knows the judge, and chooses a claim by its own policy."""
    return Agent(Partial(_persuading(width), rung['policy'], judge_rung['states'], weights),
                 Partial(believed, rung['policy']))


@functools.cache
def _persuading(width: int) -> functools.partial:
    return functools.partial(persuade, width)  # one object a width: programs are compiled anew for another one
