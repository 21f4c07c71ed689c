"""One small weak-to-strong experiment in the code of openai/weak-to-strong and in this package, number by number.

COMMAND: make parity-original CODE=CHECKOUT MODEL=FOLDER DATA=FOLDER. Needs PyTorch, and half an hour.

MODEL cut to 2 layers teaches MODEL cut to 6 layers SST-2 (DATA), fully fine-tuned: weak, naive (xent), logconf and
ceiling, as their `train_weak_to_strong.py` wires them. Compared are all training losses, the weak labels and all
answers on the test set. Theirs gets from here the folders of the cut models, the texts with their classes and the order
of the rows; it tokenises, trains, labels and answers by itself, and learns what its own weak model says.

What ours sets to be like theirs: no intercept of the head (both heads start at zero), no warm-up of the rate, no
clipping, batches not dealt out by length, `confidence_openai`. Epochs of theirs are all in one order, and a batch may
reach into the next one: so both epochs of ours are given to it as the rows of one. Its padding is id 0, which no text
here may have.

What of theirs is replaced, and nothing that decides a number:
- `wandb` and `torch_optimizer`, where they are not installed, by empty modules: neither is used with Adam and without
  WANDB_PROJECT, which is taken away.
- `load_sharded_checkpoint` is put where transformers 4 had it; it is not called.
- `LlamaForCausalLM.transformer`, by which it reads the hidden states, is the name that GPT-2 has for `model`.
- `TransformerWithHead` stays on the CPU where it is sent to "cuda", and is not saved.
"""
import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import os
import pathlib
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1])]
from configs import nlp  # noqa: E402
from w2s_jax import data  # noqa: E402
from w2s_jax.engine import experiment, plan  # noqa: E402
from w2s_jax.errors import UserError  # noqa: E402
from w2s_jax.models import hf  # noqa: E402
from w2s_jax.store.artifacts import Artifact  # noqa: E402

LAYERS = {'teacher': 2, 'student': 6}
SEED, BATCH, EPOCHS, RATE = 0, 32, 2, 5e-5
# Who ours calls so -> the name here.
NAMES = {('weak', 'weak'): 'weak', ('student', 'xent'): 'naive', ('student', 'confidence_openai'): 'logconf',
         ('ceiling', 'ceiling'): 'ceiling'}
APART = 1e-5  # how far two losses or two probabilities may be apart
SPREAD = 100 * APART  # how far a model's probabilities must be apart over the test set, or equal ones say little


class Differs(Exception):
    """The two do not agree; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """losses: `[T]` of the steps.  probabilities: `[N, 2]` on the test set."""
    losses: np.ndarray
    probabilities: np.ndarray

    @property
    def answers(self) -> np.ndarray:
        return self.probabilities.argmax(-1)


def configured(model: pathlib.Path, folder: pathlib.Path):
    """The experiment."""
    c = nlp.get_config('sst2')
    c.update_from_flattened_dict({
        'task.path': str(folder), 'task.train_size': 1278, 'task.test_size': 400, 'seeds': (SEED,),
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


def order(rows: int) -> np.ndarray:
    """The places in a half of the rows that ours learns from, step after step."""
    return np.concatenate([data.epoch_batches(SEED, epoch, rows, BATCH).ravel() for epoch in range(EPOCHS)])


class Original:
    """Their code. code: the checkout.  work: where it writes.  models: role -> folder of a model that it can open."""

    def __init__(self, code: pathlib.Path, work: pathlib.Path, models: dict[str, pathlib.Path]):
        self.work, self.models = work, models
        sys.path.append(str(code))
        stand_in()
        self.train, self.datasets, self.common, self.loss, self.logger = (
            importlib.import_module(f'weak_to_strong.{name}') for name in
            ('train', 'datasets', 'common', 'loss', 'logger'))
        vars(self.train)['TransformerWithHead'] = on_cpu(self.train.TransformerWithHead)
        self.train.datasets.disable_progress_bars()

    def rows(self, part: data.Examples, at=slice(None)):
        """The rows `at` of a part of the data, as its `load_dataset` gives them."""
        texts, truth = part.inputs['text'][at, 0], np.asarray(part.truth)[at]
        return self.datasets.HfDataset.from_dict({'txt': list(texts), 'hard_label': truth.tolist(),
                                                  'soft_label': np.eye(2)[truth].tolist()})

    def tokenised(self, rows, role: str):
        """Rows as a model takes them. Raises Differs where a text's end would be read wrong."""
        found = self.datasets.tokenize_dataset(rows, self.common.get_tokenizer(str(self.models[role])), 1024)
        if any(0 in ids for ids in found['input_ids']):
            raise Differs('a text has the token 0, which their code takes for padding, expected none')
        return found

    def fit(self, name: str, role: str, rows, test, loss, label=None) -> tuple[Trained, Any]:
        """What it trains on `rows`, in that order, and what that says of the rows `label`, if there are some."""
        folder, train, test = self.work / name, self.tokenised(rows, role), self.tokenised(test, role)
        label = None if label is None else self.tokenised(label, role)
        self.logger.configure(name=name, save_path=str(folder))
        answers, labelled = self.train.train_and_save_model(
            self.train.ModelConfig(str(self.models[role]), RATE, BATCH), train, test, label, batch_size=BATCH, lr=RATE,
            epochs=1, minibatch_size_per_device=BATCH, save_path=str(folder), loss_fn=loss, eval_every=10**6,
            lr_schedule='cosine_anneal')
        lines = map(json.loads, (folder / 'log.jsonl').read_text().splitlines())
        losses = [line['loss'] for line in lines if 'loss' in line]
        return Trained(np.array(losses), np.array(answers['soft_label'])), labelled

    def experiment(self, taught, learned, test) -> tuple[dict[str, Trained], np.ndarray]:
        """As `train_weak_to_strong.py`, on rows of the teacher's half, of the student's, and of the test set."""
        first, second = order(len(taught)), order(len(learned))
        xent, found = self.loss.xent_loss(), {}
        found['weak'], weak = self.fit('weak', 'teacher', taught.select(first), test, xent, learned)
        found['ceiling'], _ = self.fit('ceiling', 'student', learned.select(second), test, xent)
        for name, loss in (('naive', xent), ('logconf', self.loss.logconf_loss_fn())):
            found[name], _ = self.fit(name, 'student', weak.select(second), test, loss)
        return found, np.array(weak['soft_label'])


def stand_in() -> None:
    """Puts what their modules import where they look for it; see the module."""
    import transformers
    os.environ.pop('WANDB_PROJECT', None)
    transformers.utils.logging.disable_progress_bar()
    for name in ('wandb', 'torch_optimizer'):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = types.ModuleType(name)
    vars(transformers.modeling_utils).setdefault('load_sharded_checkpoint', None)
    transformers.LlamaForCausalLM.transformer = property(lambda lm: lm.model)


def on_cpu(kind: type) -> type:
    """Their model, which stays where it is and is not saved."""
    class OnCpu(kind):
        def to(self, *args, **kwargs):
            return self

        def save_pretrained(self, *args, **kwargs):
            return None
    return OnCpu


def theirs(code: pathlib.Path, found: plan.Plan, model: pathlib.Path, work: pathlib.Path):
    """The experiment there, on the same texts; their prints go to a file."""
    folders = {role: work / role for role in LAYERS}
    for role, layers in LAYERS.items():
        hf.export(folders[role], hf.load(model, layers=layers), hf.read(model, layers))
    pool, test = found.dataset.pool, found.dataset.test
    halves = data.halves(pool.group, found.config.method.share, SEED)
    with (open(work / 'said.txt', 'w') as file, contextlib.redirect_stdout(file),
          warnings.catch_warnings(action='ignore')):  # the mean of no labels
        original = Original(code, work / 'runs', folders)
        taught, learned = (original.rows(pool, at) for at in halves)
        return original.experiment(taught, learned, original.rows(test))


def compared(here: tuple, there: tuple) -> Iterator[tuple[str, int, float]]:
    """(what, how many, the largest difference) of all numbers. Raises Differs where there is nothing to compare."""
    for name, mine in here[0].items():
        other = there[0][name]
        if len(mine.losses) != len(other.losses):
            raise Differs(f'{name}: {len(other.losses)} steps there, expected the {len(mine.losses)} here')
        if np.ptp(mine.probabilities[:, 0]) < SPREAD:
            raise Differs(f'{name}: says the same of all rows of the test set, expected more than {SPREAD:g} between')
        yield f'{name}: losses', len(mine.losses), largest(mine.losses, other.losses)
        yield f'{name}: test probabilities', len(mine.answers), largest(mine.probabilities, other.probabilities)
    yield 'weak labels', len(here[1]), largest(here[1], there[1])


def largest(mine: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(mine - other).max())


def report(here: tuple, there: tuple, truth: np.ndarray) -> None:
    """Prints the table. Raises Differs, naming the first thing in which they are not the same."""
    failed = []
    print(f'{"what":28}{"compared":>10}{"largest difference":>20}')
    for what, number, difference in compared(here, there):
        print(f'{what:28}{number:10}{difference:20.1e}')
        failed += [] if difference <= APART else [f'{what} differ by {difference:.1e}, expected at most {APART:g}']
    for name, mine in here[0].items():
        differ, answers = (mine.answers != there[0][name].answers).sum(), mine.answers
        print(f'{f"{name}: test answers":28}{len(answers):10}{f"{differ} differ":>20}   '
              f'({np.bincount(answers, minlength=2)[1]} of class 1, {100 * (answers == truth).mean():.1f} % right)')
        failed += [f'{name}: {differ} of {len(answers)} test answers differ, expected none'] if differ else []
    if failed:
        raise Differs(failed[0])


def run(code: pathlib.Path, model: pathlib.Path, folder: pathlib.Path) -> None:
    """Both experiments, in a folder that is gone afterwards."""
    found = plan.prepare(configured(model, folder), lambda *a: None)
    with tempfile.TemporaryDirectory() as work:
        here = ours(found, pathlib.Path(work) / 'ours')
        there = theirs(code, found, model, pathlib.Path(work) / 'theirs')
    report(here, there, np.asarray(found.dataset.test.truth))


def folders(given: argparse.Namespace) -> Iterator[pathlib.Path]:
    """The three folders. Raises UserError for what is none of those that are expected."""
    for name, file, wanted in (('code', 'weak_to_strong/train.py', 'a checkout of openai/weak-to-strong'),
                               ('model', 'config.json', "a model's folder"), ('data', '.', "SST-2's folder")):
        path = pathlib.Path(getattr(given, name)).expanduser().absolute()
        if not getattr(given, name) or not (path / file).exists():
            raise UserError(f'{name.upper()}: {getattr(given, name)!r}, expected {wanted}')
        yield path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    for name in ('code', 'model', 'data'):
        parser.add_argument(f'--{name}', default='')
    try:
        run(*folders(parser.parse_args()))
    except (UserError, Differs) as e:
        print(f'parity-original: {e}', file=sys.stderr)
        return 2 if isinstance(e, UserError) else 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
