"""What runs in the sandbox: trains the students of an idea on inputs and weak labels, and leaves their parameters.

  worker.py JOB LOG      JOB: the folder with `in` (job.json, pool.npz, idea_of_agent.py) and `work`; LOG: of attempts

Nothing that it says of itself is believed: the judge (engine.py) looks at the parameters alone.
"""
import json
import os
import pathlib
import sys
import traceback

import numpy as np
import safetensors.numpy

from researcher import attempts
from w2s_jax import api

MODULE = 'idea_of_agent'
BAD = 3  # exit status of an idea that cannot be trained; the last line says why


def train(job: pathlib.Path) -> None:
    """Trains what `job` describes. Raises UserError."""
    from researcher.tracks import blind
    told = json.loads((job / 'in' / 'job.json').read_text())
    with np.load(job / 'in' / 'pool.npz') as arrays:
        columns = {k: arrays[k] for k in arrays.files}
    group, given = columns.pop('group'), columns.pop('given')
    data = blind(told['num_classes'], columns, group, given)
    config = api.default_config()
    if told['code']:
        sys.path.insert(0, str(job / 'in'))
        config.plugins = (MODULE,)
        api.load_plugins(config)
    config = configured(told['config'], told['delta'], config.plugins)
    check_prediction(config)
    found = api.train(config, data, job / 'work' / 'store', blind=True)
    leave(found, tuple(told['config']['seeds']), job / 'work')


def configured(flat: dict, delta: dict, plugins: tuple):
    """The track's config with what the idea changes."""
    config = api.restored(flat | {'plugins': list(plugins)})
    return api.apply(config, delta) if delta else config


def check_prediction(config) -> None:
    """Raises ConfigError for an objective that predicts in a way of its own, or trains another set of networks: who
    predicts is the judge, with the model's plain forward pass."""
    if not api.predicts_plainly(config):
        raise api.ConfigError(f'objective {config.student.loss.name!r}: has an init or predict of its own, but the '
                              'judge predicts with the plain model, expected only losses, init_state, update')


def leave(found: list, seeds: tuple, work: pathlib.Path) -> None:
    """A file of parameters for each seed. Raises ConfigError unless there is one student of each."""
    labels = list(dict.fromkeys(t.label for t in found))
    if len(labels) > 1:  # a method may name others beside its own
        found = [t for t in found if t.label == own(labels)]
    by_seed = {t.seed: t for t in found}
    for seed in seeds:
        one = by_seed[seed]
        if one.params is None:
            raise api.NonFiniteError(f'seed {seed}: {one.failed}')
        (work / f'{seed}.safetensors').write_bytes(safetensors.numpy.save(api.flat_params(one.params)))


def own(labels: list[str]) -> str:
    """Of the labels of several students the one that is the method's result: neither the direct student nor a rung.
    Raises ConfigError if that is not one."""
    kept = [label for label in labels if not label.startswith(('direct ', 'rung '))]
    if len(kept) != 1:
        raise api.ConfigError(f'method: {len(kept)} students ({", ".join(kept)[:80]}), expected one a seed')
    return kept[0]


def main() -> int:
    """Trains; what goes wrong is the last line that is printed."""
    job, log = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    spec = json.loads((job / 'in' / 'job.json').read_text())
    api.quiet()
    api.keep_freed_memory()
    attempts.note(log, spec['read'], [str(job / 'work')], f'{MODULE}.py', spec['sealed'])
    try:
        train(job)
    except api.UserError as e:
        print(f'\n{e}')
        return BAD
    except MemoryError:
        print('\nMemoryError: took more memory than it may')
        return BAD
    except BaseException as e:
        traceback.print_exc()
        print(f'\n{api.blamed(e) or f"{type(e).__name__}: {e}"}'.replace(str(job / 'in') + '/', ''))
        return BAD
    return 0


if __name__ == '__main__':
    status = main()
    sys.stdout.flush()
    os._exit(status)
