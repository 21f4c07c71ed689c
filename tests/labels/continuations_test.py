"""Prompts out of texts, and texts that models wrote put together as pairs."""
import numpy as np
import pytest

from w2s_jax.errors import DataError
from w2s_jax.labels.continuations import beginning, continuations, first, openings, ranked
from w2s_jax.registry import Settings


@pytest.mark.parametrize(('texts', 'expected'), [
    (['\n\nHuman: a\n\nAssistant: good', '\n\nHuman: a\n\nAssistant: bad'], '\n\nHuman: a\n\nAssistant:'),
    ([f'\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: {x}' for x in 'de'],
     '\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:'),
    (['one two three', 'one two thirty'], 'one two '),
    (['one two', 'one two three'], 'one two')])
def test_a_prompt_is_what_texts_begin_with(texts, expected):
    assert beginning(texts) == expected


def test_prompts_are_of_the_rows_that_are_asked_for():
    texts = np.array([[f'{i} same a', f'{i} same b'] for i in range(6)], object)
    found = openings({'texts/text': texts, 'rows/values': np.array([4, 1, 3])}, Settings(most=2), None)
    assert found['text'].tolist() == [['4 same '], ['1 same ']]
    assert openings({'text': texts}, Settings(most=0), None)['text'].shape == (6, 1)


def test_texts_that_begin_differently_are_refused():
    with pytest.raises(DataError, match='text of example 1: nothing to ask with'):
        openings({'text': np.array([['a b', 'a c'], ['x', 'y']], object)}, Settings(most=0), None)


def written(chosen, rejected, ended=False):
    one = {'prompts/text': np.array([['p'], ['q']], object)}
    for name, texts in (('chosen', chosen), ('rejected', rejected)):
        one |= {f'{name}/text': np.array(texts, object), f'{name}/ended': np.full((2, len(texts[0])), ended)}
    return one


HOW = {'end': '.', 'between': ' ', 'every': False}


def test_pairs_have_the_preferred_text_first_and_end_where_their_model_did():
    found = continuations(written([['a'], ['b']], [['c'], ['d']]), Settings(HOW), None)
    assert found['text'].tolist() == [['p a', 'p c'], ['q b', 'q d']]
    assert found['labels'].tolist() == [[1, 0], [1, 0]]
    found = continuations(written([['a'], ['b']], [['c'], ['d']], ended=True), Settings(HOW), None)
    assert found['text'].tolist() == [['p a.', 'p c.'], ['q b.', 'q d.']]


def test_equal_and_empty_texts_are_left_out_unless_all_are_asked_for():
    columns = written([['a', 'x', ''], ['b', 'c', ' ']], [['a', 'y', 'z'], ['d', ' ', 'z']])
    assert continuations(columns, Settings(HOW), None)['text'].tolist() == [['p x', 'p y'], ['q b', 'q d']]
    every = continuations(columns, Settings(HOW | {'every': True}), None)
    assert every['text'].shape == (6, 2) and every['text'][2].tolist() == ['p', 'p z']


def test_nothing_to_learn_is_refused():
    with pytest.raises(DataError, match='2 pairs of texts that models wrote: all equal, or one of them empty'):
        continuations(written([['a'], ['']], [['a'], ['d']]), Settings(HOW), None)
    with pytest.raises(DataError, match='chosen: 2 texts for 1 prompts, expected as many'):
        continuations(written([['a'], ['']], [['a'], ['d']]) | {'prompts/text': np.array([['p']], object)},
                      Settings(HOW), None)


def test_the_best_and_the_worst_text_of_each_prompt():
    texts = {'texts/text': np.array([['a', 'b', 'c'], ['d', 'e', 'f']], object),
             'texts/ended': np.array([[True, False, False], [False, True, False]]),
             'scores/labels': np.array([[.5, .5], [.9, .1], [.2, .8], [.5, .5], [.4, .6], [.6, .4]])}
    best, worst = (ranked(texts, Settings(best=one), None) for one in (True, False))
    assert best['text'].tolist() == [['b'], ['f']] and worst['text'].tolist() == [['c'], ['e']]
    assert best['ended'].tolist() == [[False], [False]] and worst['ended'].tolist() == [[False], [True]]
    same = first({'text': texts['texts/text'], 'ended': texts['texts/ended']}, Settings(), None)
    assert same['text'].tolist() == [['a'] * 3, ['d'] * 3] and same['ended'].tolist() == [[True] * 3, [False] * 3]
