"""The one place where every section of a config takes its defaults, and where a config is checked."""
import difflib

import ml_collections
from ml_collections import config_dict

from w2s_jax import losses, optimizers
from w2s_jax.errors import ConfigError
from w2s_jax.methods import METHODS
from w2s_jax.models.zoo import GIVEN, ZOO
from w2s_jax.tasks import TASKS


def section(**fields) -> ml_collections.ConfigDict:
    """A section; None stands for a float that falls back on another field."""
    return ml_collections.ConfigDict({k: config_dict.placeholder(float) if v is None else v for k, v in fields.items()})


def default_config() -> ml_collections.ConfigDict:
    """Every field with its default. Configs start from this and change what they must."""
    c = ml_collections.ConfigDict()
    c.task = section(
        name='chess',
        path='',  # a file; '' for what is built in
        test_path='',  # '' cuts the test set from the same rows
        train_size=0,  # rows of the pool, both halves together; 0: all
        test_size=0,  # 0: a fifth
        seed=0,  # of the cut and of synthetic data
        min_rating=0, max_rating=0,  # puzzles; 0: no limit
        positions_per_game=4,  # games
        max_bad_rows=0.01,  # the share of unusable rows that is tolerated
    )
    c.teacher = _model('chess-xs')
    c.student = _model('chess-m')
    c.method = section(
        name='naive',
        baselines=('xent',),  # losses trained on the same labels beside student.loss, to compare with
        labels='soft',  # soft: the teacher's probabilities; hard: its answer
        share=0.5,  # of the pool, for the teacher; the rest is labelled for the student
    )
    c.optimizer = section(name='adamw', schedule='cosine', learning_rate=3e-4, weight_decay=0.0, beta2=0.999,
                          clip=1.0, warmup=0.05)  # clip: the gradient's norm, 0: not; warmup: fraction of training
    c.train = section(
        epochs=2, batch_size=32,
        accumulate=1,  # microbatches a step; changes memory, not results
        eval_batch_size=64,
        evaluations=4,  # points of the learning curves
        watch=256,  # test rows that the curves are measured on
        checkpoint_every=100,  # steps
        runs='auto',  # how runs share a program: vmap (side by side), map (in turn), auto
    )
    c.seeds = (0, 1, 2)
    c.mesh = section(data=-1, fsdp=1, tensor=1)  # -1: all the devices that are left
    c.report = section(html=True, examples=6, resamples=2000)
    c.plugins = ()  # modules to import first: they add to LOSSES, TASKS, ZOO, METHODS
    return c


def _model(model: str) -> ml_collections.ConfigDict:
    loss = section(name='xent', alpha=None, alpha_warmup=None)  # None: the loss's own default
    fields = section(model=model, mode='full', learning_rate=None)  # None: optimizer.learning_rate
    fields.epochs = config_dict.placeholder(int)  # None: train.epochs
    fields.loss = loss
    return fields


_RANGES = {  # field: (low, high, low itself allowed)
    'teacher.loss.alpha': (0, 1, True), 'student.loss.alpha': (0, 1, True),
    'teacher.loss.alpha_warmup': (0, 1, True), 'student.loss.alpha_warmup': (0, 1, True),
    'teacher.learning_rate': (0, 1e3, True), 'student.learning_rate': (0, 1e3, True),
    'optimizer.learning_rate': (0, 1e3, True), 'optimizer.weight_decay': (0, 1e3, True),
    'optimizer.beta2': (0, 1, False), 'optimizer.clip': (0, 1e9, True), 'optimizer.warmup': (0, 1, True),
    'method.share': (0, 1, False), 'task.max_bad_rows': (0, 1, True),
    'teacher.epochs': (1, 10**9, True), 'student.epochs': (1, 10**9, True), 'train.epochs': (1, 10**9, True),
    'train.batch_size': (1, 10**9, True), 'train.accumulate': (1, 10**9, True),
    'train.eval_batch_size': (1, 10**9, True), 'train.evaluations': (1, 10**6, True), 'train.watch': (1, 10**9, True),
    'train.checkpoint_every': (0, 10**9, True), 'report.resamples': (100, 10**6, True),
}


def validate(config) -> None:
    """Raises ConfigError, naming the field and what was expected, at the first thing that cannot be run."""
    _known_fields(config, default_config(), '')
    for prefix in ('teacher', 'student'):
        part = config[prefix]
        if not (prefix == 'teacher' and part.model == GIVEN):
            optimizers.known(f'{prefix}.model', part.model, ZOO)
        losses.get_loss(part.loss.name, f'{prefix}.loss.name')
        optimizers.known(f'{prefix}.mode', part.mode, {'full': None})
    for name in config.method.baselines:
        losses.get_loss(name, 'method.baselines')
    optimizers.known('task.name', config.task.name, TASKS)
    optimizers.known('method.name', config.method.name, METHODS)
    optimizers.known('method.labels', config.method.labels, {'soft': None, 'hard': None})
    optimizers.known('optimizer.name', config.optimizer.name, optimizers.OPTIMIZERS)
    optimizers.known('optimizer.schedule', config.optimizer.schedule, optimizers.SCHEDULES)
    optimizers.known('train.runs', config.train.runs, {'auto': None, 'vmap': None, 'map': None})
    _numbers(config)
    if config.train.batch_size % config.train.accumulate:
        raise ConfigError(f'train.accumulate: {config.train.accumulate} does not divide '
                          f'train.batch_size {config.train.batch_size}')
    seeds = tuple(config.seeds)
    if not seeds or len(set(seeds)) < len(seeds) or not all(isinstance(s, int) and 0 <= s < 2**32 for s in seeds):
        raise ConfigError(f'seeds: {seeds}, expected one or more distinct integers from 0 up')


def _known_fields(config, like, prefix: str) -> None:
    for name in config:
        if name not in like:
            near = difflib.get_close_matches(name, list(like), 1)
            raise ConfigError(f'{prefix}{name}: no such field' + (f'; did you mean {prefix}{near[0]!s}?' if near else ''))
        if isinstance(like[name], ml_collections.ConfigDict):
            _known_fields(config[name], like[name], f'{prefix}{name}.')


def _numbers(config) -> None:
    for field, (low, high, closed) in _RANGES.items():
        value = flat(config)[field]
        if value is not None and not ((low <= value if closed else low < value) and value <= high):
            bound = f'in {"[" if closed else "("}{low}, {high}]' if high < 10**6 else f'{"at least" if closed else "above"} {low}'
            raise ConfigError(f'{field}: {value}, expected a number {bound}')


def flat(config) -> dict:
    """Dotted field -> plain JSON value."""
    out: dict = {}

    def visit(node, prefix):
        for name in node:
            value = node[name]
            if isinstance(value, ml_collections.ConfigDict | ml_collections.FrozenConfigDict):
                visit(value, f'{prefix}{name}.')
            else:
                out[prefix + name] = list(value) if isinstance(value, tuple) else value
    visit(config, '')
    return out
