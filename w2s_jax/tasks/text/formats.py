"""Rows of the published NLP data sets -> a question's parts: its fields, its candidate answers, its label.

Pure functions of one row, in the schema of the hub or in the simplified one of a local copy (`options` and
`answer_index`; `text` and `label`). Each raises ValueError, in words for the user, where the row cannot be used.
"""
import re
from collections.abc import Callable
from typing import Any

from w2s_jax.tasks.text.statements import class_of, normal, text_of

Row = dict[str, Any]
NONE_OF_THEM = 'none of the above choices'


def texts(values, what: str = 'answers') -> list[str]:
    """Candidate answers. Raises ValueError unless they are two or more texts."""
    if not isinstance(values, list) or len(values) < 2:
        raise ValueError(f'{what} {str(values)[:40]!r}, expected a list of two or more texts')
    return [text_of({what: v}, what) for v in values]


def place(value, n: int, first: int = 0) -> int:
    """The right answer's place, counted from `first` in the file and from 0 here."""
    try:
        return class_of(value if not first else int(value) - first, n)
    except (ValueError, TypeError) as e:
        raise ValueError(f'answer {value!r}, expected an integer from {first} to {first + n - 1}') from e


def simplified(row: Row) -> tuple[list[str], int]:
    """`options` and `answer_index` (from 0)."""
    options = texts(row.get('options'), 'options')
    return options, place(row.get('answer_index'), len(options))


def sciq(row: Row) -> tuple[list[str], int]:
    """The correct answer and three distractors, each in its own column."""
    return [text_of(row, c) for c in ('correct_answer', 'distractor1', 'distractor2', 'distractor3')], 0


def lettered(row: Row) -> tuple[list[str], int]:
    """`choices` {'text': [...], 'label': ['A', ...]} and `answerKey`: ARC, OpenBookQA, QuaRTz."""
    choices, key = row.get('choices'), row.get('answerKey')
    if not isinstance(choices, dict) or not isinstance(choices.get('label'), list):
        raise ValueError(f'choices {str(choices)[:40]!r}, expected a list of texts and one of labels')
    options = texts(choices.get('text'), 'choices')
    if key not in choices['label'][:len(options)]:
        raise ValueError(f'answerKey {key!r} is none of the choices {choices["label"]}')
    return options, choices['label'].index(key)


def numbered(prefix: str, letters: str, first: int = 0):
    """Answers in columns `prefix` + letter, the right one's place in `label`, counted from `first`."""
    def choices(row: Row) -> tuple[list[str], int]:
        options = [text_of(row, prefix + c) for c in letters]
        return options, place(row.get('label'), len(options), first)
    return choices


def listed(options: str, answer: str):
    """Answers in the list column `options`, the right one's place (from 0) in `answer`."""
    def choices(row: Row) -> tuple[list[str], int]:
        found = texts(row.get(options), options)
        return found, place(row.get(answer), len(found))
    return choices


def dream(row: Row) -> tuple[list[str], int]:
    """`choice` [...] and `answer`, the text of one of them."""
    options = texts(row.get('choice'), 'choice')
    answer = text_of(row, 'answer')
    if answer not in options:
        raise ValueError(f'answer {answer!r} is none of the choices')
    return options, options.index(answer)


def draw(options: list[str], right: int, rng) -> tuple[str, int]:
    """(a candidate answer, 1 where it is the right one): each with even chance, a wrong one uniformly.

    "None of the above" is never shown: it would be wrong wherever it came up, as the label would tell. Where it
    is the right answer, the statement is a wrong one.
    """
    wrong = [o for o in options if normal(o) != normal(options[right]) and NONE_OF_THEM not in normal(o)]
    if not wrong:
        raise ValueError('no wrong answer to choose from: every option is the right one')
    truth = 0 if NONE_OF_THEM in normal(options[right]) else rng.randrange(2)
    return (options[right] if truth else rng.choice(wrong)), truth


def whole(options: list[str], right: int, fill: Callable[[str], str]) -> list[tuple[str, int]]:
    """(the text that `fill` makes of it, 1 if it is the right one) of every option; [] of a question that has "none of
    the above" among them, as that is never shown."""
    if any(NONE_OF_THEM in normal(o) for o in options):
        return []
    return [(fill(o), int(i == right)) for i, o in enumerate(options)
            if i == right or normal(o) != normal(options[right])]


def joined(row: Row, column: str) -> str:
    """A text, or a list of texts (a dialogue's turns) as lines."""
    value = row.get(column)
    return '\n'.join(texts(value, column)) if isinstance(value, list) else text_of(row, column)


def two(first: str, second: str):
    """Two columns in an order drawn for each row: (fields, 1 where `first` is shown first)."""
    def fields(row: Row, rng) -> tuple[dict[str, str], int]:
        truth = rng.randrange(2)
        pair = [text_of(row, first), text_of(row, second)]
        return dict(zip(('first', 'second'), pair if truth else pair[::-1], strict=True)), truth
    return fields


def virtue(row: Row, rng) -> tuple[dict[str, str], int]:
    """ETHICS virtue: `scenario` ends in [SEP] and a trait."""
    scenario, mark, trait = text_of(row, 'scenario').rpartition('[SEP]')
    if not mark or not scenario.strip() or not trait.strip():
        raise ValueError('scenario has no [SEP] and trait')
    return {'scenario': scenario.strip(), 'trait': trait.strip()}, label(row)


def label(row: Row, num_classes: int = 2) -> int:
    """`label`, an integer from 0."""
    return class_of(row.get('label'), num_classes)


def entailment(row: Row) -> int:
    """1 where the premise entails the hypothesis: the class 0 of ANLI's three, of GLUE's two.

    A simplified copy of RTE without GLUE's column `idx` says 1 itself.
    """
    if 'idx' not in row and 'premise' not in row:
        return class_of(row.get('label'))
    return int(class_of(row.get('label'), 3) == 0)


def before_because(text: str) -> str:
    """ETHICS justice: variants of one situation differ in what follows the reason's conjunction."""
    return re.split(r'\b(?:because|but)\b', text, maxsplit=1, flags=re.IGNORECASE)[0]


def before_trait(text: str) -> str:
    """ETHICS virtue: one scenario, several traits after [SEP]."""
    return text.split('[SEP]')[0]


def first_sentence(text: str) -> str:
    """ETHICS utilitarianism: the situation, before what makes it more or less pleasant."""
    return re.split(r'(?<=[.!?])\s', text, maxsplit=1)[0]
