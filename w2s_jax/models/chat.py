"""Conversations in a model's own chat template: text in, text out.

A conversation is written as in the published preference data: turns "Human: ..." and "Assistant: ..." (also "System:
..."), each after an empty line but the first. Any other text is what one user says.
"""
import re
from collections.abc import Callable

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.text import digest

ROLES = {'Human': 'user', 'Assistant': 'assistant', 'System': 'system'}
_TURN = re.compile(r'(?:\A|\n\n)(Human|Assistant|System):[ \t]*')


def identity(name: str, template: str) -> str:
    """The digest of a chat template, for ids. Raises ConfigError for a model that has none. name: the model's."""
    if not template:
        raise ConfigError(f'task.chat: {name!r} has no chat template, expected a model with one, or False')
    return digest({'template': template})


def messages(text: str) -> list[dict[str, str]]:
    """`[{'role': user, assistant or system, 'content': ...}]` of a conversation."""
    _, *parts = _TURN.split(text.strip())
    if not _TURN.match(text.strip()):
        return [{'role': 'user', 'content': text.strip()}]
    return [{'role': ROLES[who], 'content': said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]


def rendered(render: Callable, count: Callable[[str], int], text: str, most: int, answered: bool) -> str:
    """A conversation in a template; where it is too long, without its oldest turns.

    Args:
      render: (messages, add_generation_prompt) -> text.  count: tokens of a text.  most: tokens that there may be.
      answered: whether it must end with an answer, which is learned; else an answer is to follow.
    Raises DataError for an empty answer, and if the last exchange alone is longer than that.
    """
    said = messages(text)
    if said[-1]['role'] == 'assistant' and not said[-1]['content']:
        said = said[:-1]
    open_end = not said or said[-1]['role'] != 'assistant'
    if not said or (answered and open_end):
        raise DataError(f'{"an empty answer" if answered else "an empty prompt"}: {text[-60:]!r}, expected some text')
    while True:
        whole = render(said, add_generation_prompt=open_end)
        if count(whole) <= most:
            return whole
        older = [i for i, m in enumerate(said[:-1]) if m['role'] == 'user'][1:]
        if not older:
            raise DataError(f'{count(whole)} tokens in its chat template, expected at most {most} (task.max_length)')
        said = [m for m in said[:1] if m['role'] == 'system'] + said[older[0]:]
