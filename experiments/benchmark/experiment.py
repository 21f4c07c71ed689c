"""What `experiments.benchmark` measures of whole processes: a small experiment, and the memory that loading takes."""
import json
import pathlib
import statistics
import sys
import tempfile

from experiments.benchmark.train import Found, ratios
from experiments.benchmark.worker import command, timed
from w2s_jax import config as configs
from w2s_jax import data
from w2s_jax.models import hf
from w2s_jax.tasks import TASKS


def experiment(options) -> Found:
    """A whole small experiment from the start of a process, ours and PyTorch's in turn, compilation included."""
    config = experiment_config(options)
    found: dict = {'rounds': []}
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        (scratch / 'spec.json').write_text(json.dumps(torch_spec(config, options)))
        (scratch / 'small.py').write_text('from w2s_jax.config import default_config as get_config  # noqa: F401\n')
        ours = [sys.executable, '-m', 'experiments.run', f'--config={scratch / "small.py"}',
                *(f'--config.{k}={v}' for k, v in changed(config).items())]
        theirs = command('torch_experiment', {'spec': str(scratch / 'spec.json')})
        for i in range(options.rounds):
            sides = {'jax': [*ours, f'--workdir={scratch / str(i)}'], 'torch': theirs}
            found['rounds'].append({kind: timed(sides[kind]) for kind in list(sides)[::1 if i % 2 else -1]})
            found['results'] = json.loads((scratch / str(i) / 'results.json').read_text())
    seconds = {kind: [r[kind]['seconds'] for r in found['rounds']] for kind in ('jax', 'torch')}
    table = [['seconds', *map(str, range(options.rounds)), 'median'],
             *([kind, *(f'{s:.1f}' for s in (*x, statistics.median(x)))] for kind, x in seconds.items())]
    accuracy = {who: found['results'][who]['accuracy']['mean'] for who in ('weak', 'ceiling')}
    print(f'accuracies: jax {accuracy}, torch {found["rounds"][-1]["torch"]["output"]}')
    return table, found | ratios(seconds['jax'], seconds['torch'])


def experiment_config(options):
    """One seed, one loss, measured once at the end, no report: what the other side does."""
    c, rows = configs.default_config(), options.rows or 1000
    c.task.update(name='sst2', path=str(options.data), train_size=rows, test_size=min(rows, 800))
    c.teacher.model, c.student.model = str(options.teacher), str(options.model)
    c.optimizer.learning_rate, c.seeds, c.report.html = 5e-5, (0,), False
    c.train.update(batch_size=options.batch, epochs=2, evaluations=1)
    return configs.compose(c)


def changed(config) -> dict:
    """The fields of a config that are not the defaults."""
    wanted = configs.settings(config)
    found = {k: tuple(v) if isinstance(v, list) else v for k, v in configs.flat(config).items()}
    return {k: v for k, v in found.items() if v != wanted[k].default}


def torch_spec(config, options) -> dict:
    """The same rows, models and numbers for `torch_loop.experiment`."""
    dataset = TASKS[config.task.name].fn(config.task, lambda line: None)
    halves = data.halves(dataset.pool.group, config.method.share, config.seeds[0])
    parts = dict(zip(('a', 'b', 'test'), (*map(dataset.pool.take, halves), dataset.test), strict=True))
    rows = {k: [[str(text), int(truth)] for text, truth in zip(p.inputs['text'][:, 0], p.truth, strict=True)]
            for k, p in parts.items()}
    folders = {'teacher': options.teacher, 'student': options.model}
    return {'rows': rows, 'pools': {k: hf.read_out(hf.read(f)) for k, f in folders.items()},
            **{k: str(f) for k, f in folders.items()}, 'max_length': config.task.max_length,
            'rate': config.optimizer.learning_rate, 'warmup': config.optimizer.warmup, 'threads': options.threads,
            'batch': config.train.batch_size, 'epochs': config.train.epochs}


def load(options) -> Found:
    """Peak host memory of loading a model against the bytes of its parameters, each time in a new process."""
    argv = command('load', {'model': str(options.model)})
    rounds = [json.loads(timed(argv)['output']) for _ in range(options.rounds)]
    worst = max(r['peak'] / r['parameters'] for r in rounds)
    table = [['parameters, MB', 'peak, MB', 'peak / parameters'],
             [f'{rounds[0]["parameters"] / 1e6:.1f}', f'{max(r["peak"] for r in rounds) / 1e6:.1f}', f'{worst:.3f}']]
    return table, {'rounds': rounds, 'worst': worst}
