"""Conversations in a chat template."""
import re

import pytest

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.models import chat

TALK = 'Human: hello\n\nAssistant: hi\n\nHuman: how are\nyou?\n\nAssistant: fine'


def render(messages, add_generation_prompt):
    return ''.join(f'<{m["role"]}>{m["content"]}' for m in messages) + '<assistant>' * add_generation_prompt


def words(text):
    return len(re.findall(r'<|\w+', text))


@pytest.mark.parametrize(('text', 'expected'), [
    (TALK, [('user', 'hello'), ('assistant', 'hi'), ('user', 'how are\nyou?'), ('assistant', 'fine')]),
    ('\n\nHuman: a\n\nAssistant:', [('user', 'a'), ('assistant', '')]),
    ('\n\nSystem: be kind\n\nHuman: a', [('system', 'be kind'), ('user', 'a')]),
    ('just a text. Human: not a turn', [('user', 'just a text. Human: not a turn')])])
def test_turns_of_a_transcript(text, expected):
    assert [(m['role'], m['content']) for m in chat.messages(text)] == expected


def test_an_answer_is_closed_and_a_prompt_is_open():
    assert chat.rendered(render, words, TALK, 99, True).endswith('<assistant>fine')
    assert chat.rendered(render, words, 'Human: a\n\nAssistant:', 99, False) == '<user>a<assistant>'
    assert chat.rendered(render, words, 'a text', 99, False) == '<user>a text<assistant>'


def test_the_oldest_turns_go_first_and_what_the_system_said_stays():
    text = '\n\nSystem: s\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: four'
    whole = chat.rendered(render, words, text, 99, True)
    assert whole == '<system>s<user>one<assistant>two<user>three<assistant>four'
    assert chat.rendered(render, words, text, words(whole) - 1, True) == '<system>s<user>three<assistant>four'


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(DataError, match='an empty answer'):
        chat.rendered(render, words, 'Human: a\n\nAssistant:', 99, True)
    assert chat.rendered(render, words, 'Human: a\n\nAssistant:', 99, False) == '<user>a<assistant>'  # for a judge
    with pytest.raises(DataError, match='an empty prompt'):
        chat.rendered(render, words, 'Assistant:', 99, False)
    with pytest.raises(DataError, match=r'tokens in its chat template, expected at most 3 \(task\.max_length\)'):
        chat.rendered(render, words, TALK, 3, True)
    with pytest.raises(ConfigError, match='no chat template'):
        chat.identity('some', '')


def test_another_template_is_another_id():
    assert chat.identity('m', 'a') != chat.identity('m', 'b')
