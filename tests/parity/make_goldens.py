"""Writes and checks the golden files: what transformers computes on tiny models of every family.

COMMAND: make parity (checks), make parity WRITE=1 (rewrites). Needs PyTorch, which nothing else here does.

For each case a folder in goldens/ holds a checkpoint (config.json and safetensors, as published ones look) and
expected.npz: tokens and lengths of two rows with padding at the right, the hidden states after every layer at
real tokens, next-token logits, and the gradients of one scalar for some tensors, under their names on disk. In
image_goldens/ it holds images and what every stage or layer makes of them, what is pooled, and such gradients.
real.npz holds the last hidden states of real models, of those that are on this machine.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
import safetensors.torch
import torch
import transformers
from cases import CASES, IMAGES, Case

from w2s_jax.models import hf

HERE = pathlib.Path(__file__).parent
GOLDENS = HERE / 'goldens'
IMAGE_GOLDENS = HERE / 'image_goldens'
REAL = {name: pathlib.Path('~/.cache/w2s_assets/models').expanduser() / name for name in (
    'paraphrase-MiniLM-L3-v2', 'all-MiniLM-L6-v2', 'SmolLM2-135M-Instruct-d6', 'SmolLM2-135M-Instruct')}
TEXTS = ('The capital of France is Paris.', 'A weak model labels, and a strong one learns from its labels.')
ROWS, LENGTHS = 11, (11, 7)


def draw(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Weights far from their first values, so that a wrong one shows: norms around 1 (or 0 for Gemma), no zeros."""
    noise = torch.randn(tensor.shape, generator=generator)
    if tensor.ndim == 1:
        return tensor + .3 * noise
    return noise * (1. if 'emb' in name or 'wte' in name or 'wpe' in name else 1.4 * tensor.shape[-1] ** -.5)


def number(name: str) -> int:
    """The seed of a case."""
    return [*CASES, *IMAGES].index(name)


def write_checkpoint(folder: pathlib.Path, name: str, case: Case) -> None:
    config = transformers.AutoConfig.for_model(**json.loads(json.dumps(case.raw)))
    model = getattr(transformers, case.kind).from_config(config)
    generator = torch.Generator().manual_seed(number(name))
    kept = {k: 1 + torch.rand(v.shape, generator=generator) for k, v in model.named_buffers() if 'running_' in k}
    with torch.no_grad():
        for key, tensor in model.named_parameters():  # tied ones once
            kept[key] = draw(key, tensor, generator).to(getattr(torch, case.dtype)).contiguous()
    tensors = {k: torch.as_tensor(v).contiguous() for k, v in case.rename(kept).items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(case.raw, indent=2) + '\n')
    save_shards(folder, tensors, case.shards)


def save_shards(folder: pathlib.Path, tensors: dict, shards: int) -> None:
    if shards == 1:
        return safetensors.torch.save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    names = sorted(tensors)
    where = {name: f'model-{i % shards + 1:05d}-of-{shards:05d}.safetensors' for i, name in enumerate(names)}
    for file in set(where.values()):
        part = {k: v for k, v in tensors.items() if where[k] == file}
        safetensors.torch.save_file(part, folder / file, metadata={'format': 'pt'})
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'metadata': {}, 'weight_map': where}, indent=1))
    return None


def open_model(folder: pathlib.Path, kind: str):
    model = getattr(transformers, kind).from_pretrained(
        folder, dtype=torch.float32, attn_implementation='eager', local_files_only=True)
    return model.eval()


def loss_weights(shape) -> np.ndarray:
    """Fixed numbers in -1 to 1, so that the loss has no symmetry to hide behind. hf_test.py has the same."""
    return np.sin(1 + 7. * np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


def run(model, tokens: np.ndarray, length: np.ndarray) -> dict[str, np.ndarray]:
    """Hidden states, logits and gradients by the model's own names."""
    real = torch.arange(tokens.shape[1])[None] < torch.tensor(length)[:, None]
    inputs = {'input_ids': torch.tensor(tokens), 'attention_mask': real.long()}
    states = model.base_model(**inputs, output_hidden_states=True)
    found = {'hidden': states.last_hidden_state, 'layers': torch.stack(states.hidden_states[:-1])}
    if model.can_generate():
        found['logits'] = model(**inputs).logits
    loss = sum((torch.tensor(loss_weights(found[k].shape)) * found[k])[real].sum() for k in found if k != 'layers')
    loss.backward()
    found = {k: torch.where(real[..., None], v, 0).detach().numpy() for k, v in found.items()}
    chosen = {k: p.grad.numpy() for k, p in model.named_parameters() if p.grad is not None and wanted(k)}
    return found | {f'grad:{k}': v for k, v in chosen.items()}


def wanted(name: str) -> bool:
    """The gradients that are kept: those of embeddings, of the second layer and of what follows the layers."""
    return '.0.' not in name and '.2.' not in name and '.3.' not in name


def expect(folder: pathlib.Path, case: Case, name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number(name))
    tokens, length = rng.integers(2, 40, (len(LENGTHS), ROWS)), np.array(LENGTHS)
    tokens[1, LENGTHS[1]:] = case.raw.get('pad_token_id', 0)
    found = run(open_model(folder, case.kind), tokens, length)
    grads = {k.removeprefix('grad:'): v for k, v in found.items() if k.startswith('grad:')}
    kept = {k: v for k, v in found.items() if not k.startswith('grad:')}
    on_disk = {f'grad:{k}': v for k, v in case.rename(grads).items() if k not in case.rename({})}
    return {'tokens': tokens.astype(np.int32), 'length': length.astype(np.int32), **kept, **on_disk}


def run_images(model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Hidden states of images `[B, H, W, 3]` as sequences `[B, L, D]`, layer by layer, pooled ones, gradients."""
    more = {'interpolate_pos_encoding': True} if model.config.model_type == 'vit' else {}
    states = model.base_model(torch.tensor(images).permute(0, 3, 1, 2), output_hidden_states=True, **more)

    def sequence(x):
        return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
    layers = states.hidden_states if model.config.model_type == 'resnet' else states.hidden_states[:-1]
    found = {'hidden': sequence(states.last_hidden_state)} | {f'layer{i}': sequence(x) for i, x in enumerate(layers)}
    if states.pooler_output is not None:
        found['pooled'] = states.pooler_output.flatten(1)
    sum((torch.tensor(loss_weights(found[k].shape)) * found[k]).sum() for k in ('hidden', 'pooled') if k in found
        ).backward()
    grads = {f'grad:{k}': p.grad.numpy() for k, p in model.named_parameters() if p.grad is not None}
    return {k: v.detach().numpy() for k, v in found.items()} | grads


def expect_images(folder: pathlib.Path, case: Case, name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number(name))
    images = rng.normal(size=(2, *case.pixels, 3)).astype(np.float32)
    found = run_images(open_model(folder, case.kind), images)
    grads = {k.removeprefix('grad:'): v for k, v in found.items() if k.startswith('grad:')}
    kept = {k: v for k, v in found.items() if not k.startswith('grad:')}
    on_disk = {f'grad:{k}': v for k, v in case.rename(grads).items() if k not in case.rename({})}
    return {'images': images, **kept, **on_disk}


def check_image_export(folder: pathlib.Path, case: Case, wanted: dict[str, np.ndarray]) -> None:
    """Our parameters, exported, give transformers the same hidden states."""
    pooler = 'pooled' in wanted and case.raw['model_type'] == 'vit'
    with tempfile.TemporaryDirectory() as out:
        hf.export(pathlib.Path(out), hf.load(folder, pooler=pooler), hf.read(folder, pooler=pooler))
        found = run_images(open_model(pathlib.Path(out), 'AutoModel'), wanted['images'])
    compare(f'{folder.name} exported', {k: wanted[k] for k in wanted if not k.startswith(('grad:', 'images'))}, found)


def expect_real(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The first 32 numbers of the last hidden state of every token of TEXTS."""
    encoded = [transformers.AutoTokenizer.from_pretrained(folder)(text)['input_ids'] for text in TEXTS]
    length = np.array([len(x) for x in encoded], np.int32)
    tokens = np.zeros((len(TEXTS), length.max()), np.int32)
    for row, ids in zip(tokens, encoded, strict=True):
        row[:len(ids)] = ids
    real = np.arange(tokens.shape[1])[None] < length[:, None]
    with torch.no_grad():
        hidden = open_model(folder, 'AutoModel')(torch.tensor(tokens), attention_mask=torch.tensor(real).long())
    return {'tokens': tokens, 'length': length,
            'hidden': np.where(real[..., None], hidden.last_hidden_state.numpy(), 0)[..., :32]}


def check_export(folder: pathlib.Path, case: Case, wanted: dict[str, np.ndarray]) -> None:
    """Our parameters, exported, give transformers the same hidden states and logits."""
    checkpoint = hf.read(folder)
    with tempfile.TemporaryDirectory() as out:
        head = hf.load_head(folder) if 'logits' in wanted else None
        hf.export(pathlib.Path(out), hf.load(folder), checkpoint, head=head)
        kind = case.kind if 'logits' in wanted else 'AutoModel'
        found = run(open_model(pathlib.Path(out), kind), wanted['tokens'], wanted['length'])
    compare(f'{folder.name} exported', {k: wanted[k] for k in ('hidden', 'layers', 'logits') if k in wanted}, found)


def compare(what: str, wanted, found, atol: float = 1e-5) -> None:
    """Ends the program where an array is missing or differs."""
    for key in wanted:
        worst = float(np.abs(wanted[key] - found[key]).max()) if key in found else np.inf
        if not worst <= atol * max(1, np.abs(wanted[key]).max()):
            sys.exit(f'{what}: {key} differs by {worst:.2e}')


def main() -> None:
    parser = argparse.ArgumentParser(description='Write or check golden files.')
    parser.add_argument('--write', action='store_true')
    write = parser.parse_args().write
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, case in (CASES | IMAGES).items():
        goldens, made, check = (GOLDENS, expect, check_export) if name in CASES else (
            IMAGE_GOLDENS, expect_images, check_image_export)
        with tempfile.TemporaryDirectory() as fresh:
            folder = goldens / name if write else pathlib.Path(fresh) / name
            write_checkpoint(folder, name, case)
            found = made(folder, case, name)
            if write:
                np.savez_compressed(folder / 'expected.npz', **found)
            compare(name, np.load(goldens / name / 'expected.npz'), found)
            check(folder, case, found)
        print(f'{name}: {"written" if write else "equal"}, export equal')
    real = {f'{name}:{k}': v for name, path in REAL.items() if path.exists() for k, v in expect_real(path).items()}
    if write:
        np.savez_compressed(GOLDENS / 'real.npz', **real)
    stored = np.load(GOLDENS / 'real.npz')
    compare('real models', {k: stored[k] for k in real}, real, atol=1e-4)
    print(f'real models: {len(real) // 3} equal')


if __name__ == '__main__':
    main()
