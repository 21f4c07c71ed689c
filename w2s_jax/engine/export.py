"""A trained language model out of a work directory, as a folder that transformers loads."""
import json
import pathlib

import flax.traverse_util

from w2s_jax.errors import ConfigError, StoreError
from w2s_jax.models import hf, language, lora
from w2s_jax.models.linear import ADAPTERS
from w2s_jax.store import trees
from w2s_jax.store.artifacts import Artifact
from w2s_jax.text import digest

HEAD = 'w2s_head.safetensors'


def find(workdir: pathlib.Path, kind: str, loss: str, seed: int, phase: str = '') -> Artifact:
    """The finished phase of that kind (teacher, student, ceiling), loss and seed, or of that id.

    Raises StoreError where there is none, or where only an id tells which one is meant.
    """
    known, found = [], []
    for path in sorted((workdir / 'store').glob(f'{kind}-*/DONE')):
        section, identity = _section(Artifact(path.parent)), path.parent.name.removeprefix(f'{kind}-')
        known.append(f'{section["loss"]} seed {section["seed"]}')
        if identity == phase if phase else (section['seed'], section['loss']) == (seed, loss):
            found.append(Artifact(path.parent))
    wanted = f'{kind} {phase}' if phase else f'{kind} with loss {loss!r} and seed {seed}'
    if not found:
        raise StoreError(f'{workdir}: no {wanted}, expected one of: {", ".join(dict.fromkeys(known)) or "none"}')
    if len(found) > 1:
        ids = ', '.join(f'{a.path.name.removeprefix(f"{kind}-")} ({_section(a)["model"]})' for a in found)
        raise StoreError(f'{workdir}: {len(found)} times {wanted}, expected --phase, one of: {ids}')
    return found[0]


def _section(artifact: Artifact) -> dict:
    return json.loads((artifact.path / 'config.json').read_text())['section']


def source(workdir: pathlib.Path, kind: str, section: dict) -> pathlib.Path:
    """The folder that a phase's model came from: of those that the experiment, or the cells of the grid, name, the one
    with its weights. Raises ConfigError, StoreError."""
    role, configs = 'teacher' if kind == 'teacher' else 'student', [workdir / 'config.json']
    cells = sorted(workdir.glob('cells/*/evaluation.json'))
    found = [json.loads(p.read_text()) for p in configs if p.exists()] + [
        json.loads(p.read_text())['config'] for p in cells]
    names = dict.fromkeys(c[f'{role}.model'] for c in found)
    if 'read_out' not in section:
        raise ConfigError(f'{role}.model: {section["model"]!r} is no language model, expected one to export')
    folders = [language.find(name, f'{role}.model') for name in names if '/' in name or pathlib.Path(name).is_dir()]
    same = [folder for folder in folders if hf.fingerprint(folder) == section['weights']]
    if not same:
        raise StoreError(f'{", ".join(map(str, folders))}: not the weights that {section["model"]!r} was trained from')
    return same[0]


def write(workdir: pathlib.Path, kind: str, loss: str, seed: int, out: pathlib.Path, phase: str = '') -> None:
    """Writes the model of a phase to folder `out`: LoRA's factors merged into the kernels, its head beside it.

    The head (`w2s_head.safetensors`: `classes` `[D, K]` or `reward` `[D, 1]`) reads the hidden state at the last real
    token, or the pooling of `hf.read_out`. Raises UserError for what is not there or is no language model.
    """
    artifact = find(workdir, kind, loss, seed, phase)
    section = _section(artifact)
    folder = source(workdir, kind, section)
    params = artifact.params()
    backbone = params['backbone'] if 'backbone' in params else hf.load(folder)
    if ADAPTERS in params:
        backbone = lora.merge(backbone, params[ADAPTERS], section['lora']['alpha'] / section['lora']['rank'])
    hf.export(out, backbone, hf.read(folder))
    [(path, kernel)] = flax.traverse_util.flatten_dict(params['head']).items()
    trees.save(out / HEAD, {path[0]: kernel}, metadata={'read_out': section['read_out'], 'phase': digest(section)})
