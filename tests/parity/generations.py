"""Writes and checks generated.npz: what transformers' `generate` makes of tiny models of every causal family, greedily.

COMMAND: make parity (checks, and against `w2s_jax.sampling`), make parity WRITE=1 (rewrites). Needs PyTorch.

For each case: tokens and length of prompts, and of each of the STEPS tokens after one its id, its log-probability, and
how far its logit is above the next. Each prompt was asked alone, so that no padding plays a part.
"""
import argparse
import sys

import jax
import numpy as np
import torch
import transformers
from cases import CASES
from make_goldens import GOLDENS, compare, number, open_model

from w2s_jax import sampling

FILE = GOLDENS / 'generated.npz'
LENGTHS, STEPS, CLOSE = (12, 1, 5, 9), 10, 1e-4


def prompts(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(`[4, 12]` tokens, `[4]` lengths)."""
    length = np.array(LENGTHS, np.int32)
    tokens = np.random.default_rng(number(name)).integers(2, 40, (len(length), length.max())).astype(np.int32)
    return np.where(np.arange(length.max()) < length[:, None], tokens, 0).astype(np.int32), length


def expect(name: str) -> dict[str, np.ndarray]:
    """What transformers generates of each prompt."""
    model, (tokens, length) = open_model(GOLDENS / name, CASES[name].kind), prompts(name)
    ids, logprobs, margins = [], [], []
    for row, n in zip(tokens, length, strict=True):
        asked = torch.tensor(row[None, :n].astype(np.int64))
        made = model.generate(asked, attention_mask=torch.ones_like(asked), do_sample=False, max_new_tokens=STEPS,
                              eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_logits=True)
        logits = torch.cat(made.logits)
        best = logits.topk(2).values
        ids.append(made.sequences[0, n:].numpy())
        logprobs.append(torch.log_softmax(logits, -1).max(-1).values.numpy())
        margins.append((best[:, 0] - best[:, 1]).numpy())
    return {'tokens': tokens, 'length': length, 'ids': np.array(ids, np.int32), 'logprobs': np.array(logprobs),
            'margins': np.array(margins)}


def check_ours(name: str, want: dict[str, np.ndarray]) -> None:
    """Ends the program where ours differ before the first near tie."""
    generate, params = sampling.opened(GOLDENS / name)
    found = generate(params, want['tokens'], want['length'], jax.random.split(jax.random.key(0), len(LENGTHS)),
                     steps=STEPS, pick=sampling.GREEDY)
    sure = np.cumprod(want['margins'] > CLOSE, axis=1).astype(bool)
    if not np.array_equal(np.where(sure, found.tokens, 0), np.where(sure, want['ids'], 0)):
        sys.exit(f'{name}: tokens {np.asarray(found.tokens).tolist()}, expected {want["ids"].tolist()}')
    compare(f'{name}, ours', {'logprobs': np.where(sure, want['logprobs'], 0)},
            {'logprobs': np.where(sure, found.logprobs, 0)}, atol=1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description='Write or check generated.npz.')
    parser.add_argument('--write', action='store_true')
    write = parser.parse_args().write
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    made = {name: expect(name) for name, case in CASES.items() if case.kind == 'AutoModelForCausalLM'}
    if write:
        np.savez_compressed(FILE, **{f'{name}:{k}': v for name, one in made.items() for k, v in one.items()})
    stored = np.load(FILE)
    for name, one in made.items():
        want = {k: stored[f'{name}:{k}'] for k in one}
        compare(name, want, one, atol=1e-4)
        check_ours(name, want)
        print(f'{name}: generated {"written" if write else "equal"}, ours equal')


if __name__ == '__main__':
    main()
