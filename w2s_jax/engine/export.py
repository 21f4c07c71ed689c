"""A trained language model out of a work directory, as a folder that transformers loads."""
import contextlib
import os
import pathlib
import shutil
from collections.abc import Mapping

import flax.traverse_util
import numpy as np
import safetensors

from w2s_jax import paths
from w2s_jax.errors import ConfigError, StoreError, WeightsError
from w2s_jax.models import hf, language, lora
from w2s_jax.models.linear import ADAPTERS
from w2s_jax.report import reading
from w2s_jax.runtime import process
from w2s_jax.store import trees
from w2s_jax.store.artifacts import Artifact
from w2s_jax.text import digest

HEAD = 'w2s_head.safetensors'


def find(workdir: pathlib.Path, role: str, label: str, seed: int, phase: str = '') -> Artifact:
    """The finished phase of a role (teacher, student, ceiling), of students the label, and a seed; or that of an id.

    Raises StoreError if there is none, or if only an id tells which one is meant.
    """
    known, found = [], {}
    for who, seeds, ids in _trained(workdir):
        for one, identity in zip(seeds, ids, strict=False):
            name = f'{who[1]} seed {one}' if role == 'student' else f'seed {one}'
            if who[0] == role:
                known.append(name)
            asked = who[0] == role and one == seed and (role != 'student' or who[1] == label)
            if identity == phase or (not phase and asked):
                found[identity] = Artifact(workdir / 'store' / f'fit-{identity}')
    wanted = f'{role} {phase}' if phase else f'{role}{f" {label!r}" if role == "student" else ""} with seed {seed}'
    if not found:
        raise StoreError(f'{workdir}: no {wanted}, expected one of: {", ".join(dict.fromkeys(known)) or "none"}')
    if len(found) > 1:
        several = ', '.join(f'{i} ({_section(a)["model"]["model"]})' for i, a in found.items())
        raise StoreError(f'{workdir}: {len(found)} times {wanted}, expected --phase, one of: {several}')
    return next(iter(found.values()))


def _trained(workdir: pathlib.Path) -> list[tuple[tuple[str, str], list[int], list[str]]]:
    """((role, label), seeds, ids of phases) of all models that results.json, or those of a grid's cells, name."""
    found = []
    for path in [workdir / 'results.json', *sorted(workdir.glob('cells/*/results.json'))]:
        if not path.exists():
            continue
        with _whole(path):
            content = reading.read(path)
            seeds = list(reading.read(path.parent / 'evaluation.json')['config']['seeds'])
            found += [((role, role), seeds, list(content[key].get('ids') or []))
                      for role, key in (('teacher', 'weak'), ('ceiling', 'ceiling'))]
            found += [(('student', str(s['label'])), seeds, list(s.get('ids') or [])) for s in content['students']]
    return found


@contextlib.contextmanager
def _whole(path: pathlib.Path):
    """A block that reads parts of a JSON file. Raises StoreError for one that has not what it should."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as e:
        raise StoreError(f'{path}: damaged ({type(e).__name__}: {" ".join(str(e).split())[:100]}), expected what '
                         'experiments.run wrote') from None


def _section(artifact: Artifact) -> dict:
    path = artifact.path / 'config.json'
    if not path.exists():
        raise StoreError(f'{artifact.path}: not there, expected the phase that results.json names')
    with _whole(path):
        return dict(reading.read(path)['section'])


def source(workdir: pathlib.Path, role: str, section: dict) -> pathlib.Path:
    """The folder that a phase's model came from: of those that the experiment, or the cells of the grid, name, the one
    with its weights. Raises ConfigError, StoreError."""
    part, names = 'teacher' if role == 'teacher' else 'student', dict[str, None]()
    for path in [workdir / 'config.json', *sorted(workdir.glob('cells/*/evaluation.json'))]:
        if path.exists():
            with _whole(path):
                content = reading.read(path)
                names[str((content if path.parent == workdir else content['config'])[f'{part}.model'])] = None
    if 'read_out' not in section['model'] and not predicts_tokens(section):
        raise ConfigError(f'{part}.model: {section["model"]["model"]!r} is no language model, expected one to export')
    folders = [language.find(name, f'{part}.model') for name in names if '/' in name or paths.is_folder(name)]
    same = [folder for folder in folders if hf.fingerprint(folder) == section['model']['weights']]
    if not same:
        raise StoreError(f'{", ".join(map(str, folders))}: not the weights that {section["model"]["model"]!r} was '
                         'trained from')
    return same[0]


def write(workdir: pathlib.Path, kind: str, loss: str, seed: int, out: pathlib.Path, phase: str = '',
          overwrite: bool = False) -> None:
    """Writes the model of a phase to folder `out`: LoRA's factors merged into the kernels, its head beside it.

    The head (`w2s_head.safetensors`: `classes` `[D, K]` or `reward` `[D, 1]`, and `bias` `[K]` or `[1]`) reads the
    hidden states as `read_out` in its metadata says; of a probe, what its features were scaled by is folded in. One
    that was tuned as a language model has its next-token head where transformers expects it, and none beside it.
    Raises UserError for what is not there or is no language model, and for a folder with something in it, unless that
    is to be overwritten.
    """
    process.check_devices()
    out = paths.folder(out, '--out')
    artifact = find(workdir, kind, loss, seed, phase)
    section = _section(artifact)
    _check_backbone(artifact)
    with _whole(artifact.path / 'config.json'):
        folder = source(workdir, kind, section)
    with aside(out, folder, overwrite) as part:
        _write(part, artifact, section, folder)


def predicts_tokens(section: dict) -> bool:
    """Whether a phase trained a language model with its next-token head."""
    return section['model'].get('head') == 'next token'


def _check_backbone(artifact: Artifact) -> None:
    """Raises ConfigError for a probe on a backbone that another phase trained: its head fits no other."""
    with _whole(artifact.path / 'config.json'):
        path = artifact.path.parent / f'features-{reading.read(artifact.path / "config.json")["needs"]["inputs"]}'
        needs = reading.read(path / 'config.json')['needs'] if (path / 'config.json').exists() else {}
    if 'backbone' in needs:
        raise ConfigError(f'{artifact.path.name}: a probe on the backbone that fit-{needs["backbone"]} trained cannot '
                          'be exported, expected a model with a backbone of its own')


def _write(out: pathlib.Path, artifact: Artifact, section: dict, folder: pathlib.Path) -> None:
    params = artifact.params()
    layers = section['model'].get('layers', 0)
    backbone = params['backbone'] if 'backbone' in params else hf.load(folder, layers=layers)
    if ADAPTERS in params:
        factors = section['model']['lora']
        backbone = lora.merge(backbone, params[ADAPTERS], factors['alpha'] / factors['rank'])
    if predicts_tokens(section):
        hf.export(out, backbone, hf.read(folder, layers), params.get('head', {}).get('table'))
        return
    hf.export(out, backbone, hf.read(folder, layers))
    trees.save(out / HEAD, head_of(params, artifact.arrays),
               metadata={'read_out': section['model']['read_out'], 'phase': digest(section)})


@contextlib.contextmanager
def aside(out: pathlib.Path, source: pathlib.Path, overwrite: bool = False):
    """A folder to write files to, which become those of `out` at the end of the block, or not at all.

    Raises WeightsError for the folder of the model itself, StoreError for one with something in it, unless files are
    to be overwritten, and for what cannot be written.
    """
    if out.resolve() == source.resolve():
        raise WeightsError(f'{out}: export would overwrite the checkpoint itself')
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise StoreError(f'{out}: has something in it, expected an empty folder, or --overwrite')
    part = (out if out.is_dir() else out.parent) / f'.part-{out.name}-{os.getpid()}'
    try:
        part.mkdir(parents=True)
        yield part
        if out.is_dir():
            for file in sorted(p for p in part.rglob('*') if p.is_file()):
                (out / file.relative_to(part)).parent.mkdir(exist_ok=True)
                file.replace(out / file.relative_to(part))
        else:
            part.rename(out)
    except (OSError, safetensors.SafetensorError) as e:
        raise StoreError(f'{out}: cannot be written ({paths.reason(e)}), expected a folder with space for a model'
                         ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def head_of(params: dict, arrays: Mapping) -> dict[str, np.ndarray]:
    """A head for unscaled hidden states: `classes` or `reward` `[D, K]`, and `bias` `[K]`, float32.

    A probe learned on features (x - mean) factor: x W + b with W = factor W', b = b' - (mean factor) W'.
    """
    flat = {path[0]: path[-1] for path in flax.traverse_util.flatten_dict(params['head'])}
    if len(flat) != 1:
        raise ConfigError(f'the head has parts {", ".join(sorted(flat))}, expected one')
    [name] = flat
    dense = params['head'][name]['Dense_0']
    kernel = np.asarray(dense['kernel'], np.float64)
    bias = np.asarray(dense.get('bias', np.zeros(kernel.shape[1])), np.float64)
    if 'features.factor' in arrays:
        kernel = arrays['features.factor'][:, None] * kernel
        bias = bias - arrays['features.mean'] @ kernel
    return {name: kernel.astype(np.float32), 'bias': bias.astype(np.float32)}


def snippet(out: pathlib.Path) -> str:
    """Python that gives an exported model's logits with transformers and PyTorch alone; a language model's texts."""
    if not (out / HEAD).exists():
        return f'''\
import torch, transformers

folder = {str(out)!r}
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()

def continued(text, tokens=50):
    with torch.no_grad():
        found = model.generate(**tokenizer(text, return_tensors='pt'), max_new_tokens=tokens)
    return tokenizer.decode(found[0])
'''
    head, metadata = trees.load(out / HEAD), trees.metadata(out / HEAD)
    name = next(k for k in head if k != 'bias')
    read = {'last': 'hidden[torch.arange(len(hidden)), mask.sum(1) - 1]', 'first': 'hidden[:, 0]',
            'mean': '(hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)'}[metadata['read_out']]
    return f'''\
import torch, transformers
from safetensors.torch import load_file

folder = {str(out)!r}
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side='right')
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
model, head = transformers.AutoModel.from_pretrained(folder).eval(), load_file(folder + '/{HEAD}')

def logits(texts):
    batch = tokenizer(texts, return_tensors='pt', padding=True)
    with torch.no_grad():
        hidden, mask = model(**batch).last_hidden_state, batch['attention_mask']
        return {read} @ head['{name}'] + head['bias']
'''
