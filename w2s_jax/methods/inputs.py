"""What models read: the task's inputs, as they are, as tokens, or as features of a frozen backbone."""
import numpy as np

from w2s_jax import config as configs
from w2s_jax.data import Dataset
from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Rows, Source, source
from w2s_jax.models import chat
from w2s_jax.models.modes import Model
from w2s_jax.objectives import entry
from w2s_jax.registry import Settings

_TITLES = {'inputs': 'pool', 'test': 'test set'}


class Inputs:
    """The inputs of one experiment. raw: of the pool ('inputs') and of each test set, as the task has them."""

    def __init__(self, config, dataset: Dataset):
        self.config, self.dataset = config, dataset
        self.raw = {'inputs': source(dataset.pool.inputs)} | {k: source(v.inputs) for k, v in dataset.tests.items()}
        self._prepared: dict[tuple, Phase | Source] = {}

    def prepared(self, model: Model, name: str, raw: Phase | Source | None = None,
                 backbone: Phase | None = None) -> Phase | Source:
        """Inputs as a model takes them: as they are, or tokens, or (probe) cached features. name: 'inputs' (the pool),
        a test set, or whatever `raw` is called.  backbone: the phase whose backbone makes the features, or whose
        model says how likely texts are, if it is not the pretrained one."""
        key = (model.key, name, (raw or self.raw[name]).id, backbone and backbone.id)
        if key not in self._prepared:
            self._prepared[key] = self._prepare(model, name, raw or self.raw[name], backbone)
        return self._prepared[key]

    def _prepare(self, model: Model, name: str, need, backbone: Phase | None):
        title = _TITLES.get(name, name)
        if model.tokenizer is not None and not (isinstance(need, Phase) and need.kind == 'tokens'):
            need = Phase('tokens', self.tokens(model), {'inputs': need}, f'tokens of the {title}', 'tokens')
        if model.scored:
            section = {'model': model.identity, 'num_classes': self.dataset.num_classes}
            needs = {'inputs': need} | ({'model': backbone} if backbone else {})
            return Phase('score', section, needs, f'{model.name}: likelihoods of the {title}', 'score')
        if model.featurize is not None:
            section = {'model': model.identity, 'num_classes': self.dataset.num_classes, **_adapted(backbone)}
            need = Phase('features', section, {'inputs': need} | ({'backbone': backbone} if backbone else {}),
                         f'{model.name}: features of the {title}', 'features')
        return need

    def features(self, model: Model) -> Phase | Source:
        """What a model's frozen backbone makes of every row of the pool, `[N, ...]`; the inputs themselves if they are
        features."""
        if 'features' in self.dataset.pool.inputs:
            return self.raw['inputs']
        frozen = model.backbone() if model.backbone else model
        return self.prepared(frozen, 'inputs')

    def tokens(self, model: Model) -> dict:
        """The section of a phase that makes tokens for a model."""
        task, tokenizer = self.config.task, model.tokenizer
        assert tokenizer is not None
        chatting = {'chat': chat.identity(model.name, tokenizer.template)} if task.get('chat') else {}
        return {'tokenizer': tokenizer.fingerprint, 'truncate': task.truncate or self.dataset.truncate,
                'max_length': min(task.max_length, model.max_length), **chatting}

    def whole_tokens(self, model: Model, inputs: Phase) -> Phase:
        """Token ids of texts that may not be cut."""
        return Phase('tokens', self.tokens(model) | {'whole': True}, {'inputs': inputs}, f'tokens: {inputs.label}',
                     'tokens')

    def packed(self, model: Model, rows: Rows, size: int) -> Phase:
        """The texts of rows one behind the other, in rows of so many tokens."""
        section = self.tokens(model) | {'packed': min(size, model.max_length)}
        return Phase('tokens', section, {'inputs': self.raw['inputs'], 'rows': rows.source},
                     f'texts of seed {rows.seed}, packed', 'tokens')

    def inputs_of(self, model: Model, inputs: Phase | None, backbone: Phase | None, tests: dict) -> dict:
        """What a fit needs: what it learns from, and the test sets. inputs, tests: in place of the task's."""
        return self.read_by(model, inputs, backbone) | {
            f'predict/{k}': self.prepared(model, k, tests.get(k), backbone) for k in self.dataset.tests}

    def read_by(self, model: Model, inputs: Phase | None, backbone: Phase | None) -> dict:
        """The pool's inputs, or those in their place, as a model reads them; a probe's are scaled as the pool's."""
        needs = {'inputs': self.prepared(model, inputs.label if inputs is not None else 'inputs', inputs, backbone)}
        if inputs is not None and model.featurize is not None:
            needs['scale'] = self.prepared(model, 'inputs', backbone=backbone)
        return needs


def default_loss(config, role: str) -> str:
    """The objective of a role that names none: cross-entropy, a teacher's own, and of a ceiling that of the students
    where they are tuned on pairs of texts, so that both are of one kind."""
    part = 'teacher' if role == 'teacher' else 'student'
    name = config[part].loss.name
    pairs = role == 'ceiling' and entry(name, f'{part}.loss.name').options.get('pairs')
    return name if role == 'teacher' or pairs else 'xent'


def policy(model: Model, loss: str) -> Model:
    """The model as one that pairs of texts tune. Raises ConfigError for one without a next-token head, or a task
    without pairs."""
    if model.policy is None:
        raise ConfigError(f'objective {loss!r}: tunes which of two texts {model.name!r} makes likelier, expected a '
                          'causal language model and a task of pairs (anthropic_hh, preference)')
    return model.policy()


def tuned(phase: Phase) -> Phase | None:
    """The phase whose backbone made the features, or likelihoods, that a phase learned from; None for a pretrained one.
    """
    inputs = phase.needs.get('inputs')
    if not isinstance(inputs, Phase):
        return None
    return inputs.needs.get('model' if inputs.kind == 'score' else 'backbone')


def begun(phase: Phase) -> bool:
    """Whether a phase went on from a model that had learned the task's texts."""
    start = phase.needs.get('start', tuned(phase))
    return start is not None and start.role == 'tuned'


def related(group: np.ndarray) -> bool:
    """Whether some rows belong together."""
    return len(np.unique(group)) < len(group)


def loss_of(config, role: str, name: str):
    """The loss or objective of that name and its settings: those of the config if it is the role's own, else its
    defaults."""
    own, values = configs.chosen(config, f'{role}.loss')
    if name == own.name:
        return own, values
    entry = configs.AIMS[configs.known(f'{role}.loss.name', name, configs.AIMS)]
    return entry, Settings({k: s.default for k, s in entry.settings.items()})


def mode_of(phase: Phase) -> dict:
    """The mode of a phase's model, where it has one."""
    mode = phase.section.get('model', {}).get('mode')
    return {'mode': mode} if mode else {}


def shown(phase: Phase) -> dict:
    """The settings of a phase's objective, for the tables."""
    static = {k: v for k, v in phase.section.get('objective', {}).items() if k not in ('name', 'version')}
    found = static | phase.section.get('hyper', {}).get('loss', {})
    return found | ({'settings': found} if found else {})


def _adapted(backbone: Phase | None) -> dict:
    """What a phase's adapters, if it trained some, are scaled with."""
    factors = backbone.section['model'].get('lora') if backbone else None
    return {'adapters': factors['alpha'] / factors['rank']} if factors else {}
