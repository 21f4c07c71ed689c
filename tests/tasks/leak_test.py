import json
import pathlib
import random
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import sections

from w2s_jax.tasks import TASKS
from w2s_jax.tasks.text import leak

ASSETS = pathlib.Path(__file__).parents[3] / 'shared' / 'assets' / 'data'
LETTERS = 'ABCD'


def questions(n: int, seed: int = 0) -> list[tuple[str, list[str], int]]:
    """Made-up questions with four options of one or two made-up words."""
    rng = random.Random(seed)
    word = lambda: ''.join(rng.choice('abcdefghilmnoprstu') for _ in range(rng.randint(1, 9)))
    phrase = lambda low, high: ' '.join(word() for _ in range(rng.randint(low, high)))
    return [(f'What is {phrase(3, 12)}?', [phrase(1, 2) for _ in range(4)], rng.randrange(4)) for _ in range(n)]


def leaking(questions) -> tuple[np.ndarray, np.ndarray]:
    """EleutherAI/w2s's way with OpenBookQA: the letter of a right answer, the text of a wrong one."""
    rng, texts, truth = random.Random(1), [], []
    for question, options, right in questions:
        truth.append(rng.randrange(2))
        answer = LETTERS[right] if truth[-1] else rng.choice([o for i, o in enumerate(options) if i != right])
        listed = '\n'.join(f'{a}) {t}' for a, t in zip(LETTERS, options, strict=False))
        texts.append(f'Q: {question}\n\nChoices:\n{listed}\n\nAnswer: {answer}')
    return np.array(texts, object), np.array(truth)


def sound(questions) -> tuple[np.ndarray, np.ndarray]:
    rng, texts, truth = random.Random(1), [], []
    for question, options, right in questions:
        truth.append(rng.randrange(2))
        answer = options[right] if truth[-1] else rng.choice([o for i, o in enumerate(options) if i != right])
        texts.append(f'Q: {question} A: {answer}')
    return np.array(texts, object), np.array(truth)


def test_a_formatter_that_leaks_is_caught():
    texts, truth = leaking(questions(400))
    result = leak.check(texts, truth, np.arange(400))
    assert result['surface_auroc'] > 0.99 and 'can be told from the surface' in str(leak.warning(result))
    assert any('last field' in name or 'last word' in name for name in result['strongest'])
    texts, truth = sound(questions(400))
    result = leak.check(texts, truth, np.arange(400))
    assert leak.warning(result) is None and result['surface_auroc'] < 0.6


@pytest.mark.parametrize('name', ['sciq', 'arc_easy'])
def test_the_same_formatter_on_real_questions(name):
    path = ASSETS / name / 'test.parquet'
    if not path.exists():
        pytest.skip(f'{path} is not here')
    rows = [r for r in pq.read_table(path).to_pylist() if len(r['options']) == 4]
    found = [leak.check(*make([(r['question'], r['options'], r['answer_index']) for r in rows]), np.arange(len(rows)))
             for make in (leaking, sound)]
    assert leak.warning(found[0]) and found[0]['surface_auroc'] > 0.95
    assert leak.warning(found[1]) is None and found[1]['surface_auroc'] < 0.6


@pytest.mark.parametrize('mark', [lambda t: t + '!', lambda t: t.upper(), lambda t: '7 ' + t, lambda t: t + ' ' + t,
                                  lambda t: t + '.'])
def test_surfaces(mark):
    texts, truth = sound(questions(300))
    truth = np.arange(300) % 2
    marked = np.array([mark(t) if y else t for t, y in zip(texts, truth, strict=True)], object)
    assert leak.check(marked, truth, np.arange(300))['surface_auroc'] > 0.9
    assert leak.warning(leak.check(marked, truth, np.arange(300)))
    assert leak.warning(leak.check(texts, truth, np.arange(300))) is None


def test_chance_is_in_its_band():
    texts = np.array([q for q, _, _ in questions(600)], object)
    inside = []
    for seed in range(5):
        truth = np.random.default_rng(seed).integers(0, 2, 600)
        result = leak.check(texts, truth, np.arange(600), seed)
        low, high = result['chance']
        assert low < 0.5 < high and high - low == pytest.approx(1.5 * 2 * 1.96 / np.sqrt(3 * 600), rel=0.02)
        inside.append(low <= result['surface_auroc'] <= high)
        assert leak.warning(result) is None
    assert sum(inside) >= 4


def test_words_that_separate_perfectly():
    texts, _ = sound(questions(400))
    truth = np.arange(400) % 2
    marked = np.array([t.replace('What is', 'What is' if y else 'What was') for t, y in zip(texts, truth, strict=True)],
                      object)
    result = leak.check(marked, truth, np.arange(400))
    assert result['words_auroc'] > leak.PERFECT
    assert 'bag of words' in str(leak.warning(result | {'surface_auroc': 0.5}))


def test_several_classes():
    texts, _ = sound(questions(400))
    truth = np.arange(400) % 4
    longer = np.array([t + ' x' * 10 * y for t, y in zip(texts, truth, strict=True)], object)
    assert leak.check(longer, truth, np.arange(400))['surface_auroc'] > 0.8
    assert leak.check(texts, truth, np.arange(400))['surface_auroc'] < 0.6


def test_pairs_are_looked_at_together():
    texts, _ = sound(questions(600))
    pairs, truth = texts.reshape(300, 2), np.arange(300) % 2
    assert leak.check(pairs, truth, np.arange(300))['surface_auroc'] < 0.65
    rng = random.Random(0)
    common = [' '.join(texts[:rng.randint(1, 20)]) for _ in range(300)]  # as different as the two of a pair are alike
    longer = np.array([[c.replace(' is ', ' is rather ' if i == y else ' is ', 1) for i in range(2)]
                       for c, y in zip(common, truth, strict=True)], object)
    result = leak.check(longer, truth, np.arange(300))
    assert result['surface_auroc'] > 0.99 and leak.warning(result)


def test_groups_are_not_learned_by_heart():
    """Rows of a group share a text of their own and a label: seen in training, it would tell the label."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 10)
    truth = rng.integers(0, 2, 60)[group]
    texts = np.array([f'group{g} said so' for g in group], object)
    assert leak.check(texts, truth, np.arange(600))['words_auroc'] > 0.95
    assert leak.check(texts, truth, group)['words_auroc'] < 0.7


def test_too_few_rows_are_not_judged():
    texts, truth = leaking(questions(31))
    result = leak.check(texts, truth, np.arange(31))
    assert result['surface_auroc'] is None and leak.warning(result) is None
    assert str(leak.unchecked(result)).startswith('too few rows (31) to check whether texts give their labels away')
    texts, truth = leaking(questions(200))
    assert leak.check(texts, truth, np.zeros(200, int))['surface_auroc'] is None
    assert leak.check(texts, np.zeros(200, int), np.arange(200))['surface_auroc'] is None
    json.dumps(result)


def test_few_rows_are_judged_with_care():
    """From 32 rows on a leak is found, and what is sound is not blamed."""
    found, blamed = [], []
    for seed in range(20):
        made = questions(36, seed)
        texts, _ = sound(made)
        truth = np.random.default_rng(seed).permutation(np.arange(36) % 2)
        marked = np.array([t + '!' * int(y) for t, y in zip(texts, truth, strict=True)], object)
        for which, into in ((marked, found), (texts, blamed)):
            result = leak.check(which, truth, np.arange(36))
            assert leak.unchecked(result) is None
            into.append(leak.warning(result) is not None)
    assert sum(found) == 20 and sum(blamed) <= 1


def test_empty_and_strange_texts_do_not_matter():
    texts = np.array(['', ' ', '\n', 'é ü 漢字', '🙂', 'A: ', ':'] * 20, object)
    result = leak.check(texts, np.arange(140) % 2, np.arange(140))
    assert np.isfinite(result['surface_auroc']) and len(leak.surface('')) == len(leak.NAMES)


def test_it_is_quick():
    texts, truth = sound(questions(3000))
    long = np.array([' '.join(texts[i:i + 20]) for i in range(3000)] * 3, object)
    start = time.process_time()
    result = leak.check(long, np.concatenate([truth] * 3), np.arange(9000))
    assert result['rows'] == leak.ROWS and time.process_time() - start < 6  # 2 s on a free machine


def test_a_leak_is_said_and_kept(tmp_path):
    rows = [{'text': t, 'label': int(y)} for t, y in zip(*leaking(questions(300)), strict=True)]
    (tmp_path / 'a.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    task = sections.task('files', path=str(tmp_path / 'a.jsonl'), text='text', label='label')
    said: list[str] = []
    d = TASKS['files'].fn(task, log=said.append)
    assert said == [f'warning: files: {d.notes["leak"]["warning"]}'] and 'surface' in said[0]
    assert json.loads(json.dumps(d.notes)) == d.notes
