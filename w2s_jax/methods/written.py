"""What methods need that have models write: prompts, texts, pairs of them, and who judges them."""
import dataclasses
from typing import Any

import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.graph import Phase, Rows, Source, source
from w2s_jax.labels.texts import TABLES
from w2s_jax.methods.parts import Parts
from w2s_jax.models import tokens
from w2s_jax.models.modes import Model
from w2s_jax.registry import Setting, Settings

SETTINGS: dict[str, Any] = {  # of every method that has models write
    'steps': Setting(64, 1, 10**5, doc='tokens that a text may have'),
    'sampling_temperature': Setting(1., 0, 1e3, doc='of drawing texts; 0: the most probable token'),
    'top_p': Setting(1., 0, 1, '(]', doc='share of probability that tokens are drawn from'),
    'top_k': Setting(0, 0, 10**6, doc='tokens that are drawn from; 0: all'),
    'min_p': Setting(0., 0, 1, doc='of the most probable token, what another must have'),
    'samples': Setting(1, 1, 10**4, doc='texts a prompt'),
    'prompts': Setting(0, 0, 10**9, doc="rows of a seed's student half that are asked; 0: all"),
    'judged': Setting(200, 0, 10**9, doc='test rows whose prompts are asked and judged; 0: none'),
    'stops': Setting((), doc="tokens that end a text beside the model's own; ('\\n',)"),
    'cut': Setting(('\n\nHuman:',), doc='strings that end a text when they are written')}


@dataclasses.dataclass(frozen=True)
class Writer:
    """Who writes: a trained phase or a pretrained model; contrasted with `before` if that is given."""
    after: Phase | Model
    before: Phase | Model | None = None
    alpha: float | None = None
    head: float = .1


def prompts(b: Parts, rows: Rows | None = None) -> Phase:
    """What is asked `[n, 1]`: of rows of the pool, or (None) of the test set, as many as the settings say."""
    most = b.settings.prompts if rows is not None else b.settings.judged
    needs = {'texts': b.raw['test' if rows is None else 'inputs']} | ({} if rows is None else {'rows': rows.source})
    texts = b.dataset.pool.inputs.get('text')
    if texts is None or texts.shape[1] != 2:
        raise ConfigError(f'method {b.config.method.name!r}: task {b.dataset.name!r} has no pairs of texts, expected '
                          'anthropic_hh or preference')
    label = 'prompts of the test set' if rows is None else f'prompts of seed {rows.seed}'
    return b.table(TABLES['openings'], Settings(most=most), needs, label)


def model_of(b: Parts, who: Phase | Model) -> tuple[Model, tokens.Tokenizer]:
    """A writer's model and its tokenizer. Raises ConfigError for one that predicts no tokens."""
    if isinstance(who, Phase):
        model = b.model_of(who)
    elif who.generative is None:
        raise ConfigError(f'method {b.config.method.name!r}: {who.name!r} has no next-token head, expected a causal '
                          'language model')
    else:
        model = who.generative()
    if model.language is None or model.tokenizer is None:
        raise ConfigError(f'method {b.config.method.name!r}: {model.name!r} writes no texts, expected a causal '
                          'language model, pretrained or tuned on texts')
    return model, model.tokenizer


def aligned(b: Parts, seed: int, tuning_rate: float | None, tuning_epochs: int, rate: float | None, epochs: int,
            beta: float) -> tuple[Phase, Phase]:
    """The weak model before its alignment (tuned on the preferred texts of its half) and after it (`dpo`)."""
    half = b.halves[seed].teacher
    before = b.fit('teacher', b.teacher, half, b.truth, 'sft', label='weak, tuned on preferred texts',
                   rate=tuning_rate, epochs=tuning_epochs, stopping=False)
    return before, b.fit('teacher', b.teacher, half, b.truth, 'dpo', label='weak, aligned', start=before, rate=rate,
                         epochs=epochs, values={'beta': beta}, stopping=False)


def stops(b: Parts, tokenizer: tokens.Tokenizer) -> list[int]:
    """The tokens that end a text: a model's own, and those of the settings."""
    return sorted({*tokenizer.ends, *(tokens.token_id(tokenizer, stop, 'method.stops') for stop in b.settings.stops)})


def write(b: Parts, who: Writer, asked: Phase, seed: int, label: str, samples: int = 0) -> Phase:
    """The texts (`phases/generate.py`) that a writer puts after prompts. samples: of each; 0: as the settings say."""
    how, (model, tokenizer) = b.settings, model_of(b, who.after)
    check_pick(b)
    pick = {k: how[k] for k in ('top_k', 'top_p', 'min_p')} | {
        'temperature': how.sampling_temperature, 'alpha': who.alpha, 'head': who.head}
    section = {'model': model.identity, 'pick': pick, 'steps': how.steps, 'samples': samples or how.samples,
               'stops': stops(b, tokenizer), 'cut': list(how.cut), 'hyper': {'seed': seed}}
    needs: dict = {'inputs': asking(b, model, asked)}
    needs |= {'model': who.after} if isinstance(who.after, Phase) else {}
    if who.before is not None:
        before, theirs = model_of(b, who.before)
        if theirs.fingerprint != tokenizer.fingerprint:
            raise ConfigError(f'method {b.config.method.name!r}: {before.name!r} and {model.name!r} have two '
                              'tokenizers, expected the same for a contrast')
        section['before'] = before.identity
        needs |= {'before': who.before} if isinstance(who.before, Phase) else {}
    return Phase('generate', section, needs, label, 'generate')


def check_pick(b: Parts) -> None:
    """Raises ConfigError for filters beside temperature 0, which change nothing."""
    how = b.settings
    if not how.sampling_temperature and (how.top_p < 1 or how.top_k or how.min_p):
        raise ConfigError('method.sampling_temperature: 0 takes the most probable token, whatever method.top_p='
                          f'{how.top_p}, top_k={how.top_k} and min_p={how.min_p} say; expected 1, 0 and 0 beside it')


def asking(b: Parts, model: Model, asked: Phase) -> Phase:
    """Prompts as a model's tokens, none of them cut, with room for what it writes."""
    section = b.tokens(model) | {'whole': True}
    section['max_length'] = min(section['max_length'], model.max_length - b.settings.steps)
    if section['max_length'] < 1:
        raise ConfigError(f'method.steps: {b.settings.steps}, but {model.name!r} was made for {model.max_length} '
                          'tokens, prompt and text together')
    return Phase('tokens', section, {'inputs': asked}, f'tokens: {asked.label}', 'tokens')


def pairs(b: Parts, model: Model, asked: Phase, chosen: Phase, rejected: Phase, label: str,
          every: bool = False) -> Phase:
    """Pairs of texts to learn from, `text` `[m, 2]` and `labels`, the preferred one first. model: who learns them: its
    end of text stands behind those that came to theirs. every: also pairs of equal texts."""
    assert model.tokenizer is not None
    chatting = bool(b.config.task.get('chat'))
    ends = model.tokenizer.ends if not (chatting or every) else ()  # a chat template has its own
    end = model.tokenizer.backend.id_to_token(ends[0]) if ends else ''
    between = ' ' if chatting else ''
    return b.table(TABLES['continuations'], Settings(end=end, between=between, every=every),
                   {'prompts': asked, 'chosen': chosen, 'rejected': rejected}, label)


def judge(b: Parts, seed: int) -> Phase:
    """A reward model of the student's kind that learned the truth of the whole pool; it is asked of test rows alone."""
    rows = np.sort(np.concatenate([b.halves[seed].teacher.index, b.halves[seed].student.index]))
    return b.fit('ceiling', b.student, Rows(seed, rows), b.truth, 'xent', label='judge')


def verdict(b: Parts, judge: Phase, asked: Phase, mine: Phase, theirs: Phase, n: int) -> Phase:
    """How likely a judge finds it that the first of two texts after a prompt is the better one: `labels` `[n, 2]`."""
    model = b.model_of(judge)
    every = pairs(b, model, asked, mine, theirs, f'{mine.label} or {theirs.label}', every=True)
    section = {'model': model.identity, 'num_classes': b.dataset.num_classes, 'labels': 'soft',
               'objective': judge.section['objective'],
               'hyper': {'seed': judge.seed, 'temperature': 1.0, 'noise': 0.0}}
    rows: Source = source(np.arange(n))
    if b.config.task.get('chat'):  # a judge may see an empty answer, which nobody may learn
        every = Phase('tokens', b.tokens(model) | {'open': True}, {'inputs': every}, every.label, 'tokens')
    needs = {'inputs': b.prepared(model, every.label, every), 'rows': rows, 'model': judge}
    return Phase('predict', section, needs, f'judge: {mine.label}', 'verdict')


def beside(b: Parts, seed: int, after: Phase) -> 'Judged':
    """Says that an aligned model is the weak one, and trains the ceiling and students of its labels, beside which those
    of texts stand. Returns: who judges them."""
    half = b.halves[seed].student
    labels = b.transformed(b.label(after, half))
    b.weak(after, labels)
    b.ceiling(b.fit('ceiling', b.student, half, b.truth))
    judged = Judged(b, seed)
    for loss in b.losses:
        phase = b.fit('student', b.student, half, labels, loss)
        b.students([phase], method='naive', label=loss, judged=judged.of(phase, loss))
    return judged


class Judged:
    """What the judge of a seed says of students' texts after prompts of the test set; nothing if `judged` is 0."""

    def __init__(self, b: Parts, seed: int):
        self.b, self.seed = b, seed
        if b.settings.judged:
            self.judge, self.asked = judge(b, seed), prompts(b)
            self.untuned = write(b, Writer(b.student), self.asked, seed, 'texts of the untuned student')

    def of(self, student: Phase, name: str) -> Phase | None:
        """Of a student; None of one that writes no texts."""
        how = self.b.settings
        if not how.judged or self.b.model_of(student).language is None:
            return None
        mine = write(self.b, Writer(student), self.asked, self.seed, f'texts of {name}')
        n = min(how.judged, len(self.b.dataset.test)) * how.samples
        return verdict(self.b, self.judge, self.asked, mine, self.untuned, n)
