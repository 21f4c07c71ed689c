"""Every model of an experiment, once it is trained, under attack: the further test set `robust`."""
from typing import Any

import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, source
from w2s_jax.models.modes import Model

ROBUST = 'robust'


def check_features(b, model: Model, field: str) -> None:
    """Raises ConfigError unless a model reads the task's features as they are, so that they can be moved."""
    if 'features' not in b.dataset.pool.inputs or model.featurize is not None:
        raise ConfigError(f'{field}: {model.name!r} on task {b.dataset.name!r}, expected a model in mode full that '
                          'reads features, which an attack can move')


def attacked(b) -> dict[str, Any]:
    """Needs of the evaluation: the truth and inputs of the test set once more, and `attack/robust/I` for each target I
    that is a trained model; nothing if `attack.eps` is 0."""
    how = b.config.attack
    if not how.eps:
        return {}
    if ROBUST in b.dataset.tests:
        raise ConfigError(f'attack.eps: {how.eps:g}, but task {b.dataset.name!r} has a test set {ROBUST!r} itself, '
                          'expected 0')
    group = b.dataset.test.group
    found = {f'truth/{ROBUST}': b.sealed['test'][None], f'test/{ROBUST}': b.raw['test']}
    found |= {f'group/{ROBUST}': source(group)} if len(np.unique(group)) < len(group) else {}
    return found | {f'attack/{ROBUST}/{i}': _attack(b, t.need) for i, t in enumerate(b.targets)
                    if isinstance(t.need, Phase) and t.need.kind == 'fit'}


def _attack(b, phase: Phase) -> Phase:
    model, how = b.model_of(phase), b.config.attack
    check_features(b, model, f'attack.eps: {how.eps:g}')
    section = {k: phase.section[k] for k in ('model', 'num_classes', 'objective')}
    section |= {'attack': {k: how[k] for k in ('step', 'steps', 'restarts')},
                'hyper': {'seed': phase.seed or 0, 'eps': how.eps}}
    needs = {'inputs': b.raw['test'], 'truth': b.sealed['test'][None], 'model': phase}
    return Phase('attack', section, needs, f'attack on {phase.label}', 'attack', True)
