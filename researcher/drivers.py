"""Drivers: pure functions `(space, history, rng, settings) -> delta` that choose what is tried next.

A driver sees the space, the notebook's history and the ladder's answers in it, and nothing else. Its state is the
history, so a driver that was killed goes on with the same proposals, and agents that share a notebook share what is
known. The entries of a history are dicts {agent, number, delta, answer, improved}; `answer` is None as long as a run
goes on, or if it failed.
"""
import functools
import hashlib
import json
import warnings

import numpy as np

from researcher import language
from researcher import space as spaces
from researcher.space import Delta, Space
from w2s_jax.api import ConfigError, Registry, Setting, Settings

DRIVERS = Registry('driver')
History = list[dict]
EXTRA = "expected it installed: pip install 'w2s_jax[researcher]'"


def propose(name: str, space: Space, history: History, rng: np.random.Generator, **settings) -> Delta:
    """What the driver tries next. Raises ConfigError for an unknown driver, setting or a space that is none, UserError
    of a language model whose reply is no proposal."""
    entry = DRIVERS.get_entry(name, 'driver')
    for field, value in settings.items():
        if field not in entry.settings:
            raise ConfigError(f'driver {name!r}: no setting {field!r}, expected {", ".join(entry.settings) or "none"}')
        entry.settings[field].check(field, value)
    spaces.check(space)
    values = Settings({k: s.default for k, s in entry.settings.items()} | settings)
    return entry.fn(space, history, rng, values)


def scores(history: History) -> np.ndarray:
    """How good the entries [n] are, in an order: of the ladder's answers the number of the improvement, 0 if there was
    none; NaN if there is no answer. Answers of no ladder (without `improved`) count as they are."""
    improved = np.cumsum([bool(e.get('improved')) for e in history])
    return np.asarray([np.nan if e['answer'] is None else e['answer'] if 'improved' not in e else
                       float(n) if e['improved'] else 0. for e, n in zip(history, improved, strict=True)])


def best_first(history: History) -> History:
    """Entries that have an answer, the best first, of equals the latest."""
    score = scores(history)
    order = np.lexsort((-np.arange(len(history)), -score))
    return [history[i] for i in order if not np.isnan(score[i])]


@DRIVERS.register('random')
def random(space: Space, history: History, rng: np.random.Generator, settings: Settings) -> Delta:
    """Every field uniform, whatever was answered."""
    return spaces.draw(space, rng)


@DRIVERS.register('grid', points=Setting(3, 2, 1000, doc='values of a range'))
def grid(space: Space, history: History, rng: np.random.Generator, settings: Settings) -> Delta:
    """The points of a grid that nobody tried, in an order that is spread over it; then at random."""
    tried = {_key(e['delta']) for e in history}
    left = (d for d in _order(json.dumps(space, sort_keys=False), settings.points) if _key(d) not in tried)
    first = next(left, None)
    return spaces.draw(space, rng) if first is None else dict(first)


@DRIVERS.register('halving', factor=Setting(3, 2, 100, doc='of so many runs of a level one is run at the next'))
def halving(space: Space, history: History, rng: np.random.Generator, settings: Settings) -> Delta:
    """Successive halving, asynchronous (Li et al. 2020, arXiv 1810.05934, algorithm 2): what is among the best of its
    level is run at the next, the highest level first; otherwise something new at the first."""
    name = next((n for n, f in space.items() if spaces.is_levels(f)), None)
    if name is None:
        raise ConfigError('driver halving: the space has no levels, expected a field such as {"levels": [1, 3, 9]}')
    levels = space[name]['levels']
    rung = [[e for e in history if e['delta'][name] == level] for level in levels]
    for here, above in reversed([*zip(range(len(levels) - 1), range(1, len(levels)), strict=True)]):
        run = {_key(e['delta'] | {name: levels[here]}) for e in rung[above]}
        top = best_first(rung[here])
        for entry in top[:len(top) // settings.factor]:
            if _key(entry['delta']) not in run:
                return entry['delta'] | {name: levels[above]}
    return spaces.draw(space, rng) | {name: levels[0]}


@DRIVERS.register('evolution', start=Setting(12, 1, 10000, doc='proposals at random before the first child'),
                  elite=Setting(3, 1, 1000, doc='how many may be the second parent'),
                  mixed=Setting(.2, 0, 1, doc='share of fields from the second parent'),
                  width=Setting(.15, 0, 1, doc='standard deviation of a step, share of a range'),
                  fresh=Setting(.2, 0, 1, doc='share of proposals at random'))
def evolution(space: Space, history: History, rng: np.random.Generator, settings: Settings) -> Delta:
    """A child of the best and another of the best: mostly the first's fields, some changed (a step, another choice)."""
    score = scores(history)
    floor = np.nanmin(score, initial=np.inf)
    able = [e for e in best_first(history)[:settings.elite] if score[history.index(e)] > floor]
    if len(history) < settings.start or not able or rng.random() < settings.fresh:
        return spaces.draw(space, rng)
    best, other = (spaces.encoded(space, able[i]['delta']) for i in (0, rng.integers(len(able))))
    child = np.where(rng.random(len(space)) < settings.mixed, other, best)
    choices = np.asarray([isinstance(f, list) for f in space.values()])
    moved = rng.random(len(space)) < np.where(choices, .5, 1.5) / len(space)
    moved[rng.integers(len(space))] = True
    step = _reflected(child + settings.width * rng.standard_normal(len(space)))
    return spaces.decoded(space, np.where(moved, np.where(choices, rng.random(len(space)), step), child))


@DRIVERS.register('tpe', start=Setting(8, 0, 10000, doc='proposals at random before the model'))
def tpe(space: Space, history: History, rng: np.random.Generator, settings: Settings) -> Delta:
    """Tree-structured Parzen estimators of what was good and what was not (Bergstra et al. 2011), by Optuna."""
    optuna = _optuna()
    distributions = {name: _distribution(optuna, field) for name, field in space.items()}
    sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2 ** 31)), n_startup_trials=settings.start,
                                         multivariate=True)
    study = optuna.create_study(direction='maximize', sampler=sampler)
    for entry, score in zip(history, scores(history), strict=True):
        if not np.isnan(score):
            study.add_trial(optuna.trial.create_trial(params=_indices(space, entry['delta']), value=float(score),
                                                      distributions=distributions))
    chosen = study.ask(distributions).params
    return {name: field[chosen[name]] if isinstance(field, list) else
            field['levels'][-1] if spaces.is_levels(field) else chosen[name] for name, field in space.items()}


@DRIVERS.register('cma', sigma=Setting(.25, 0, 1, ends='(]', doc='first standard deviation, share of a range'),
                  population=Setting(6, 5, 1000, doc='answers per update'))
def cma(space: Space, history: History, rng: np.random.Generator, settings: Settings) -> Delta:
    """Covariance matrix adaptation (Hansen 2016, arXiv 1604.00772) on the unit cube, by the library below Optuna's CMA
    sampler, which keeps a state of its own where this one is a fold of the history."""
    try:
        import cmaes
    except ImportError:
        raise ConfigError(f'driver cma: no package cmaes, {EXTRA}') from None
    size = max(len(space), 2)  # the library takes no line
    bounds = np.tile([0., 1.], (size, 1))
    points = [(np.pad(spaces.encoded(space, e['delta']), (0, size - len(space)), constant_values=.5), -score)
              for e, score in zip(history, scores(history), strict=True) if not np.isnan(score)]
    if len(points) < settings.population:
        return spaces.draw(space, rng)
    first = min(points[:settings.population], key=lambda p: p[1])[0]  # no place, as the middle, is better unseen
    state = cmaes.CMA(first, settings.sigma, bounds=bounds, population_size=settings.population)
    for i in range(0, len(points) - settings.population + 1, settings.population):
        if not state.should_stop():
            state.tell(points[i:i + settings.population])
    state.reseed_rng(int(rng.integers(2 ** 31)))
    return spaces.decoded(space, state.ask()[:len(space)])


@DRIVERS.register('language_model', command=Setting('', doc='reads the prompt on its standard input, writes a reply'),
                  url=Setting('', doc='of an endpoint as OpenAI has them, up to /v1'), model=Setting(''),
                  key_variable=Setting('', doc='environment variable that holds the key'),
                  seconds=Setting(120., 0, 86400, ends='(]'),
                  python=Setting(0, 0, 1000, doc='lines of an idea in Python'))
def language_model(space: Space, history: History, rng: np.random.Generator, settings: Settings) -> Delta:
    """A language model that reads the space and the answers and replies with a proposal; off without command or url."""
    text = language.reply(language.prompt(space, best_first(history), settings.python), settings)
    return language.proposal(text, space, settings.python)


@functools.lru_cache(4)
def _order(space: str, points: int) -> list[Delta]:
    """The grid of a space, shuffled by the space alone: a share of it is then spread over it."""
    found = [*spaces.grid(json.loads(space), points)]
    seed = int(hashlib.sha256(space.encode()).hexdigest()[:8], 16)
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))]


def _key(delta: Delta) -> str:
    return json.dumps(delta, sort_keys=True)


def _reflected(point: np.ndarray) -> np.ndarray:
    """Into the unit cube, by mirrors at its walls."""
    return 1 - np.abs(1 - np.mod(point, 2))


def _optuna():
    try:
        import optuna
    except ImportError:
        raise ConfigError(f'driver tpe: no package optuna, {EXTRA}') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings('ignore', category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _distribution(optuna, field):
    if isinstance(field, list) or spaces.is_levels(field):
        options = field if isinstance(field, list) else field['levels']
        return optuna.distributions.CategoricalDistribution(range(len(options)))
    make = optuna.distributions.IntDistribution if field.get('integer') else optuna.distributions.FloatDistribution
    return make(field['low'], field['high'], log=bool(field.get('log')))


def _indices(space: Space, delta: Delta) -> dict:
    """Choices by their place: Optuna takes only some types."""
    return {n: f.index(delta[n]) if isinstance(f, list) else f['levels'].index(delta[n]) if spaces.is_levels(f) else
            delta[n] for n, f in space.items()}
