"""Contrast between a weak model before (0) and after (1) its alignment (ConG, code published as jianghoucheng/ConG).

On the Markov language (markov.py) all is a table. Model 0 is the reference; model 1 is its alignment to a noisy reward,
gold + noise on each transition: p1 = p0 exp(noisy / beta) / Z, so that the implicit reward beta log(p1 / p0) is the
noisy one up to a constant of the prompt. A step of contrastive decoding draws from softmax of log p1 - (1 - alpha)
log p0 within the tokens with p1 >= head max p1: the tables are made by `Pick.scores`, the one that samples texts.

Of whole texts, p_l ~ p1 (p1 / p0)^l, with r = log(p1 / p0), is an exponential family, hence

    d/dl E_l r = E Var_l(r | prompt) >= 0,    E_1 r - E_0 r = the integral of that variance.

Tilted token by token, without what follows, it is none, and this need not hold (control).

Students have a table by position and the last two tokens, twelve times as many numbers as the aligned weak model, and
start from the reference. WeakSFT learns texts of model 1, ConG-S texts of the contrast; ConG goes on from ConG-S by
DPO, chosen: a text of the contrast, rejected: the student's own to the same prompt. If texts come from p and the
student draws from q, the optimum of DPO is q (p / q)^(1 / beta) (derived): at beta .5 as far beyond p as q falls short
of it. ConG gains what ConG-S has not learned; of a student that was trained long that optimum may be worse (control).
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2s_jax.registry import Setting, Settings
from w2s_jax.sampling.pick import Pick
from w2s_jax.theory import markov
from w2s_jax.theory.bounds import upper
from w2s_jax.theory.registry import TESTBEDS, Row, in_float64, keys
from w2s_jax.train.preference import dpo as objective

BETA = 3.  # of the alignment
ALPHAS = (1., .7, .4, .1)
ALPHA = .4  # of what students learn
HEAD = .1
NODES = 8  # of Gauss's quadrature over l
TUNED = .5  # beta of the students' DPO
SLOWER = .06, .5  # its rate and steps, as shares of those of fitting: as published, 6e-7, 1 epoch after 1e-5, 2 epochs
RATE = .05  # of fitting
LONGER = 10  # times as many steps
GOLDEN = ((.2, .5, .2, .05, .05), (.5, .3, .15, .04, .01), (.6074419, .21032553, .18223257, 0., 0.))  # p0, p1, wanted


def contrasted(pick: Pick, before: jax.Array, after: jax.Array) -> jax.Array:
    """The policy `[T, S, S]` of which `pick` draws between two policies of that shape; -inf outside of its set."""
    scores = jnp.vectorize(pick.scores, signature='(m,v)->(v)')
    return jax.nn.log_softmax(scores(jnp.stack([before, after], axis=-2)))


def tilted(policy: jax.Array, ratio: jax.Array, size: float | jax.Array) -> jax.Array:
    """The policy `[T, S, S]` whose texts are ~ policy exp(size ratio), of tables of that shape."""
    return markov.optimum(policy, size * ratio, 1.)


def by_token(policy: jax.Array, ratio: jax.Array, size: float | jax.Array) -> jax.Array:
    """As `tilted`, each token for itself, as if nothing followed."""
    return jax.nn.log_softmax(policy + size * ratio)


def fitted(policy: jax.Array, tokens: jax.Array, steps: int, rate: float) -> jax.Array:
    """The policy after so many steps of Adam on the mean log-likelihood of texts `[N, T + 1]`."""
    # What is summed over texts is linear in the table: its gradient is how often each transition comes.
    counts = jax.grad(lambda table: markov.total(table, tokens).mean())(policy)
    return jax.nn.log_softmax(descent(lambda x: -jnp.sum(counts * jax.nn.log_softmax(x)), policy, steps, rate))


def descent(loss: Callable, params: jax.Array, steps: int, rate: float | Callable) -> jax.Array:
    """Parameters after so many steps of Adam; rate: a number, or a schedule of optax."""
    optimizer = optax.adam(rate)

    def step(state, _):
        params, memory = state
        change, memory = optimizer.update(jax.grad(loss)(params), memory)
        return (optax.apply_updates(params, change), memory), None
    return jax.lax.scan(step, (params, optimizer.init(params)), None, steps)[0][0]


def dpo(found: jax.Array, reference: jax.Array, targets: jax.Array, beta: float) -> jax.Array:
    """Losses `[N]` of the objective `dpo` (train/preference.py), of log-likelihoods of two texts `[N, 2]`, now and
    before, and the probabilities `[N, 2]` that each is preferred."""
    inputs = {'reference': reference, 'begins': jnp.zeros(found.shape), 'length': jnp.ones(found.shape)}
    losses = objective(Settings(beta=beta, confident=False)).losses
    batch = {'inputs': inputs, 'targets': targets, 'weight': jnp.ones(len(found))}
    return losses(lambda params, inputs: params, found, batch, (), Settings(smoothing=0.), 1., None)[0]


def preferring(policy: jax.Array, chosen: jax.Array, rejected: jax.Array, steps: int, rate: float) -> jax.Array:
    """The policy after DPO on texts `[N, T + 1]`, with what it was as the reference."""
    both = lambda table: jnp.stack([markov.total(table, tokens) for tokens in (chosen, rejected)], axis=1)
    first, reference = jnp.broadcast_to(jnp.array([1., 0.]), (len(chosen), 2)), both(policy)
    loss = lambda x: dpo(both(jax.nn.log_softmax(x)), reference, first, TUNED).mean()
    return jax.nn.log_softmax(descent(loss, policy, steps, rate))


@functools.partial(jax.jit, static_argnames='states')
def decoded(every: jax.Array, noise: float, states: int = 12) -> dict[str, jax.Array]:
    """Of each key's language: `[keys, ALPHAS and plain and swapped]` of 'implicit' and 'gold' rewards; of the tilts by
    text and by token `[keys, 2]`: 'integral' of the variance over l, and 'gain'."""
    where, weights = (jnp.asarray(v) for v in np.polynomial.legendre.leggauss(NODES))
    nodes = (where + 1) / 2

    def one(key):
        language, before, after = weak(key, noise, states)
        ratio, start = after - before, language.start
        policies = [contrasted(Pick(alpha=a, head=HEAD), before, after) for a in ALPHAS]
        policies += [after, contrasted(Pick(alpha=ALPHA, head=HEAD), after, before)]
        found = {'implicit': jnp.stack([markov.expected(p, start, BETA * ratio) for p in policies]),
                 'gold': jnp.stack([markov.expected(p, start, language.gold) for p in policies])}
        both = (tilted, by_token)
        spread = lambda tilt: jax.vmap(lambda size: markov.variance(tilt(after, ratio, size), start, ratio))(nodes)
        mean = lambda tilt, size: markov.expected(tilt(after, ratio, size), start, ratio)
        return found | {'integral': jnp.stack([spread(tilt) @ weights / 2 for tilt in both]),
                        'gain': jnp.stack([mean(tilt, 1.) - mean(tilt, 0.) for tilt in both])}
    return jax.vmap(one)(every)


def weak(key: jax.Array, noise: float, states: int = 12) -> tuple[markov.Language, jax.Array, jax.Array]:
    """A language, and the weak model before and after its alignment to gold + noise N(0, 1) a transition."""
    k = jax.random.split(key)
    language = markov.drawn(k[0], states)
    noisy = language.gold + noise * jax.random.normal(k[1], language.gold.shape)
    return language, language.reference, markov.optimum(language.reference, noisy, BETA)


class Students(NamedTuple):
    """Gold rewards `[keys]`. sft: WeakSFT.  cong_s, cong: ConG-S and ConG.  contrast: of what these learn.  beyond: of
    the optimum of ConG's DPO, q (p / q)^(1 / beta).  plain: WeakSFT after DPO with texts of model 1 chosen.  exchanged:
    ConG with chosen and rejected exchanged."""
    sft: jax.Array
    cong_s: jax.Array
    cong: jax.Array
    contrast: jax.Array
    beyond: jax.Array
    plain: jax.Array
    exchanged: jax.Array


@functools.partial(jax.jit, static_argnames=('number', 'steps', 'states'))
def students(every: jax.Array, noise: float, number: int, steps: int, rate: float, states: int = 12) -> Students:
    """Students of each key's weak models, of `number` texts in `steps` steps of fitting; of DPO see SLOWER."""
    rates, lengths = (rate, SLOWER[0] * rate), (steps, max(1, int(SLOWER[1] * steps)))

    def one(key):
        k = jax.random.split(key, 6)
        language, before, after = weak(k[0], noise, states)
        contrast = contrasted(Pick(alpha=ALPHA, head=HEAD), before, after)
        blank = jnp.broadcast_to(before[:, None], (len(before), states, states, states))
        first = markov.prompts(k[1], language.start, number)
        plain, better = markov.texts(k[2], after, first), markov.texts(k[3], contrast, first)
        sft, cong = (fitted(blank, tokens, lengths[0], rates[0]) for tokens in (plain, better))
        ours, own = (markov.texts(key, x, first) for key, x in ((k[4], cong), (k[5], sft)))
        tuned = lambda policy, chosen, rejected: preferring(policy, chosen, rejected, lengths[1], rates[1])
        beyond = markov.optimum(cong, contrast[:, None] - cong, TUNED)
        found = Students(sft, cong, tuned(cong, better, ours), contrast, beyond, tuned(sft, plain, own),
                         tuned(cong, ours, better))
        return Students(*(markov.expected(policy, language.start, language.gold) for policy in found))
    return jax.lax.map(one, every)


def compared(cell: str, low: np.ndarray, high: np.ndarray, students: int = 0, control: bool = False) -> Row:
    """Whether `high` `[S]` is above `low` `[S]` of the same seeds at one-sided 95 per cent: the error is what it may be
    below at most."""
    return Row(cell, float(low.mean()), float(high.mean()), upper(low - high), '95 % upper end of predicted - measured',
               0., students, control=control)


def rewards(found: dict[str, np.ndarray], seeds: int) -> list[Row]:
    """How rewards rise as alpha falls, and fall with the models exchanged; `predicted` is to be exceeded."""
    rows, last = list[Row](), len(ALPHAS)
    for what in ('implicit', 'gold'):
        values = found[what]
        rows += [compared(f'{what} reward, alpha {ALPHAS[i]:g} to {ALPHAS[i + 1]:g}', values[:, i], values[:, i + 1],
                          seeds * (i == 0 and what == 'gold')) for i in range(last - 1)]
        share = float((np.diff(values[:, :last]) > 0).all(1).mean())
        rows.append(Row(f'{what} reward, languages in which it rises at each step', 1, share, 1 - share, '1 - share',
                        None, 0))
    gold = found['gold']
    plain, contrast, swapped = gold[:, last], gold[:, ALPHAS.index(ALPHA)], gold[:, last + 1]
    return [*rows, compared('gold reward, plain to contrast', plain, contrast),
            compared('gold reward, models exchanged to plain', swapped, plain),
            compared('gold reward, plain to contrast, models exchanged', plain, swapped, control=True)]


def learned(settings: Settings) -> list[Row]:
    """Students trained shortly, and longer; `predicted` is again what is to be exceeded."""
    rows = list[Row]()
    for times in (1, LONGER):
        steps = times * settings.steps
        found = jax.device_get(students(keys(settings.runs, 'students'), settings.noise, settings.texts, steps, RATE))
        cell = lambda text, steps=steps: f'gold reward, {steps} steps, {text}'
        rows += [compared(cell('WeakSFT to ConG-S'), found.sft, found.cong_s, 5 * settings.runs),
                 compared(cell('ConG-S to ConG'), found.cong_s, found.cong, control=times > 1),
                 compared(cell('ConG-S to ConG, chosen and rejected exchanged'), found.cong_s, found.exchanged,
                          control=True) if times == 1 else
                 Row(cell('ConG-S of what it learns'), float(found.contrast.mean()), float(found.cong_s.mean()),
                     float((found.contrast - found.cong_s).mean()), 'predicted - measured', None, 0),
                 Row(cell('WeakSFT to its DPO with plain texts chosen'), float(found.sft.mean()),
                     float(found.plain.mean()), upper(found.sft - found.plain), 'as above', None, 0),
                 Row(cell("ConG of its DPO's optimum"), float(found.beyond.mean()), float(found.cong.mean()),
                     float((found.beyond - found.cong).mean()), 'predicted - measured', None, 0)]
    return rows


@TESTBEDS.register('contrast', seeds=50,
                   noise=Setting(1., 0., 100., doc='standard deviation of what a transition earns beside gold'),
                   runs=Setting(20, 2, 10**4, doc='languages with students'),
                   texts=Setting(1000, 2, 10**6, doc='that a student learns'),
                   steps=Setting(30, 2, 10**5, doc='of fitting; of longer training ten times as many'))
@in_float64
def contrast(seeds: int, settings: Settings) -> list[Row]:
    """Rewards by alpha, the variance of tilts against their gain, and students of contrastive texts."""
    before, after, wanted = (jnp.array(v) for v in GOLDEN)
    table = np.exp(contrasted(Pick(alpha=ALPHA, head=HEAD), jnp.log(before), jnp.log(after)))
    found = jax.device_get(decoded(keys(seeds, 'contrast'), settings.noise))
    integral, gain = (found[name].mean(0) for name in ('integral', 'gain'))
    off = np.abs(found['integral'] / found['gain'] - 1)
    return [Row('a step, golden numbers', float(wanted[0]), float(table[0]), float(np.abs(table - wanted).max()),
                'largest difference', 1e-6, 0),
            *rewards(found, seeds),
            Row('gain in log(p1 / p0), tilts by text', float(integral[0]), float(gain[0]), float(off[:, 0].max()),
                'largest |integral of variance / gain - 1|', .02, seeds),
            Row('gain in log(p1 / p0), tilts by token', float(integral[1]), float(gain[1]), float(np.median(off[:, 1])),
                'median |integral of variance / gain - 1|', .02, seeds, control=True),
            *learned(settings)]
