"""A trained language model out of a work directory, as a folder that transformers loads."""
import json
import pathlib

import flax.traverse_util

from w2s_jax.errors import ConfigError, StoreError
from w2s_jax.models import hf, language, lora, weights
from w2s_jax.models.linear import ADAPTERS
from w2s_jax.store import Artifact, digest

HEAD = 'w2s_head.safetensors'


def find(workdir: pathlib.Path, kind: str, loss: str, seed: int) -> Artifact:
    """The finished phase of that kind (teacher, student, ceiling), loss and seed. Raises StoreError."""
    known = []
    for path in sorted((workdir / 'store').glob(f'{kind}-*/DONE')):
        section = json.loads((path.parent / 'config.json').read_text())['section']
        known.append(f'{section["loss"]} seed {section["seed"]}')
        if section['seed'] == seed and section['loss'] == loss:
            return Artifact(path.parent)
    raise StoreError(f'{workdir}: no {kind} with loss {loss!r} and seed {seed}, '
                     f'expected one of: {", ".join(known) or "none"}')


def write(workdir: pathlib.Path, kind: str, loss: str, seed: int, out: pathlib.Path) -> None:
    """Writes the model of a phase to folder `out`: LoRA's factors merged into the kernels, its head beside it.

    The head (`w2s_head.safetensors`: `classes` `[D, K]` or `reward` `[D, 1]`) reads the hidden state at the last real
    token, or the pooling of `hf.read_out`. Raises UserError for what is not there or is no language model.
    """
    artifact = find(workdir, kind, loss, seed)
    section = json.loads((artifact.path / 'config.json').read_text())['section']
    role = 'teacher' if kind == 'teacher' else 'student'
    name = json.loads((workdir / 'config.json').read_text())[f'{role}.model']
    if 'read_out' not in section:
        raise ConfigError(f'{role}.model: {name!r} is no language model, expected one to export')
    folder = language.find(name, f'{role}.model')
    if hf.fingerprint(folder) != section['weights']:
        raise StoreError(f'{folder}: not the weights that {artifact.path} was trained from')
    params = artifact.params()
    backbone = params['backbone'] if 'backbone' in params else hf.load(folder)
    if ADAPTERS in params:
        backbone = lora.merge(backbone, params[ADAPTERS], section['lora']['alpha'] / section['lora']['rank'])
    hf.export(out, backbone, hf.read(folder))
    [(path, kernel)] = flax.traverse_util.flatten_dict(params['head']).items()
    weights.save(out / HEAD, {path[0]: kernel}, metadata={'read_out': section['read_out'], 'phase': digest(section)})
