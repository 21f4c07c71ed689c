"""The plain PyTorch loop that `experiments.benchmark` compares with: AutoModel, a linear head, torch.optim.AdamW.

On a GPU where there is one; bfloat16 is that of autocast: float32 parameters, products in bfloat16, as ours. Imports
nothing of ours that takes time, so that its process costs what it would cost anybody. Needs torch, which the project
itself does not: `make parity` makes an environment that has it.
"""
import math
from typing import Any

import numpy as np
import torch
import transformers

from experiments.benchmark.worker import status

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
transformers.logging.disable_progress_bar()
DROPOUTS = ('attention_dropout', 'attn_pdrop', 'attention_probs_dropout_prob', 'hidden_dropout_prob')


def load(folder: str, num_classes: int, head=None):
    """A backbone in training mode without dropout, and its head: zero, or `[D, K]` as given."""
    backbone = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation='sdpa').train()
    for module in backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name in DROPOUTS:
        if hasattr(backbone.config, name):
            setattr(backbone.config, name, 0.0)
    linear = torch.nn.Linear(backbone.config.hidden_size, num_classes, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.zeros(()) if head is None else torch.tensor(head).T)
    return torch.nn.ModuleDict({'backbone': backbone, 'head': linear})


def logits(model, texts, pool: str):
    """`[B, K]`. texts: tokens and mask, each `[B, L]`.  pool: 'mean', 'first' or 'last'."""
    tokens, mask = texts
    hidden = model['backbone'](input_ids=tokens, attention_mask=mask).last_hidden_state
    if pool == 'mean':
        return model['head']((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    last = mask.sum(1) - 1
    return model['head'](hidden[:, 0] if pool == 'first' else hidden[torch.arange(len(last), device=last.device), last])


def optimizers(model, rate: float, steps: int, warmup: float, fused: bool = False):
    """AdamW without weight decay, and linear warm-up, then cosine, as in `w2s_jax.train.optimizers`."""
    def factor(step):
        progress = step / steps
        ramp = progress / warmup if progress < warmup else 1.0
        return ramp * 0.5 * (1 + math.cos(math.pi * progress))
    adam = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0, fused=fused or None)
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, factor)


def train_step(model, optimizer, schedule, texts, targets, pool: str):
    """One step; the loss, on the device. targets: `[B, K]` distributions."""
    loss = torch.nn.functional.cross_entropy(logits(model, texts, pool), targets)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    return loss.detach()


def prepared(spec: dict, arrays):
    """(model, tokens, mask) on the device, and PyTorch set up as `spec` says."""
    torch.set_num_threads(spec['threads'])
    torch.set_float32_matmul_precision('high')  # TF32 where there is it, as JAX has it
    tokens, length = (torch.tensor(arrays[k].astype(np.int64)) for k in ('tokens', 'length'))
    mask = (torch.arange(tokens.shape[1])[None] < length[:, None]).long()
    return load(spec['model'], 2, arrays['head']).to(DEVICE), tokens.to(DEVICE), mask.to(DEVICE)


def computed(function, spec: dict):
    """`function` in the precision of `spec` (parameters stay float32), and compiled where it says so."""
    bfloat16 = spec['dtype'] == 'bfloat16'

    def run(*args):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bfloat16):
            return function(*args)
    return torch.compile(run) if spec['compile'] else run


def stepper(spec: dict, arrays):
    """step number -> its loss, still to be read; the counterpart of `jax_loop.stepper`."""
    model, tokens, mask = prepared(spec, arrays)
    targets = torch.nn.functional.one_hot(torch.tensor(arrays['truth'].astype(np.int64)), 2).float().to(DEVICE)
    optimizer, schedule = optimizers(model, spec['rate'], spec['steps'], spec['warmup'], spec['fused'])

    def loss_of(at):
        found = logits(model, (tokens[at], mask[at]), spec['pool'])
        return torch.nn.functional.cross_entropy(found.float(), targets[at]) / spec['accumulate']
    loss_of = computed(loss_of, spec)

    def step(number: int):
        at = torch.tensor(arrays['order'][number % len(arrays['order'])]).to(DEVICE)
        optimizer.zero_grad()
        total = torch.zeros((), device=DEVICE)
        for part in at.reshape(spec['accumulate'], -1):
            loss = loss_of(part)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return total
    return step


def labeller(spec: dict, arrays):
    """batch number -> probabilities `[B, 2]`; the counterpart of `jax_loop.labeller`."""
    model, tokens, mask = prepared(spec, arrays)
    model.eval()
    predict = computed(lambda at: torch.softmax(logits(model, (tokens[at], mask[at]), spec['pool']).float(), -1), spec)

    @torch.no_grad()
    def step(number: int):
        return predict(torch.tensor(arrays['order'][number % len(arrays['order'])]).to(DEVICE))
    return step


def generator(spec: dict, arrays):
    """number -> the texts' ids added up; the counterpart of `sampling.generator`, greedy."""
    torch.set_num_threads(spec['threads'])
    torch.set_float32_matmul_precision('high')
    found = transformers.AutoModelForCausalLM.from_pretrained(
        spec['model'], dtype=getattr(torch, spec['dtype']), attn_implementation='sdpa')
    model: Any = found.eval()
    model = model.to(DEVICE)
    tokens = torch.tensor(arrays['tokens'].astype(np.int64)).to(DEVICE)

    def step(number: int):
        made = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, eos_token_id=None,
                              pad_token_id=0, max_new_tokens=spec['new'])
        return made[:, tokens.shape[1]:].sum()
    return step


def memory_peak() -> dict:
    """The counterpart of `machine.memory_peak`."""
    if DEVICE == 'cuda':
        return {'peak_bytes': torch.cuda.max_memory_allocated(), 'peak_of': 'device'}
    return {'peak_bytes': status('VmHWM'), 'peak_of': 'host'}


def experiment(spec: dict) -> dict:
    """Teacher, its labels, student and ceiling, as `experiments.run` does them; test accuracies.

    spec: teacher and student (folders), pools, max_length, rate, batch, epochs, warmup, threads, and rows: for each
    of a, b and test a list of [text, class].
    """
    torch.set_num_threads(spec['threads'])
    truth = {k: np.eye(2, dtype=np.float32)[[label for _, label in rows]] for k, rows in spec['rows'].items()}
    accuracy = {}
    weak = _Classifier(spec, 'teacher')
    accuracy['weak'] = weak.fit('a', truth['a']).accuracy(truth['test'])
    labels = weak.predict('b')
    accuracy['student'] = _Classifier(spec, 'student').fit('b', labels).accuracy(truth['test'])
    accuracy['ceiling'] = _Classifier(spec, 'student').fit('b', truth['b']).accuracy(truth['test'])
    return accuracy


class _Classifier:
    """A model with its tokens of all rows."""

    def __init__(self, spec: dict, role: str):
        self.spec, self.pool = spec, spec['pools'][role]
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec[role])
        self.pad = tokenizer.pad_token_id or 0
        self.tokens = {k: tokenizer([text for text, _ in rows], truncation=True,
                                    max_length=spec['max_length'])['input_ids'] for k, rows in spec['rows'].items()}
        self.model = load(spec[role], 2)

    def batch(self, part: str, at):
        """Tokens and mask `[B, L]`, padded to the longest of the batch."""
        rows = [self.tokens[part][i] for i in at]
        size = max(map(len, rows))
        tokens = torch.tensor([row + [self.pad] * (size - len(row)) for row in rows])
        return tokens, torch.tensor([[1] * len(row) + [0] * (size - len(row)) for row in rows])

    def fit(self, part: str, targets: np.ndarray) -> '_Classifier':
        spec, rng, n = self.spec, np.random.default_rng(0), len(targets)
        per_epoch = n // spec['batch']
        optimizer, schedule = optimizers(self.model, spec['rate'], per_epoch * spec['epochs'], spec['warmup'])
        for _ in range(spec['epochs']):
            for at in rng.permutation(n)[:per_epoch * spec['batch']].reshape(per_epoch, -1):
                train_step(self.model, optimizer, schedule, self.batch(part, at), torch.tensor(targets[at]), self.pool)
        return self

    @torch.no_grad()
    def predict(self, part: str) -> np.ndarray:
        """Probabilities `[n, 2]`, shortest texts first so that little is padding."""
        tokens = self.tokens[part]
        order = np.argsort([len(t) for t in tokens], kind='stable')
        parts = [torch.softmax(logits(self.model, self.batch(part, order[i:i + 64]), self.pool), -1)
                 for i in range(0, len(order), 64)]
        return torch.cat(parts).numpy()[np.argsort(order)]

    def accuracy(self, truth: np.ndarray) -> float:
        return float((self.predict('test').argmax(-1) == truth.argmax(-1)).mean())
