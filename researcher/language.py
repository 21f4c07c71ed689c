"""What a language model is asked, how, and what of its reply counts. Nothing of the reply is executed here."""
import json
import os
import re
import shlex
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping

from researcher import space as spaces
from researcher.space import Delta, Space
from w2s_jax.api import ConfigError, UserError

SHOWN, MOST = 20, 1 << 16  # entries of the history, bytes of a reply


class ReplyError(UserError):
    """A language model that gave no reply, or one that is no proposal."""


def prompt(space: Space, history: list[dict], python: int = 0) -> str:
    """The question, as text: fields, what was answered (best first), and what to reply."""
    tried = '\n'.join(json.dumps({k: e.get(k) for k in ('delta', 'answer', 'improved')}) for e in history[:SHOWN])
    code = (f'Or reply with an idea of at most {python} lines in a block ```python ... ``` that registers a loss, '
            'objective, label transform, method or stopping rule.\n') if python else ''
    return (
        'You look for a better way to train a strong model on labels of a weak one. The score is the performance gap '
        'recovered: 0 is as good as the weak model, 1 as good as training on the truth.\n'
        'An answer is the score of the best proposal so far, by rows you do not see; "improved" says whether the '
        'proposal became the best. Differences within noise are no improvement.\n\n'
        f'Fields, each a list of choices or a range:\n{json.dumps(space, indent=1)}\n\n'
        f'Proposals so far, the best first:\n{tried or "none"}\n\n'
        f'Reply with one JSON object that has a value for every field, and nothing after it.\n{code}')


def reply(text: str, settings: Mapping) -> str:
    """What the command or the endpoint of the settings says to a prompt. Raises ConfigError if neither or both are
    set, ReplyError if none comes in time."""
    if bool(settings['command']) == bool(settings['url']):
        raise ConfigError('driver language_model: expected either command or url; it is off without')
    return _of_command(text, settings) if settings['command'] else _of_endpoint(text, settings)


def proposal(text: str, space: Space, python: int = 0) -> Delta:
    """The last JSON object of a reply, checked against the space; or {'python': source} of its last block of code,
    where that is allowed. Raises ReplyError."""
    if python and (blocks := re.findall(r'```python\n(.*?)```', text, re.DOTALL)):
        if (lines := len(blocks[-1].splitlines())) > python:
            raise ReplyError(f'reply: an idea of {lines} lines, expected at most {python}')
        return {'python': blocks[-1]}
    found = None
    for start in (m.start() for m in re.finditer(r'\{', text)):
        try:
            found, _ = json.JSONDecoder().raw_decode(text[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and {*found} & {*space}:
            break
    if not isinstance(found, dict):
        raise ReplyError(f'reply: {text.strip()[:80]!r}, expected a JSON object')
    try:
        return spaces.check_delta(space, found)
    except ConfigError as e:
        raise ReplyError(f'reply: {e}') from None


def _of_command(text: str, settings: Mapping) -> str:
    with tempfile.TemporaryFile() as out:  # not memory: it may write without end until its time is up
        try:
            done = subprocess.run(shlex.split(settings['command']), input=text.encode(), stdout=out,
                                  stderr=subprocess.PIPE, timeout=settings['seconds'], check=False)
        except subprocess.TimeoutExpired:
            raise ReplyError(f'command: no end after {settings["seconds"]:g} s, expected a reply') from None
        except (OSError, ValueError) as e:
            raise ReplyError(f'command: {settings["command"]!r} cannot be run ({e})') from None
        if done.returncode:
            raise ReplyError(f'command: ended with {done.returncode} ({done.stderr.decode(errors="replace")[-200:]})')
        out.seek(0)
        return out.read(MOST).decode(errors='replace')


def _of_endpoint(text: str, settings: Mapping) -> str:
    """Of /chat/completions."""
    if not settings['url'].startswith(('http://', 'https://')):
        raise ConfigError(f'url: {settings["url"]!r}, expected http:// or https://')
    headers = {'Content-Type': 'application/json'}
    if settings['key_variable']:
        if settings['key_variable'] not in os.environ:
            raise ConfigError(f'key_variable: {settings["key_variable"]} is not set, expected the key of the endpoint')
        headers['Authorization'] = f'Bearer {os.environ[settings["key_variable"]]}'
    body = json.dumps({'model': settings['model'], 'messages': [{'role': 'user', 'content': text}]}).encode()
    request = urllib.request.Request(settings['url'].rstrip('/') + '/chat/completions', body, headers)
    try:
        with urllib.request.urlopen(request, timeout=settings['seconds']) as answer:
            return str(json.loads(answer.read(16 * MOST))['choices'][0]['message']['content'])[:MOST]
    except (urllib.error.URLError, OSError, ValueError) as e:
        raise ReplyError(f'url: {settings["url"]}: {e}, expected a reply') from None
    except (KeyError, IndexError, TypeError):
        raise ReplyError(f'url: {settings["url"]}: no choices[0].message.content, expected it in the reply') from None
