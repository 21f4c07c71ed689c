"""The one place where every section of a config takes its defaults, and where a config is checked."""
import difflib

import ml_collections
from ml_collections import config_dict

from w2s_jax import losses
from w2s_jax.errors import ConfigError
from w2s_jax.methods import METHODS
from w2s_jax.models import zoo
from w2s_jax.models.config import ATTENTIONS, REMATS
from w2s_jax.models.modes import MODES
from w2s_jax.registry import known
from w2s_jax.report.sinks import SINKS
from w2s_jax.tasks import TASKS
from w2s_jax.train import optimizers

# What decides where and how fast a run goes, not what it computes: these may change when it is resumed.
EXECUTION = ('mesh.', 'report.html', 'report.sinks', 'train.accumulate', 'train.eval_batch_size',
             'train.checkpoint_every', 'train.keep', 'train.runs', 'train.driver', 'train.memory', 'train.shapes',
             'train.remat', 'train.attention')


def section(**fields) -> ml_collections.ConfigDict:
    """A section; None stands for a float that falls back on another field."""
    return ml_collections.ConfigDict({k: config_dict.placeholder(float) if v is None else v for k, v in fields.items()})


def default_config() -> ml_collections.ConfigDict:
    """Every field with its default. Configs start from this and change what they must."""
    c = ml_collections.ConfigDict()
    c.task = section(
        name='chess',
        path='',  # a file or folder; '' for what is built in, or for the hub
        test_path='',  # '' cuts the test set from the same rows
        train_size=0,  # rows of the pool, both halves together; 0: all
        test_size=0,  # 0: a fifth
        seed=0,  # of the cut and of synthetic data
        min_rating=0, max_rating=0,  # puzzles; 0: no limit
        positions_per_game=4,  # games
        max_bad_rows=0.01,  # the share of unusable rows that is tolerated
        max_length=512,  # tokens of a text, at most the model's own limit
        truncate='',  # which end a longer text loses: end, start, '' as the task has it
        text='', question='', options='', answer='', label='', group='',  # columns of task files
        prompt='', chosen='', rejected='',  # columns of task preference
        template='',  # text with {column} in it; '' for the task's own
        classes='',  # names in order, separated by commas; '' as they occur
    )
    c.teacher = _model('chess-xs')
    c.student = _model('chess-m')
    c.method = section(
        name='naive',
        baselines=('xent',),  # losses trained on the same labels beside student.loss, to compare with
        labels='soft',  # soft: the teacher's probabilities; hard: its answer
        share=0.5,  # of the pool, for the teacher; the rest is labelled for the student
        temperature=1.0,  # T of the labels p^(1/T), soft ones: below 1 they are sharper
        label_noise=0.0,  # share of the teacher's labels replaced by another class, drawn uniformly
        chain=(),  # bootstrap: the models between teacher and student, each taught by the one before
        chain_loss='xent',  # of these; otherwise they are trained as the student is
        fresh=False,  # True: each of them, and then the student, learns a slice of its own of the student's half
    )
    c.optimizer = section(
        name='adamw', schedule='cosine',  # adamw, adamw_half, adafactor, lion, sgd (optimizers.py)
        learning_rate=None,  # None: the model's own default (models/defaults.py)
        weight_decay=0.0, beta2=0.999,
        clip=1.0,  # the gradient's norm; 0: not
        warmup=0.05,  # fraction of training
    )
    c.train = section(
        epochs=2, batch_size=32,
        accumulate=1,  # microbatches a step; changes memory, not results
        eval_batch_size=64,
        evaluations=4,  # points of the learning curves
        watch=256,  # test rows that the curves are measured on
        checkpoint_every=100,  # steps
        keep='all',  # whose trained parameters are stored: all, teacher
        shapes=4,  # lengths that texts are padded to; a program is compiled for each
        window=8,  # batches of texts dealt out by length together; 1: no regard to length
        runs='auto',  # how runs share a program: vmap (side by side), map (in turn), auto
        driver='jit',  # of training steps: jit over the mesh, or pmap over this host's devices (data parallel)
        remat='auto',  # kept for the backward pass: none (all), products, linear, full (layers only); auto: the model's
        attention='auto',  # xla, cudnn (NVIDIA, bfloat16), splash (TPU); auto: the fused one that there is
        memory=None,  # gigabytes for the runs of a program; None: most of what there is (memory.py)
    )
    c.seeds = (0, 1, 2)
    c.mesh = section(data=-1, fsdp=1, tensor=1)  # -1: all the devices that are left
    c.report = section(
        html=True, examples=6, resamples=2000,
        sinks=('tensorboard',),  # where numbers go beside metrics.jsonl: tensorboard, trackio, wandb
    )
    c.plugins = ()  # modules to import first: they add to LOSSES, TASKS, ZOO, METHODS
    return c


def _model(model: str) -> ml_collections.ConfigDict:
    loss = section(name='xent', alpha=None, alpha_warmup=None)  # None: the loss's own default
    fields = section(
        model=model,  # a name of models/zoo.py, a folder, or a hub id
        mode='full',  # full, lora, probe (the head alone, on features computed once)
        dtype='float32',  # of the computation: float32, bfloat16
        learning_rate=None,  # None: optimizer.learning_rate
    )
    fields.epochs = config_dict.placeholder(int)  # None: train.epochs
    fields.loss = loss
    fields.lora = section(rank=8, alpha=16.0, targets='attention/|mlp/')  # targets: a regular expression on paths
    return fields


_RANGES = {  # field: (low, high, which of the two are allowed)
    'task.seed': (0, 2**32, '[)'), 'task.train_size': (0, 10**9, '[]'), 'task.test_size': (0, 10**9, '[]'),
    'task.max_bad_rows': (0, 1, '[)'),
    'teacher.loss.alpha': (0, 1, '[]'), 'student.loss.alpha': (0, 1, '[]'),
    'teacher.loss.alpha_warmup': (0, 1, '[]'), 'student.loss.alpha_warmup': (0, 1, '[]'),
    'teacher.learning_rate': (0, 1e3, '[]'), 'student.learning_rate': (0, 1e3, '[]'),
    'teacher.lora.rank': (1, 10**6, '[]'), 'student.lora.rank': (1, 10**6, '[]'),
    'teacher.lora.alpha': (0, 1e6, '(]'), 'student.lora.alpha': (0, 1e6, '(]'),
    'task.max_length': (4, 10**6, '[]'), 'train.shapes': (1, 64, '[]'), 'train.window': (1, 10**6, '[]'),
    'teacher.epochs': (1, 10**9, '[]'), 'student.epochs': (1, 10**9, '[]'),
    'method.share': (0, 1, '()'), 'method.temperature': (0, 1e3, '(]'), 'method.label_noise': (0, 1, '[]'),
    'optimizer.learning_rate': (0, 1e3, '[]'), 'optimizer.weight_decay': (0, 1e3, '[]'),
    'optimizer.beta2': (0, 1, '()'), 'optimizer.clip': (0, 1e9, '[]'), 'optimizer.warmup': (0, 1, '[]'),
    'train.epochs': (1, 10**9, '[]'), 'train.batch_size': (1, 10**9, '[]'), 'train.accumulate': (1, 10**9, '[]'),
    'train.eval_batch_size': (1, 10**9, '[]'), 'train.evaluations': (1, 10**6, '[]'), 'train.watch': (1, 10**9, '[]'),
    'train.checkpoint_every': (0, 10**9, '[]'), 'train.memory': (0, 1e6, '(]'),
    'report.examples': (0, 10**6, '[]'), 'report.resamples': (100, 10**6, '[]'),
}


def validate(config) -> None:
    """Raises ConfigError, naming the field and what was expected, at the first thing that cannot be run."""
    _check_fields(config, default_config(), '')
    for prefix in ('teacher', 'student'):
        part = config[prefix]
        if not (prefix == 'teacher' and part.model == zoo.GIVEN):
            zoo.check_name(f'{prefix}.model', part.model)
        losses.get_loss(part.loss.name, f'{prefix}.loss.name')
        known(f'{prefix}.mode', part.mode, MODES)
        known(f'{prefix}.dtype', part.dtype, dict.fromkeys(('float32', 'bfloat16')))
    for name in config.method.baselines:
        losses.get_loss(name, 'method.baselines')
    for name in config.report.sinks:
        known('report.sinks', name, SINKS)
    losses.get_loss(config.method.chain_loss, 'method.chain_loss')
    for name in config.method.chain:
        zoo.check_name('method.chain', name)
    known('task.name', config.task.name, TASKS)
    known('task.truncate', config.task.truncate, dict.fromkeys(('', 'end', 'start')))
    known('method.name', config.method.name, METHODS)
    known('method.labels', config.method.labels, {'soft': None, 'hard': None})
    known('optimizer.name', config.optimizer.name, optimizers.OPTIMIZERS)
    known('optimizer.schedule', config.optimizer.schedule, optimizers.SCHEDULES)
    known('train.keep', config.train.keep, dict.fromkeys(('all', 'teacher')))
    known('train.remat', config.train.remat, dict.fromkeys(('auto', *REMATS)))
    known('train.attention', config.train.attention, dict.fromkeys(ATTENTIONS))
    known('train.driver', config.train.driver, dict.fromkeys(('jit', 'pmap')))
    known('train.runs', config.train.runs, {'auto': None, 'vmap': None, 'map': None})
    _numbers(config)
    _method(config)
    if config.train.batch_size % config.train.accumulate:
        raise ConfigError(f'train.accumulate: {config.train.accumulate} does not divide '
                          f'train.batch_size {config.train.batch_size}')
    seeds = tuple(config.seeds)
    if not seeds or not all(type(s) is int and 0 <= s < 2**32 for s in seeds) or len(set(seeds)) < len(seeds):
        raise ConfigError(f'seeds: {seeds}, expected one or more distinct integers from 0 up')


def _method(config) -> None:
    method = config.method
    if method.name == 'bootstrap' and not method.chain:
        raise ConfigError('method.chain: (), expected one or more models between the supervisor and the student')
    if config.teacher.model == zoo.GIVEN:
        for name, plain in (('temperature', 1), ('label_noise', 0)):
            if method[name] != plain:
                raise ConfigError(f"method.{name}: {method[name]:g}, but teacher.model 'given' has labels of its own, "
                                  f'expected {plain}')


def check_name(field: str) -> None:
    """Raises ConfigError, with the nearest names, unless dotted `field` is one of `default_config()`."""
    node, prefix = default_config(), ''
    for name in field.split('.'):
        _check_name(name, node, prefix)
        node, prefix = node[name], f'{prefix}{name}.'


def _check_name(name: str, node, prefix: str) -> None:
    names = list(node) if isinstance(node, ml_collections.ConfigDict) else []
    if name not in names:
        near = difflib.get_close_matches(name, names, 2)
        hint = f'; did you mean {" or ".join(prefix + n for n in near)}?' if near else ''
        raise ConfigError(f'{prefix}{name}: no such field{hint}')


def _check_fields(config, like, prefix: str) -> None:
    for name in config:
        _check_name(name, like, prefix)
    for name, default in like.items():
        field = prefix + name
        if name not in config:
            raise ConfigError(f'{field}: missing, expected a config made from w2s_jax.config.default_config()')
        value, kind = config[name], like.get_type(name)
        if not (isinstance(value, (int, float) if kind is float else kind) or value is default is None):
            raise ConfigError(f'{field}: {value!r}, expected a {kind.__name__}')
        if isinstance(default, ml_collections.ConfigDict):
            _check_fields(config[name], default, f'{field}.')


def _numbers(config) -> None:
    values = flat(config)
    for field, (low, high, closed) in _RANGES.items():
        value = values[field]
        if value is None:
            continue
        if not (low < value < high or (value == low and closed[0] == '[') or (value == high and closed[1] == ']')):
            raise ConfigError(f'{field}: {value}, expected a number in {closed[0]}{low:g}, {high:g}{closed[1]}')


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
