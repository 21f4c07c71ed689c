"""Small weak-to-strong experiments in the code of openai/weak-to-strong and in this package, number by number.

COMMAND: make reproduce CODE=CHECKOUT MODEL=FOLDER DATA=FOLDER [TASKS=sst2,rotten_tomatoes] [SEEDS=5] [WORK=FOLDER]
Needs PyTorch, and some minutes for each task and seed; what is done is kept in WORK and not done again.

MODEL cut to 4 layers teaches MODEL cut to 6 layers a task of DATA (a folder with a folder of parquet files for each),
fully fine-tuned: weak, naive (xent), logconf and ceiling, as their `train_weak_to_strong.py` wires them. Compared are
all training losses, the weak labels and all answers on the test set. Theirs gets from here the folders of the cut
models, the texts with their classes and the order of the rows; it tokenises, trains, labels and answers by itself, and
learns what its own weak model says.

What ours sets to be like theirs: no intercept of the head (both heads start at zero), no warm-up of the rate, no
clipping, batches not dealt out by length, `confidence_openai`. Epochs of theirs are all in one order, and a batch may
reach into the next one: so both epochs of ours are given to it as the rows of one. Its padding is id 0, which no text
here may have. Its table of learning rates lacks small models: the rate is given.
"""
import io
import json
import pathlib
import sys
import tempfile

import numpy as np
from absl import flags

from configs import nlp
from experiments.reproduce import original
from experiments.reproduce.original import BATCH, EPOCHS, LAYERS, RATE, Differs, Trained
from w2s_jax import cli
from w2s_jax.engine import experiment, plan
from w2s_jax.errors import ConfigError
from w2s_jax.store.artifacts import Artifact, write_json

# Who ours calls so -> the name here.
NAMES = {('weak', 'weak'): 'weak', ('student', 'xent'): 'naive', ('student', 'confidence_openai'): 'logconf',
         ('ceiling', 'ceiling'): 'ceiling'}
APART = 2e-4  # how far two losses or two probabilities may be apart, after 40 steps in float32
SPREAD = 100 * APART  # how far a model's probabilities must be apart over the test set, or equal ones say little


def configured(task: str, seed: int, model: pathlib.Path, folder: pathlib.Path):
    """The experiment."""
    c = nlp.get_config(task)
    c.update_from_flattened_dict({
        'task.path': str(folder / task), 'task.train_size': 640, 'task.test_size': 200, 'seeds': (seed,),
        'student.loss.name': 'confidence_openai', 'method.baselines': ('xent',), 'optimizer.learning_rate': RATE,
        'optimizer.warmup': 0., 'optimizer.clip': 0., 'train.epochs': EPOCHS, 'train.batch_size': BATCH,
        'train.window': 1, 'train.evaluations': 1, 'train.keep': 'teacher', 'report.html': False})
    for role, layers in LAYERS.items():
        c[role].model, c[role].layers, c[role].intercept = str(model), layers, False
    return plan.ready(c)


def ours(found: plan.Plan, work: pathlib.Path) -> tuple[dict[str, Trained], np.ndarray]:
    """The experiment here: what was trained, and the weak labels `[n, 2]`."""
    experiment.run(found.config, work, io.StringIO())
    store, out = work / 'store', {}
    for target in found.targets:
        arrays = Artifact(store / f'fit-{target.need.id}').arrays
        answers = np.zeros(arrays['test.top'].shape)
        np.put_along_axis(answers, arrays['test.top'], arrays['test.top_probability'], 1)
        out[NAMES[target.role, target.label]] = Trained(arrays['loss'], answers)
    [labels] = [phase for phase in found.phases if phase.role == 'label']
    return out, Artifact(store / f'predict-{labels.id}').arrays['labels']


def compared(here: tuple, there: tuple, truth: np.ndarray) -> dict:
    """Accuracies of both, the answers that differ, and the largest difference of losses, probabilities and weak labels.
    Raises Differs where there is nothing to compare."""
    models = {}
    for name, mine in here[0].items():
        other = there[0][name]
        if len(mine.losses) != len(other.losses):
            raise Differs(f'{name}: {len(other.losses)} steps there, expected the {len(mine.losses)} here')
        if np.ptp(mine.probabilities[:, 0]) < SPREAD:
            raise Differs(f'{name}: says the same of all rows of the test set, expected more than {SPREAD:g} between')
        models[name] = {
            'here': float((mine.answers == truth).mean()), 'there': float((other.answers == truth).mean()),
            'differ': int((mine.answers != other.answers).sum()), 'losses': largest(mine.losses, other.losses),
            'probabilities': largest(mine.probabilities, other.probabilities)}
    return {'models': models, 'labels': largest(here[1], there[1]), 'tests': len(truth), 'rows': len(here[1])}


def largest(mine: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(mine - other).max())


def one(task: str, seed: int, given) -> dict:
    """Both experiments of a task and seed, or what is kept of them."""
    model, folder, code = (pathlib.Path(given[k].value).expanduser().absolute() for k in ('model', 'data', 'code'))
    found = plan.prepare(configured(task, seed, model, folder), lambda *a: None)
    kept = pathlib.Path(given.workdir) / f'{task}-{seed}.json'
    if kept.exists() and (done := json.loads(kept.read_text()))['id'] == found.target.id:
        return done
    with tempfile.TemporaryDirectory() as work:
        here = ours(found, pathlib.Path(work) / 'ours')
        there = original.theirs(code, found, model, pathlib.Path(work) / 'theirs')
    done = compared(here, there, np.asarray(found.dataset.test.truth)) | {'id': found.target.id}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, done)
    return done


def report(task: str, done: list[dict]) -> str:
    """A table of a task: accuracies per cent over the seeds, and how far the two are apart."""
    lines = [f'{task}, {len(done)} seeds, {done[0]["rows"]} rows a half, {done[0]["tests"]} test rows',
             f'{"":10}{"accuracy here":>16}{"there":>16}{"answers differ":>16}{"losses":>10}{"probabilities":>15}']
    for name in done[0]['models']:
        rows = [d['models'][name] for d in done]
        said = [f'{100 * np.mean(x):.1f} ± {100 * np.std(x, ddof=1) / len(x) ** .5 if len(x) > 1 else 0:.1f}'
                for x in ([r[side] for r in rows] for side in ('here', 'there'))]
        lines.append(f'{name:10}{said[0]:>16}{said[1]:>16}{sum(r["differ"] for r in rows):>16}'
                     f'{max(r["losses"] for r in rows):>10.1e}{max(r["probabilities"] for r in rows):>15.1e}')
    return '\n'.join([*lines, f'weak labels: {max(d["labels"] for d in done):.1e} apart at most'])


def check(done: dict, where: str) -> None:
    """Raises Differs, naming the first thing in which the two are not the same."""
    for name, row in done['models'].items():
        if row['differ'] or max(row['losses'], row['probabilities']) > APART:
            raise Differs(f'{where}: {name} differs in {row["differ"]} answers, its losses by {row["losses"]:.1e}, its '
                          f'probabilities by {row["probabilities"]:.1e}; expected none, and at most {APART:g}')
    if done['labels'] > APART:
        raise Differs(f'{where}: weak labels differ by {done["labels"]:.1e}, expected at most {APART:g}')


def main() -> None:
    """Every task and seed, then a table a task."""
    given = flags.FLAGS
    for name, file, wanted in (('code', 'weak_to_strong/train.py', 'a checkout of openai/weak-to-strong'),
                               ('model', 'config.json', "a model's folder"), ('data', '.', 'a folder of datasets')):
        path = given[name].value
        if not path or not (pathlib.Path(path).expanduser() / file).exists():
            raise ConfigError(f'--{name}: {path!r}, expected {wanted}')
    failed = ''
    for task in given.tasks:
        done = []
        for seed in range(given.seeds):
            done.append(one(task, seed, given))
            said = ', '.join(f'{k} {v["here"]:.4f} {v["there"]:.4f}' for k, v in done[-1]['models'].items())
            print(f'{task}, seed {seed}, right here and there: {said}', flush=True)
        print(report(task, done), flush=True)
        for seed, found in enumerate(done):
            try:
                check(found, f'{task}, seed {seed}')
            except Differs as e:
                failed = failed or str(e)
    if failed:
        print(f'reproduce: {failed}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    for flag, default, said in (('code', None, 'a checkout of openai/weak-to-strong'), ('model', None, 'a folder'),
                                ('data', None, 'a folder of datasets'), ('workdir', 'runs/reproduce', 'a folder')):
        flags.DEFINE_string(flag, default, said)
    flags.DEFINE_list('tasks', ['sst2', 'rotten_tomatoes'], 'names of tasks')
    flags.DEFINE_integer('seeds', 5, 'how many, from 0 up', lower_bound=1)
    cli.run(main)
