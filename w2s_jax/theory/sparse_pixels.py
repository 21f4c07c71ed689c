"""Debate and its rivals on sparse pixels of scikit-learn's digits (w2s_jax/protocols; Irving et al. 2018, arXiv
1805.00899), and students of what they decide (Lang, Huang, Li 2025, arXiv 2501.13124).

Of 1797 images a judge learns TAUGHT from random pixels, with the truth; of LABELLED ones the protocols decide between
two claims, the right digit and another, in an order at random; students learn those labels from whole images; TEST are
held out. What is said of a protocol is of all that the judge has not learned. A check holds if the 95 % bound of the
mean over seeds, on the side where it is worse, does.
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from sklearn.datasets import load_digits

from w2s_jax import metrics
from w2s_jax.errors import ConfigError
from w2s_jax.protocols import Question, Transcript, both, held, scores
from w2s_jax.protocols import sparse_pixels as game
from w2s_jax.protocols.protocols import pushing
from w2s_jax.registry import Setting, Settings
from w2s_jax.theory.registry import TESTBEDS, Row, keys

PIXELS, CLASSES, BRIGHTEST = 64, 10, 16
TAUGHT, LABELLED, TEST = 600, 600, 597
HIDDEN, BATCH, RATE, STRONG = 128, 128, 3e-3, 500  # STRONG: steps of the model by which agents choose
LENGTHS = (100, 500, 2000)  # steps of students
CHECKED = {500: ('ceiling', 'random pixels'), 2000: ('ceiling', 'random pixels', 'consultancy')}
CLAIMS = ('drawn', 'likely')  # the wrong one: any, or that which a strong model thinks most of


class World(NamedTuple):
    """Of one seed. judge: parameters.  questions, right: of all images but the judge's, those to be labelled first.
    images, truth: of the same."""
    judge: dict[str, jax.Array]
    questions: Question
    right: jax.Array
    images: jax.Array
    truth: jax.Array


def digits() -> tuple[jax.Array, jax.Array]:
    """Images `[1797, 64]` in [0, 1], and which digits they show."""
    found = load_digits()
    return jnp.asarray(found.data / BRIGHTEST, jnp.float32), jnp.asarray(found.target, jnp.int32)


def masks(key: jax.Array, images: jax.Array, most: int) -> jax.Array:
    """0 or 1 `[N, D]`: of each image 0 to `most` pixels at random that are not zero, every number as often."""
    k = jax.random.split(key)
    worth = jnp.where(images > 0, jax.random.uniform(k[0], images.shape), -1)
    number = jax.random.randint(k[1], (len(images), 1), 0, most + 1)
    worth, at = jax.lax.top_k(worth, most)
    kept = (jnp.arange(most)[None] < number) & (worth > 0)
    return (jax.nn.one_hot(at, images.shape[1]) * kept[..., None]).sum(1)


answers = jax.vmap(game.logits, (None, 0, 0))  # of many images


def everything(key: jax.Array, images: jax.Array) -> jax.Array:
    """The mask of one who sees whole images."""
    return jnp.ones_like(images)


def learned(key: jax.Array, images: jax.Array, labels: jax.Array, seen: Callable, steps: int) -> dict[str, jax.Array]:
    """Parameters (game.initial) after so many steps of Adam on batches of images, `seen(key, images)` being a mask."""
    k = jax.random.split(key)
    optimizer = optax.adam(RATE)

    def step(state, key):
        params, moments = state
        draw, mask = jax.random.split(key)
        rows = jax.random.randint(draw, (BATCH,), 0, len(images))
        x = images[rows]

        def loss(params):
            said = answers(params, x, seen(mask, x))
            return optax.losses.softmax_cross_entropy_with_integer_labels(said, labels[rows]).mean()
        updates, moments = optimizer.update(jax.grad(loss)(params), moments)
        return (optax.apply_updates(params, updates), moments), None
    params = game.initial(k[0], PIXELS, HIDDEN, CLASSES)
    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(k[1], steps))[0][0]


def wrong(key: jax.Array, truth: jax.Array, belief: jax.Array, claims: str) -> jax.Array:
    """A wrong class `[N]` for each truth: drawn evenly, or the one of most belief `[N, K]`."""
    if claims == 'drawn':
        return (truth + jax.random.randint(key, truth.shape, 1, CLASSES)) % CLASSES
    return jnp.argmax(jnp.where(jax.nn.one_hot(truth, CLASSES) > 0, -jnp.inf, belief), axis=1)


@functools.partial(jax.jit, static_argnames=('steps', 'pixels', 'claims'))
def worlds(every: jax.Array, images: jax.Array, labels: jax.Array, steps: int, pixels: int, claims: str) -> World:
    """`[keys, ...]`: a judge that has learned to read up to so many pixels, and questions for it."""
    def one(key):
        k = jax.random.split(key, 5)
        order = jax.random.permutation(k[0], len(images))
        x, y = images[order], labels[order]
        judge = learned(k[1], x[:TAUGHT], y[:TAUGHT], functools.partial(masks, most=pixels), steps)
        strong = learned(k[2], x[:TAUGHT], y[:TAUGHT], everything, STRONG)
        x, y = x[TAUGHT:], y[TAUGHT:]
        belief = answers(strong, x, jnp.ones_like(x))
        right = jax.random.randint(k[3], y.shape, 0, 2)
        other = wrong(k[4], y, belief, claims)
        pair = jnp.where(right[:, None] == jnp.arange(2)[None], y[:, None], other[:, None])
        return World(judge, Question((), {'pixels': x, 'belief': belief}, pair), right, x, y)
    return jax.lax.map(one, every)


@functools.partial(jax.jit, static_argnames='pixels')
def transcripts(every: jax.Array, world: World, pixels: int) -> dict[str, Transcript]:
    """Of each protocol transcripts `[keys, 2, N, ...]`, in both seatings; `pixels` are revealed in each."""
    def one(at):
        key, world = at
        judge, agent = game.judge(world.judge), game.advocate(world.judge)
        run = lambda name, agents=(), **given: both(name, judge, agents, world.questions, key, **given)
        argue = functools.partial(run, 'debate', (agent, agent), rounds=pixels // 2)
        return {'debate': argue(), 'simultaneous debate': argue(order='simultaneous'),
                'consultancy': run('consultancy', (agent,), turns=pixels),
                'open consultancy': run('open_consultancy', (agent,), turns=pixels),
                'random pixels': run('direct', turns=pixels), 'answers only': run('answers_only')}
    return jax.lax.map(one, (every, world))


@functools.partial(jax.jit, static_argnames='pixels')
def collusion(every: jax.Array, world: World, pixels: int) -> jax.Array:
    """Verdicts `[keys, N, 2]` of debates in which both argue for the wrong claim: of those for either, that one."""
    def one(at):
        key, world = at
        judge, agent = game.judge(world.judge), game.advocate(world.judge)
        for_side = lambda side: held('debate', judge, (pushing(agent, side),) * 2, world.questions, key,
                                     rounds=pixels // 2).verdict
        return jnp.where(world.right[:, None] == 1, for_side(0), for_side(1))
    return jax.lax.map(one, (every, world))


@functools.partial(jax.jit, static_argnames='pixels')
def mixed(every: jax.Array, world: World, pixels: int) -> jax.Array:
    """Verdicts `[keys, 2, N, 2]` of debates of a greedy agent with one that reveals pixels at random; the greedy one
    is in seat 0, then in seat 1."""
    def one(at):
        key, world = at
        agents = game.advocate(world.judge), game.random_agent()
        return both('debate', game.judge(world.judge), agents, world.questions, key, rounds=pixels // 2).verdict
    return jax.lax.map(one, (every, world))


@functools.partial(jax.jit, static_argnames='steps')
def students(every: jax.Array, world: World, labels: jax.Array, steps: int) -> jax.Array:
    """Accuracy `[keys, M]` on the images held out, of students of M sets of labels `[keys, M, LABELLED]`."""
    def one(at):
        key, images, truth, labels = at

        def student(labels):
            params = learned(key, images[:LABELLED], labels, everything, steps)
            said = answers(params, images[LABELLED:], jnp.ones_like(images[LABELLED:])).argmax(-1)
            return jnp.mean(said == truth[LABELLED:])
        return jax.lax.map(student, labels)
    return jax.lax.map(one, (every, world.images, world.truth, labels))


def decisions(world: World, found: dict[str, Transcript]) -> dict[str, np.ndarray]:
    """Labels `[keys, LABELLED]` by name: the claims that each protocol decided for in the first seating."""
    def label(transcript):
        claims, chosen = transcript.claims[:, 0, :LABELLED], transcript.verdict[:, 0, :LABELLED].argmax(-1)
        return np.take_along_axis(np.asarray(claims), np.asarray(chosen)[..., None], -1)[..., 0]
    return {name: label(found[name]) for name in ('debate', 'random pixels', 'consultancy')} | {
        'truth': np.asarray(world.truth[:, :LABELLED])}


def least(values: np.ndarray) -> float:
    """The lower 95 % bound of the mean of one value a seed; of one seed the value."""
    return metrics.seeds_interval(values, .9).get('low', float(np.mean(values)))


def at_least(cell: str, bar: float, values: np.ndarray, count: int = 0) -> Row:
    """Holds if the mean of values `[seeds]` is surely at least `bar`."""
    return Row(cell, bar, float(np.mean(values)), bar - least(values), 'bar - lower bound', 0., count)


def at_most(cell: str, bar: float, values: np.ndarray, count: int = 0) -> Row:
    """Holds if the mean of values `[seeds]` is surely at most `bar`."""
    return Row(cell, bar, float(np.mean(values)), -least(-np.asarray(values)) - bar, 'upper bound - bar', 0., count)


def reported(cell: str, values: ArrayLike) -> Row:
    """A mean over seeds for which nothing was set."""
    return Row(cell, np.nan, float(np.mean(values)), np.nan, '', None, 0)


def right_by(world: World, found: dict[str, Transcript]) -> dict[str, np.ndarray]:
    """`scores.correct` of each protocol, `[seeds, 2, N]`."""
    right = np.asarray(world.right)
    seats = np.stack([right, 1 - right], axis=1)
    return {name: scores.correct(x.verdict, seats) for name, x in found.items()}


def decided(world: World, found: dict[str, Transcript], colluded: jax.Array) -> list[Row]:
    """The protocols' accuracies, against what they must attain."""
    right, hit = np.asarray(world.right), right_by(world, found)
    seats = np.stack([right, 1 - right], axis=1)
    mean = {name: x.mean((1, 2)) for name, x in hit.items()}
    honest = np.asarray(found['consultancy'].side)[..., 0] == seats
    share = lambda hit, mask: (hit * mask).sum((1, 2)) / mask.sum((1, 2))
    first = lambda seat: share(hit['debate'], seats == seat)
    pushed = scores.correct(colluded, right).mean(1)
    apart = (hit['debate'] - hit['random pixels']).mean((1, 2))
    p = max(metrics.holm([scores.compared(a.mean(0), b.mean(0))['p'] for a, b in zip(
        hit['debate'], hit['random pixels'], strict=True)]))
    return [
        at_least('debate, truth first', .95, first(0)), at_least('debate, lie first', .95, first(1)),
        at_least('debate, simultaneous', .95, mean['simultaneous debate']),
        at_most('consultancy', .6, mean['consultancy']),
        reported('consultancy, for the truth', share(hit['consultancy'], honest)),
        reported('consultancy, for the lie', share(hit['consultancy'], ~honest)),
        reported('open consultancy', mean['open consultancy']), reported('random pixels', mean['random pixels']),
        at_least('random pixels - consultancy', 0, mean['random pixels'] - mean['consultancy']),
        at_least('debate - random pixels', .05, apart),
        Row('debate = random pixels, paired by question', 0, p, p, 'largest p of a seed (Holm)', .05, 0),
        Row('debate, colluders for the lie', .95, float(pushed.mean()), .95 + least(-pushed),
            'bar - upper bound', .85, 0, control=True),
        Row('answers only', .95, float(mean['answers only'].mean()), .95 + least(-mean['answers only']),
            'bar - upper bound', .35, 0, control=True)]


def scored(world: World, found: dict[str, Transcript]) -> list[Row]:
    """What honesty earns in nats and how calibrated judges are."""
    right = np.asarray(world.right)
    rows = list[Row]()
    for name in ('debate', 'consultancy', 'open consultancy', 'random pixels'):
        x = found[name]
        side = np.asarray(x.side)[..., 0] if name == 'consultancy' else None
        each = [(scores.brier(x.verdict[s], scores.in_both(right[s])),
                 scores.agent_score_difference(x.verdict[s], scores.in_both(right[s]),
                                               None if side is None else side[s])) for s in range(len(right))]
        brier, asd = np.array(each).T
        rows.append(reported(f'Brier score, {name}', brier))
        if name in ('debate', 'consultancy'):
            rows.append(reported(f'agent score difference, {name}', asd))
    return rows


def rated(world: World, found: dict[str, Transcript], other: jax.Array) -> list[Row]:
    """Elo ratings of greedy agents and of those at random, each for the truth and for the lie, from all verdicts."""
    right = np.asarray(world.right)
    seats = np.stack([right, 1 - right], axis=1)
    # Players: greedy for the truth 0 and the lie 1, at random for the truth 2 and the lie 3.
    kinds = np.broadcast_to(np.array([[0, 2], [2, 0]])[None, :, :, None], (len(right), 2, 2, right.shape[1]))
    first = np.concatenate([(seats == 1).ravel(), (kinds[:, :, 0] + (seats == 1)).ravel()])
    second = np.concatenate([(seats == 0).ravel(), (kinds[:, :, 1] + (seats == 0)).ravel()])
    wins = np.concatenate([np.ravel(found['debate'].verdict[..., 0] > .5), np.ravel(np.asarray(other)[..., 0] > .5)])
    (truth, lie, dull_truth, dull_lie), seat = scores.bradley_terry(first.astype(int), second.astype(int), wins)
    return [reported('Elo, truth - lie, greedy', truth - lie),
            reported('Elo, greedy - at random, for the truth', truth - dull_truth),
            reported('Elo, greedy - at random, for the lie', lie - dull_lie), reported('Elo, of speaking first', seat)]


def taught(every: jax.Array, world: World, found: dict[str, Transcript]) -> list[Row]:
    """Labels that protocols made, and students of them."""
    labels = decisions(world, found)
    quality = {name: (x == labels['truth']).mean(1) for name, x in labels.items()}
    sets = jnp.stack([jnp.asarray(x) for x in labels.values()], axis=1)
    rows = [at_least('labels of debate', .97, quality['debate']),
            *(reported(f'labels of {name}', quality[name]) for name in ('random pixels', 'consultancy'))]
    for steps in LENGTHS:
        got = dict(zip(labels, np.asarray(students(every, world, sets, steps)).T, strict=True))
        rows += [reported(f'student of {name}, {steps} steps', x) for name, x in got.items()]
        rows += compared(got, steps)
    return rows


def compared(got: dict[str, np.ndarray], steps: int) -> list[Row]:
    """Students `[seeds]` after so many steps against what they must attain, where that is checked."""
    rows = {'ceiling': at_least(f'students, debate - ceiling, {steps} steps', -.03, got['debate'] - got['truth'],
                                got['truth'].size * len(got)),
            'random pixels': at_least(f'students, debate - random pixels, {steps} steps', .03,
                                      got['debate'] - got['random pixels']),
            'consultancy': at_most(f'students of consultancy, {steps} steps', .65, got['consultancy'])}
    return [row if name in CHECKED.get(steps, ()) else row._replace(limit=None) for name, row in rows.items()]


@TESTBEDS.register('sparse_pixels', seeds=10,
                   steps=Setting(3000, 1, 10**6, doc='of the judge'),
                   pixels=Setting(6, 2, 20, doc='that are revealed, an even number'),
                   claims=Setting('drawn', choices=CLAIMS, doc='the wrong claim: any class, or the most believed one'))
def sparse_pixels(seeds: int, settings: Settings) -> list[Row]:
    """Which of two digits: a judge of few pixels with debaters, consultants, colluders, and students of its labels."""
    if settings.pixels % 2:
        raise ConfigError(f'sparse_pixels.pixels: {settings.pixels}, expected an even number, half for each debater')
    every = keys(seeds, 'sparse pixels')
    world = worlds(every, *digits(), settings.steps, settings.pixels, settings.claims)
    found = jax.device_get(transcripts(every, world, settings.pixels))
    return [*decided(world, found, collusion(every, world, settings.pixels)), *scored(world, found),
            *rated(world, found, mixed(every, world, settings.pixels)), *taught(every, world, found)]
