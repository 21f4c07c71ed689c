"""The sparse-pixel game (Irving et al. 2018, arXiv 1805.00899, section 3.1): which of two digits an image shows.

A judge sees the pixels that were revealed and nothing else of the image. An agent reveals, in each turn, one pixel that
is not zero, with its true value: the best of all, by what the judge would then think of its claim. So agents are exact
for one turn ahead, and a message is {'at': the pixel's number, 'value': its brightness}.

params of a judge: {'w1' [2 D, H], 'b1' [H], 'w2' [H, K], 'b2' [K]}, a network of one hidden layer on values and on
which pixels they are of. private of a question: {'pixels' [D]}, and 'belief' [K] for agents that choose.
"""
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from w2s_jax.protocols.registry import Agent, Judge, Question, Transcript

NOTHING = -1e9  # worth of a pixel that may not be revealed


def initial(key: jax.Array, pixels: int, hidden: int, classes: int) -> dict[str, jax.Array]:
    """Parameters of a judge that has learned nothing, by He's rule."""
    k = jax.random.split(key)
    normal = lambda key, rows, columns: jax.random.normal(key, (rows, columns)) * jnp.sqrt(2 / rows)
    return {'w1': normal(k[0], 2 * pixels, hidden), 'b1': jnp.zeros(hidden),
            'w2': normal(k[1], hidden, classes), 'b2': jnp.zeros(classes)}


def logits(params: dict[str, jax.Array], pixels: jax.Array, seen: jax.Array) -> jax.Array:
    """Of the classes, `[K]`, from the pixels `[D]` of an image, of which those in the mask `seen` (0 or 1) count."""
    x = jnp.concatenate([pixels * seen, seen])
    return jax.nn.relu(x @ params['w1'] + params['b1']) @ params['w2'] + params['b2']


def revealed(transcript: Transcript, pixels: int) -> tuple[jax.Array, jax.Array]:
    """Values `[D]` and mask `[D]` of the pixels in a transcript; a pixel that was revealed twice counts once."""
    there = jax.nn.one_hot(transcript.messages['at'], pixels) * transcript.said[:, None]
    seen = there.max(0, initial=0.)
    return (there * transcript.messages['value'][:, None]).max(0, initial=0.), seen


def verdict(params: dict[str, jax.Array], transcript: Transcript) -> jax.Array:
    """The judge's probabilities of the two claims `[2]`, given that one of them is right."""
    values, seen = revealed(transcript, params['w1'].shape[0] // 2)
    return jax.nn.softmax(logits(params, values, seen)[transcript.claims])


def may_reveal(question: Question, transcript: Transcript) -> jax.Array:
    """Mask `[D]` of the pixels that are neither zero nor revealed."""
    pixels = question.private['pixels']
    return (pixels > 0) & (revealed(transcript, len(pixels))[1] == 0)


def message(question: Question, at: jax.Array) -> dict[str, jax.Array]:
    """The pixel with that number, as it is."""
    return {'at': at.astype(jnp.int32), 'value': question.private['pixels'][at]}


def at_random(question: Question, transcript: Transcript, side: Any, key: jax.Array) -> dict[str, jax.Array]:
    """One of the pixels that may be revealed."""
    worth = jax.random.uniform(key, question.private['pixels'].shape)
    return message(question, jnp.argmax(jnp.where(may_reveal(question, transcript), worth, NOTHING)))


def greedy(params: dict[str, jax.Array], question: Question, transcript: Transcript, side: Any,
           key: jax.Array) -> dict[str, jax.Array]:
    """The pixel after which a judge with these parameters thinks best of the claim: all of them are tried."""
    pixels = question.private['pixels']
    values, seen = revealed(transcript, len(pixels))
    # A pixel more adds its own rows of the first layer to what is there: D times cheaper than to judge anew.
    there = jnp.concatenate([values, seen]) @ params['w1'] + params['b1']
    one = pixels[:, None] * params['w1'][:len(pixels)] + params['w1'][len(pixels):]
    odds = jnp.where(side == 0, 1, -1) * (params['w2'][:, question.claims] @ jnp.array([1., -1.]))
    worth = jax.nn.relu(there[None] + one) @ odds  # log-odds but for a constant: probabilities would saturate
    return message(question, jnp.argmax(jnp.where(may_reveal(question, transcript), worth, NOTHING)))


def believed(question: Question, key: jax.Array) -> jax.Array:
    """The claim that is more probable by `private['belief']`, the first of equals."""
    return jnp.argmax(question.private['belief'][question.claims])


def judge(params: dict[str, jax.Array]) -> Judge:
    """With these parameters; on its own it looks at pixels at random."""
    return Judge(Partial(verdict, params), {'at': jnp.int32(0), 'value': jnp.float32(0)}, Partial(at_random))


def advocate(params: dict[str, jax.Array]) -> Agent:
    """Exhaustive and greedy, against a judge with these parameters."""
    return Agent(Partial(greedy, params), Partial(believed))


def random_agent() -> Agent:
    """Reveals pixels at random, whatever it is to argue for."""
    return Agent(Partial(at_random), Partial(believed))
