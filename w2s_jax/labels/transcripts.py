"""Tables of debates in words: what agents are asked to argue, and what a judge then reads. Pure functions of strings.

A speech is an argument for one of two answers; speeches of a round are `[2N, S]` texts, those of row i for the first
answer and for the second one below another. Nothing that a judge reads says who spoke, but for which answer.
"""
import re

import numpy as np

from w2s_jax.errors import ConfigError
from w2s_jax.labels.prompts import filled
from w2s_jax.labels.texts import TABLES
from w2s_jax.registry import Setting, Settings

REQUEST = '{text}\nThe answer is {answer}, because'
PROTOCOLS = ('debate', 'consultancy')
QUOTE = re.compile('["\u201c]([^"\u201d]+)["\u201d]')  # straight or typographic
NOT_THERE = ' (not in the text)'
WORDS = Setting((), doc='of the two answers')


@TABLES.register('requests', words=WORDS, template=Setting(REQUEST, doc='of a request'))
def requests(columns: dict, settings: Settings, rng) -> dict:
    """What agents go on from, `text` `[2N, 1]`: a text, what was said of it in the rounds before (`said0/text` ...),
    and the beginning of an argument for either answer. columns: `texts/text` or `text` `[N, 1]`."""
    texts, rounds = spoken(columns)
    out = np.empty((2 * len(texts), 1), object)
    for i, text in enumerate(texts):
        said = [line for speeches in rounds for line in told(text, speeches[2 * i:2 * i + 2], settings.words, (0, 1))]
        for side, word in enumerate(settings.words):
            out[2 * i + side, 0] = filled(settings.template, '\n'.join([text, *said]), word)
    return {'text': out}


@TABLES.register('transcripts', words=WORDS, protocol=Setting('debate', choices=PROTOCOLS, doc='who is heard'),
                 swapped=Setting(False, doc='every order, and every side of a consultancy, the other way round'))
def transcripts(columns: dict, settings: Settings, rng) -> dict:
    """What a judge reads, `text` `[N, 1]`: a text and what was said of it. Who speaks first is drawn for each row; in a
    consultancy so is who speaks at all. Quotes that are not in the text are marked (`verified`).

    columns: as `requests`. Returns beside it `first` int `[N]`, the answer that is argued for first; `quotes` int
    `[N, 2]`, those that are in the text and those that are not.
    """
    texts, rounds = spoken(columns)
    first = rng.integers(0, 2, len(texts)) ^ int(settings.swapped)
    out, quotes = np.empty((len(texts), 1), object), np.zeros((len(texts), 2), int)
    for i, text in enumerate(texts):
        order = (first[i], 1 - first[i]) if settings.protocol == 'debate' else (first[i],)
        said = [line for speeches in rounds for line in told(text, speeches[2 * i:2 * i + 2], settings.words, order)]
        out[i, 0] = '\n'.join([text, *said])
        quotes[i] = np.sum([verified(text, speeches[2 * i + side])[1] for speeches in rounds for side in order], axis=0)
    return {'text': out, 'first': first.astype(np.int32), 'quotes': quotes.astype(np.int32)}


def spoken(columns: dict) -> tuple[list[str], list[list[str]]]:
    """Texts, N of them, and of each round 2N speeches."""
    texts = columns['texts/text'] if 'texts/text' in columns else columns['text']
    names = sorted((name for name in columns if re.fullmatch(r'said\d+/text', name)), key=lambda x: int(x[4:-5]))
    return [str(row[0]) for row in texts], [[' '.join(str(row[0]).split()) for row in columns[name]] for name in names]


def told(text: str, speeches: list[str], words, order) -> list[str]:
    """The lines of a round: the two speeches of a row, in an order of the answers."""
    return [f'Argument for {words[side]}: {verified(text, speeches[side])[0]}' for side in order]


def verified(text: str, speech: str) -> tuple[str, tuple[int, int]]:
    """A speech whose quotes that are not in the text, letter by letter but for case and white space, are marked; and
    how many are in it, and are not."""
    plain, counts = ' '.join(text.lower().split()), [0, 0]

    def mark(found: re.Match) -> str:
        there = ' '.join(found[1].lower().split()) in plain
        counts[0 if there else 1] += 1
        return found[0] + ('' if there else NOT_THERE)
    return QUOTE.sub(mark, speech), (counts[0], counts[1])


def check(field: str, settings: Settings, classes: int) -> None:
    """Raises ConfigError unless there are two answers with a word each, and a template of a request."""
    if classes != 2 or len(settings.words) != 2 or len(set(settings.words)) != 2:
        raise ConfigError(f'{field}.words: {tuple(settings.words)} for {classes} classes, expected two words for two')
    if settings.template.count('{text}') != 1 or settings.template.count('{answer}') != 1 or (
            settings.template.index('{text}') > settings.template.index('{answer}')):
        raise ConfigError(f'{field}.template: {settings.template!r}, expected {{text}} once, and {{answer}} once '
                          'behind it')
