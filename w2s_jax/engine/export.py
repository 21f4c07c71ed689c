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
        content = json.loads(path.read_text())
        seeds = json.loads((path.parent / 'evaluation.json').read_text())['config']['seeds']
        found += [((role, role), seeds, content[key].get('ids', [])) for role, key in (('teacher', 'weak'),
                                                                                     ('ceiling', 'ceiling'))]
        found += [(('student', s['label']), seeds, s.get('ids', [])) for s in content['students']]
    return found


def _section(artifact: Artifact) -> dict:
    return json.loads((artifact.path / 'config.json').read_text())['section']


def source(workdir: pathlib.Path, role: str, section: dict) -> pathlib.Path:
    """The folder that a phase's model came from: of those that the experiment, or the cells of the grid, name, the one
    with its weights. Raises ConfigError, StoreError."""
    part, configs = 'teacher' if role == 'teacher' else 'student', [workdir / 'config.json']
    cells = sorted(workdir.glob('cells/*/evaluation.json'))
    found = [json.loads(p.read_text()) for p in configs if p.exists()] + [
        json.loads(p.read_text())['config'] for p in cells]
    names = dict.fromkeys(c[f'{part}.model'] for c in found)
    if 'read_out' not in section['model']:
        raise ConfigError(f'{part}.model: {section["model"]["model"]!r} is no language model, expected one to export')
    folders = [language.find(name, f'{part}.model') for name in names if '/' in name or pathlib.Path(name).is_dir()]
    same = [folder for folder in folders if hf.fingerprint(folder) == section['model']['weights']]
    if not same:
        raise StoreError(f'{", ".join(map(str, folders))}: not the weights that {section["model"]["model"]!r} was '
                         'trained from')
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
        factors = section['model']['lora']
        backbone = lora.merge(backbone, params[ADAPTERS], factors['alpha'] / factors['rank'])
    hf.export(out, backbone, hf.read(folder))
    [(path, kernel)] = flax.traverse_util.flatten_dict(params['head']).items()
    trees.save(out / HEAD, {path[0]: kernel},
               metadata={'read_out': section['model']['read_out'], 'phase': digest(section)})
