"""The code of openai/weak-to-strong, run on rows that it is given.

What of it is replaced, and nothing that decides a number:
- `wandb` and `torch_optimizer`, where they are not installed, by empty modules: neither is used with Adam and without
  WANDB_PROJECT, which is taken away.
- `load_sharded_checkpoint` is put where transformers 4 had it; it is not called.
- `LlamaForCausalLM.transformer`, by which it reads the hidden states, is the name that GPT-2 has for `model`.
- `TransformerWithHead` stays on the CPU where it is sent to "cuda", and is not saved.
"""
import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import sys
import types
import warnings
from typing import Any

import numpy as np

from w2s_jax import data
from w2s_jax.engine import plan
from w2s_jax.models import hf

LAYERS = {'teacher': 4, 'student': 6}
BATCH, EPOCHS, RATE = 16, 2, 2e-4


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


def order(rows: int, seed: int) -> np.ndarray:
    """The places in a half of the rows that ours learns from, step after step."""
    return np.concatenate([data.epoch_batches(seed, epoch, rows, BATCH).ravel() for epoch in range(EPOCHS)])


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

    def experiment(self, taught, learned, test, seed: int) -> tuple[dict[str, Trained], np.ndarray]:
        """As `train_weak_to_strong.py`, on rows of the teacher's half, of the student's, and of the test set, in the
        order of ours."""
        first, second = order(len(taught), seed), order(len(learned), seed)
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


def theirs(code: pathlib.Path, found: plan.Plan, model: pathlib.Path, work: pathlib.Path
           ) -> tuple[dict[str, Trained], np.ndarray]:
    """What it trains of the one seed of an experiment, on the same texts, and its weak labels `[n, 2]`; its prints go
    to a file."""
    folders, [seed] = {role: work / role for role in LAYERS}, found.config.seeds
    for role, layers in LAYERS.items():
        hf.export(folders[role], hf.load(model, layers=layers), hf.read(model, layers))
    pool, test = found.dataset.pool, found.dataset.test
    halves = data.halves(pool.group, found.config.method.share, seed)
    with (open(work / 'said.txt', 'w') as file, contextlib.redirect_stdout(file),
          warnings.catch_warnings(action='ignore')):  # the mean of no labels
        original = Original(code, work / 'runs', folders)
        taught, learned = (original.rows(pool, at) for at in halves)
        return original.experiment(taught, learned, original.rows(test), seed)
