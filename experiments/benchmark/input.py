"""What `experiments.benchmark` measures of the input: how long the device waits for batches while a text model is
fine-tuned by `Trainer.fit`, against the same steps on batches that already lie there."""
import statistics
import time
from types import SimpleNamespace

import jax
import numpy as np

from experiments.benchmark.tables import Table, number, share
from w2s_jax import config as configs
from w2s_jax import data
from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError
from w2s_jax.models import tokens, zoo
from w2s_jax.models.modes import Model
from w2s_jax.runtime import sharding
from w2s_jax.tasks import TASKS
from w2s_jax.train import step as training
from w2s_jax.train import trainer as train
from w2s_jax.train.runs import Runs, num_steps


def starving(options: SimpleNamespace) -> tuple[Table, dict]:
    """Idle share = 1 - (seconds of the steps alone) / (seconds of the same steps in `Trainer.fit`), rounds in turn.

    The steps are those of the student of `config` on the truth, of its first seed; those before `fit` first reports,
    and the last ones, after which it evaluates, are left out of both. Raises ConfigError for too few of them.
    """
    trainer, runs = student(options.config, options.rows)
    reports = sorted(fit(trainer, runs))[:-1]  # which compiles one program a length
    if len(reports) < 2:
        raise ConfigError(f'--rows: {trainer.static.steps} steps, too few to measure, expected 48 or more')
    marks = reports[0], reports[-1]
    placed = [place(trainer, runs, step) for step in range(marks[-1])]
    sides = {'fit': lambda: fit(trainer, runs), 'alone': lambda: alone(trainer, runs, placed, marks)}
    rounds = []
    for i in range(options.rounds):
        times = {k: sides[k]() for k in list(sides)[::1 if i % 2 else -1]}
        rounds.append({k: t[marks[1]] - t[marks[0]] for k, t in times.items()} | {'steps': marks[1] - marks[0]})
    idle = [1 - r['alone'] / r['fit'] for r in rounds]
    table = [['', 'ms/step in fit', 'ms/step alone', 'idle share', 'lowest', 'highest'],
             [f'{options.config.task.name}, {trainer.model.name}',
              *(number(1e3 * statistics.median(r[k] / r['steps'] for r in rounds)) for k in ('fit', 'alone')),
              *map(share, (statistics.median(idle), min(idle), max(idle)))]]
    return table, {'rounds': rounds, 'idle': idle, 'steps': trainer.static.steps, 'shapes': trainer.shapes}


def student(config, rows: int) -> tuple[train.Trainer, Runs]:
    """The student of a config and its data, as `phases.fit` makes them for a ceiling on `rows` examples (0: half of the
    pool, as in an experiment)."""
    config = configs.validate(config)
    dataset = TASKS[config.task.name].fn(config.task, print)
    model = zoo.get(config.student, 'student', dataset)
    if model.tokenizer is None:
        raise ConfigError(f'student.model: {model.name!r}, expected a language model')
    inputs = encoded(model, config, dataset)
    half = np.random.default_rng(0).permutation(len(dataset.pool))[:rows or len(dataset.pool) // 2]
    c = config.optimizer
    rate = config.student.learning_rate or c.learning_rate or model.learning_rate
    numbers = training.hyper(*(np.array([x], np.float32) for x in (rate, c.weight_decay, c.beta2, c.clip, c.warmup)))
    runs = Runs(inputs, half[None], dataset.pool.truth[half][None], np.zeros(1, np.int64), numbers,
                data.take(inputs, np.zeros(1, int)), 1, dataset.num_classes, config.train.window)
    steps = num_steps(len(half), config.train.batch_size, config.train.epochs)
    static = training.Static('xent', steps, config.train.batch_size, dataset.num_classes, config.train.accumulate)
    lengths = data.longest(inputs)
    assert lengths is not None
    shapes = data.choose_shapes(lengths, config.train.shapes)
    return train.Trainer(model, static, sharding.make_mesh(**config.mesh), shapes=shapes), runs


def encoded(model: Model, config, dataset: Dataset) -> dict:
    """The pool's texts as the model takes them."""
    assert model.tokenizer is not None
    limit = min(config.task.max_length, model.max_length)
    return tokens.encode(model.tokenizer, dataset.pool.inputs['text'], limit,
                         config.task.truncate or dataset.truncate)[0]


def fit(trainer: train.Trainer, runs: Runs) -> dict[int, float]:
    """When `Trainer.fit` said that so many steps were done."""
    times = {}
    trainer.fit(runs, log=lambda done, steps, metrics: times.update({done: time.perf_counter()}))
    return times


def place(trainer: train.Trainer, runs: Runs, step: int) -> tuple:
    """The batch of a step, on the devices."""
    inputs, supervision = runs.batch(step, trainer.static.batch_size)
    return jax.block_until_ready((trainer.place(inputs), sharding.place_batch(supervision, trainer.mesh)))


def alone(trainer: train.Trainer, runs: Runs, placed: list[tuple], marks: tuple[int, int]) -> dict[int, float]:
    """When so many steps as each of `marks` says were done, where nothing else is: as in `Trainer.fit` one step waits
    for another."""
    state, before, times = jax.block_until_ready(trainer.init(runs)), None, {}
    for done, batch in enumerate(placed[:marks[-1]], 1):
        state, metrics = trainer.step(state, *batch, runs.hyper, trainer.frozen)
        trainer.wait([before, metrics])
        if done in marks:
            jax.block_until_ready(metrics)
        before = metrics
        if done in marks:
            times[done] = time.perf_counter()
    return times
