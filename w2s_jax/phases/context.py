"""What phases of all kinds have in common: where they run, their model, their inputs."""
import dataclasses
import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from w2s_jax import data, objectives
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.models.modes import COMPILATION, Model
from w2s_jax.runtime import multihost, sharding
from w2s_jax.store.artifacts import Artifact
from w2s_jax.train import memory
from w2s_jax.train.step import Static
from w2s_jax.train.trainer import Trainer, choose_how


@dataclasses.dataclass(frozen=True)
class Context:
    """What a phase runs in; none of it changes what the phase means.

    models: by role.  execution: the config's `train` section.  log: (label, step, steps, metrics).  render: a row of a
    test set as HTML (data.Dataset).  say: a line for people.
    """
    models: dict[str, Model]
    mesh: jax.sharding.Mesh
    execution: Any
    log: Callable
    render: Callable | None = None
    say: Callable[[str], None] = lambda line: None


def make_context(config, models: dict[str, Model], log: Callable, render: Callable | None = None,
                 say: Callable[[str], None] = lambda line: None) -> Context:
    """The context that a config describes, on the devices there are."""
    return Context(models, sharding.make_mesh(**config.mesh), config.train, log, render, say)


def model_of(section: dict, models: dict[str, Model]) -> Model:
    """The one of `models` with exactly the identity that a section names; of a probe that a full model was read for,
    the backbone's; one that predicts its own inputs. Raises ConfigError if there is none."""
    known = [*models.values(), *(m.backbone() for m in models.values() if m.backbone)]
    more = (other for m in models.values() for other in m.others())
    found = next((m for m in itertools.chain(known, more) if m.identity == section['model']), None)
    if found is None:
        raise ConfigError(f'model {section["model"].get("model")!r}: not among {", ".join(m.name for m in known)}')
    return found


def keep_part(path: pathlib.Path, save: Callable) -> None:
    """A part of what a phase computes, so that a killed run goes on: whole or not at all, by one host. save: (open
    file) -> None."""
    if multihost.is_coordinator():
        with open(path.with_suffix('.part'), 'wb') as file:
            save(file)
        path.with_suffix('.part').rename(path)


def arrays(need) -> dict:
    """The columns of a need: of an artifact, or of inputs as they are."""
    return need.arrays if isinstance(need, Artifact) else need


def labels(need) -> np.ndarray:
    """Labels `[n, K]`, or classes `[n]`: of an artifact, or as they are."""
    return need.arrays['labels'] if isinstance(need, Artifact) else need


def rows(needs: dict) -> np.ndarray:
    """`[n]`: the rows that a phase learns from; all of its inputs if nothing says which."""
    if 'rows' not in needs:
        return np.arange(len(next(iter(arrays(needs['inputs']).values()))))
    return needs['rows'].arrays['rows'] if isinstance(needs['rows'], Artifact) else needs['rows']


def inputs(needs: dict, *names: str) -> list[dict]:
    """What a model takes of each of `names`; cached features less the pool's mean, over its deviation."""
    found, scale = [arrays(needs[name]) for name in names], scaling(needs, names[0])
    if scale is None:
        return found
    return [{'features': ((x['features'] - scale['mean']) * scale['factor']).astype(np.float32)} for x in found]


def scaling(needs: dict, name: str = 'inputs') -> dict[str, np.ndarray] | None:
    """`mean` and `factor` `[D]` that cached features are scaled with: x to (x - mean) factor; None where they are
    none."""
    if not isinstance(needs[name], Artifact) or 'features' not in needs[name].arrays:
        return None
    pool = arrays(needs.get('scale', needs[name]))['features']
    over = tuple(range(pool.ndim - 1))
    deviation = np.std(pool, axis=over, dtype=np.float64)
    return {'mean': np.asarray(np.mean(pool, axis=over, dtype=np.float64)), 'factor': 1 / np.maximum(deviation, 1e-6)}


def tests(needs: dict) -> list[str]:
    """The names of the test sets that a phase predicts, as its needs spell them."""
    return [name for name in needs if name.startswith('predict/')]


def shapes(section: dict, context: Context, *inputs: dict) -> tuple[int, ...]:
    """The lengths that texts are padded to; () for inputs that are no texts."""
    lengths = [x for x in map(data.longest, inputs) if x is not None]
    model = model_of(section, context.models)
    worth = COMPILATION / (6 * (model.read or model.work or model.num_params))
    return data.choose_shapes(np.concatenate(lengths), context.execution.shapes, worth=worth) if lengths else ()


def check_vocabulary(model: Model, *inputs: dict) -> None:
    """Raises DataError if token ids are beyond the model's embedding: those of a store may have been made for another
    model that has the same tokenizer."""
    for x in inputs:
        if model.vocab_size and 'tokens' in x and (largest := int(np.max(x['tokens']))) >= model.vocab_size:
            raise DataError(f"{model.name}: a text has token id {largest}, but the model's embedding has "
                            f'{model.vocab_size} rows; expected a tokenizer without tokens that were added after it')


def trainer(section: dict, context: Context, static: Static, *inputs: dict, how: str = '', ahead: int = 1) -> Trainer:
    """A Trainer of a section's model, in this context."""
    execution, model = context.execution, model_of(section, context.models)
    check_vocabulary(model, *inputs)
    return Trainer(model, static, context.mesh, how or execution.runs,
                   execution.eval_batch_size, shapes(section, context, *inputs), execution.driver, ahead)


def bound(section: dict) -> objectives.Bound:
    """The objective of a section, or cross-entropy's prediction if it names none."""
    aim = section.get('objective') or {'name': 'xent'}
    return objectives.bind(aim['name'], {k: v for k, v in aim.items() if k not in ('name', 'version')})


def predictor(section: dict, context: Context, *inputs: dict) -> Trainer:
    """A Trainer that only predicts."""
    return trainer(section, context, Static(bound(section), 1, 1, section['num_classes']), *inputs)


def run_bytes(section: dict, context: Context, static: Static, hyper: dict, *inputs: dict) -> tuple[int, int]:
    """What one run takes, at the longest of the shapes that its texts are padded to."""
    row = data.trim(data.take(inputs[0], np.zeros(1, int)), shapes(section, context, *inputs)[-1:])
    batch = {k: jax.ShapeDtypeStruct((static.batch_size, *v.shape[1:]), v.dtype) for k, v in row.items()}
    with sharding.on(context.mesh):
        return memory.run_bytes(model_of(section, context.models), static, hyper, batch)


def in_memory(section: dict, context: Context, static: Static, hyper: dict, *inputs: dict, runs: int) -> dict:
    """How so many runs train in the memory that there is: `how` and `ahead` of a Trainer."""
    state, activations = run_bytes(section, context, static, hyper, *inputs)
    size = memory.budget(context.execution.memory)
    fits = multihost.same(runs == 1 or runs <= memory.room(state, activations, True, size))
    how = choose_how(context.execution.runs, model_of(section, context.models).num_params, fits)
    return {'how': how, 'ahead': memory.ahead(runs * state, activations * (runs if how == 'vmap' else 1), size)}
