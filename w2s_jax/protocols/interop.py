"""Transcripts of texts as evaluation logs of Inspect (github.com/UKGovernmentBEIS/inspect_ai, log/_log.py) in JSON,
format VERSION, and back: without Inspect, which is an optional extra (`inspect`) that a test alone imports.

A transcript of texts is a dict: `question` a text; `claims` two of them; `messages`, a list of {'seat', 'side', 'text'}
(registry.Transcript says what seats and sides are); `verdict`, the judge's two probabilities; perhaps `right`, which
claim is. Other keys of it and of its messages are carried along, as far as JSON has their values.
"""
import json
import math
import pathlib
from typing import Any

from w2s_jax.errors import DataError
from w2s_jax.protocols.registry import JUDGE, NOBODY

VERSION = 2  # Inspect's LOG_SCHEMA_VERSION since its .41; later ones it refuses itself
LETTERS, OURS, SCORER = 'AB', 'w2s_jax', 'judge'
EVEN = .5


def log(transcripts: list[dict], task: str, model: str, created: str) -> dict[str, Any]:
    """An EvalLog of Inspect.

    Args:
      transcripts: see above.
      task: what was asked, as `debate`.
      model: who argued and judged, as `w2s_jax/smollm2`.
      created: when, as `2026-11-28T12:00:00+00:00`.

    Each transcript is a sample of multiple choice; agents are assistants, what they said for whom stands in their
    messages' metadata, the verdict in the score's: C, I, or P where both claims are as probable, if it is known which
    is right. Raises DataError for a transcript that is none.
    """
    samples = [sample(checked(x, f'transcripts[{i}]'), i + 1, model) for i, x in enumerate(transcripts)]
    spec = {'run_id': OURS, 'created': created, 'task': task, 'task_id': task, 'task_version': 0, 'model': model,
            'dataset': {'name': task, 'samples': len(samples), 'shuffled': False}, 'config': {},
            'metadata': {OURS: 'transcripts'}}
    found = {'version': VERSION, 'status': 'success', 'eval': spec,
             'plan': {'name': 'plan', 'steps': [{'solver': task, 'params': {}}], 'config': {}},
             'stats': {'started_at': created, 'completed_at': created, 'model_usage': {}}, 'samples': samples}
    return found | ({'results': results(samples)} if samples and all(x['target'] for x in samples) else {})


def transcripts(found: dict[str, Any], name: str = 'log') -> list[dict]:
    """Those in an EvalLog that `log` has made, also after Inspect has read and written it.

    Raises DataError for another version of the format, and for what is missing, by its place after `name`.
    """
    version = found.get('version') if isinstance(found, dict) else None
    if version != VERSION or isinstance(version, bool):
        raise DataError(f"{name}.version: {version!r}, expected {VERSION} of Inspect's log format")
    samples = found.get('samples')
    if not isinstance(samples, list):
        raise DataError(f'{name}.samples: {type(samples).__name__}, expected a list of samples')
    return [transcript(x, f'{name}.samples[{i}]') for i, x in enumerate(samples)]


def write(path: str | pathlib.Path, found: dict[str, Any]) -> None:
    """The log as a file of JSON, whose name should end with .json, as Inspect goes by that."""
    pathlib.Path(path).write_text(json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + '\n', 'utf-8')


def read(path: str | pathlib.Path) -> list[dict]:
    """The transcripts in a log's file. Raises DataError for a file that is no JSON, as Inspect's .eval is not."""
    try:
        found = json.loads(pathlib.Path(path).read_text('utf-8'))
    except ValueError:  # of JSON and of UTF-8
        raise DataError(f"{path}: no JSON, expected Inspect's log in JSON (`inspect log convert --to json`)") from None
    return transcripts(found, str(path))


def sample(x: dict, number: int, model: str) -> dict[str, Any]:
    """An EvalSample of a checked transcript."""
    first, second = x['claims']
    asked = {'role': 'user', 'source': 'input', 'id': f'{number}/0',
             'content': f'{x["question"]}\n\nA) {first}\nB) {second}'}
    answer = answered(x['verdict'])
    judged = {'role': 'assistant', 'source': 'generate', 'id': f'{number}/verdict', 'content': answer}
    metadata = {k: v for k, v in x.items() if k not in ('question', 'claims', 'messages', 'verdict')}
    return {'id': number, 'epoch': 1, 'input': x['question'], 'choices': list(x['claims']),
            'target': LETTERS[x['right']] if 'right' in x else '',
            'messages': [asked, *(message(m, f'{number}/{i}') for i, m in enumerate(x['messages'], 1))],
            'output': {'model': model, 'choices': [{'message': judged, 'stop_reason': 'stop'}]},
            'scores': {SCORER: {'value': value(x), 'answer': answer, 'metadata': {'verdict': list(x['verdict'])}}},
            'metadata': {OURS: metadata}}


def answered(verdict: list) -> str:
    """The letter of the claim that is more probable; nothing if neither is."""
    return '' if verdict[0] == verdict[1] else LETTERS[int(verdict[1] > verdict[0])]


def value(x: dict) -> str | list:
    """The score: a letter of Inspect's; the verdict itself where the right claim is not known."""
    if 'right' not in x:
        return list(x['verdict'])
    answer = answered(x['verdict'])
    return 'P' if not answer else 'C' if answer == LETTERS[x['right']] else 'I'


def message(m: dict, name: str) -> dict[str, Any]:
    """A ChatMessage: of an agent, or of a judge who asks."""
    who = {'role': 'user'} if m['seat'] == JUDGE else {'role': 'assistant', 'source': 'generate'}
    # As a part: out of an assistant's plain text Inspect takes what lies between <think> and </think>.
    return who | {'id': name, 'content': [{'type': 'text', 'text': m['text']}],
                  'metadata': {OURS: {k: v for k, v in m.items() if k != 'text'}}}


def results(samples: list[dict]) -> dict[str, Any]:
    """EvalResults: the judge's accuracy."""
    worth = {'C': 1., 'P': EVEN, 'I': 0.}
    accuracy = sum(worth[x['scores'][SCORER]['value']] for x in samples) / len(samples)
    metric = {'name': 'accuracy', 'value': accuracy, 'params': {}}
    return {'total_samples': len(samples), 'completed_samples': len(samples),
            'scores': [{'name': SCORER, 'scorer': SCORER, 'params': {}, 'metrics': {'accuracy': metric}}]}


def transcript(x: Any, name: str) -> dict[str, Any]:
    """Of an EvalSample."""
    said = [m for m in inside(x, name, 'messages', kind=list) if not isinstance(m, dict) or m.get('source') != 'input']
    messages = [inside(m, f'{name}.messages', 'metadata', OURS) | {'text': text(m, f'{name}.messages')} for m in said]
    found = {'question': inside(x, name, 'input', kind=str), 'claims': inside(x, name, 'choices', kind=list),
             'messages': messages, 'verdict': inside(x, name, 'scores', SCORER, 'metadata', 'verdict', kind=list)}
    return checked(found | inside(x, name, 'metadata', OURS), name)


def text(m: dict, name: str) -> str:
    """What a message says; Inspect cuts some into parts."""
    content = m.get('content')
    if isinstance(content, list) and all(isinstance(c, dict) and c.get('type') == 'text' for c in content):
        return '\n'.join(inside(c, f'{name}.content', 'text', kind=str) for c in content)
    if not isinstance(content, str):
        raise DataError(f'{name}.content: {type(content).__name__}, expected a text, or parts that are texts')
    return content


def inside(x: Any, name: str, *path: str, kind: type = dict) -> Any:
    """What lies there, of that kind. Raises DataError."""
    for key in path:
        if not isinstance(x, dict) or key not in x:
            raise DataError(f'{name}.{".".join(path)}: missing, expected a log of transcripts by {OURS}')
        x = x[key]
    if not isinstance(x, kind):
        raise DataError(f'{name}.{".".join(path)}: {type(x).__name__}, expected {kind.__name__}')
    return x


def checked(x: Any, name: str) -> dict[str, Any]:
    """The transcript as it is. Raises DataError in one line for the first thing that is wrong with it."""
    inside(x, name, 'question', kind=str)
    for key, kind in (('claims', str), ('verdict', float), ('messages', dict)):
        each = inside(x, name, key, kind=list)
        if (key != 'messages' and len(each) != 2) or not all(isinstance(v, kind) for v in each):
            raise DataError(f'{name}.{key}: {each!r}, expected {"" if key == "messages" else "two "}{kind.__name__}s')
    if not all(math.isfinite(p) and 0 <= p <= 1 for p in x['verdict']):
        raise DataError(f'{name}.verdict: {x["verdict"]}, expected two probabilities')
    if 'right' in x and not whole(x['right'], 0, 1):
        raise DataError(f'{name}.right: {x["right"]!r}, expected 0 or 1')
    for i, m in enumerate(x['messages']):
        inside(m, f'{name}.messages[{i}]', 'text', kind=str)
        for key, low, high in (('seat', 0, JUDGE), ('side', NOBODY, 1)):
            if not whole(m.get(key), low, high):
                raise DataError(f'{name}.messages[{i}].{key}: {m.get(key)!r}, expected {low} to {high}')
    return x


def whole(x: Any, low: int, high: int) -> bool:
    """Whether that is a whole number in the range."""
    return isinstance(x, int) and not isinstance(x, bool) and low <= x <= high
