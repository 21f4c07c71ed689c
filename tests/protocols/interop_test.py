"""Transcripts of texts as Inspect's logs: there and back exactly, and what is none is refused in one line."""
import copy
import json

import pytest

from w2s_jax.errors import DataError
from w2s_jax.protocols import interop

CREATED = '2026-11-28T12:00:00+00:00'
TALK = [{'question': 'Which is it?\n\nA) no claim', 'claims': ['a "seven"', 'ein <b>Neuner</b> ☃'],
         'messages': [{'seat': 0, 'side': 0, 'text': '<think>hidden</think>It is a seven.', 'judge': [.1 + .2, 2 / 3]},
                      {'seat': 2, 'side': -1, 'text': 'Why?'}, {'seat': 1, 'side': 1, 'text': ''}],
         'verdict': [1 / 3, 1 - 1 / 3], 'right': 1, 'protocol': 'debate', 'passage': None},
        {'question': '', 'claims': ['x', 'y'], 'messages': [], 'verdict': [.5, .5], 'right': 0},
        {'question': 'z', 'claims': ['x', 'y'], 'messages': [], 'verdict': [.9, .1], 'right': 1}]


def made(talk=TALK):
    return interop.log(copy.deepcopy(talk), 'debate', 'w2s_jax/toy', CREATED)


def test_there_and_back_through_a_file_is_exact(tmp_path):
    before = copy.deepcopy(TALK)
    interop.write(tmp_path / 'a.json', interop.log(TALK, 'debate', 'w2s_jax/toy', CREATED))
    assert interop.read(tmp_path / 'a.json') == TALK == before
    interop.write(tmp_path / 'none.json', made([]))
    assert interop.read(tmp_path / 'none.json') == []


def test_what_an_evaluator_reads():
    found = made()
    assert [x['scores']['judge']['value'] for x in found['samples']] == ['C', 'P', 'I']
    assert [x['target'] for x in found['samples']] == ['B', 'A', 'B']
    assert found['results']['scores'][0]['metrics']['accuracy']['value'] == .5
    assert [m['role'] for m in found['samples'][0]['messages']] == ['user', 'assistant', 'user', 'assistant']
    ids = [m['id'] for x in found['samples'] for m in [*x['messages'], x['output']['choices'][0]['message']]]
    assert len(set(ids)) == len(ids) == 9  # some versions take messages of one id, or of none, for the same
    assert found['samples'][0]['messages'][1]['content'] == [{'type': 'text', 'text': TALK[0]['messages'][0]['text']}]
    assert [x['id'] for x in found['samples']] == [1, 2, 3] and found['version'] == 2


def test_who_does_not_know_the_right_claim_has_no_accuracy():
    talk = [{k: v for k, v in TALK[0].items() if k != 'right'}, TALK[1]]
    found = made(talk)
    assert 'results' not in found and found['samples'][0]['scores']['judge']['value'] == talk[0]['verdict']
    assert interop.transcripts(found) == talk


@pytest.mark.parametrize('version', [1, 3, None, '2', True])
def test_another_version_is_refused(version):
    with pytest.raises(DataError, match=r"log.version: .*, expected 2 of Inspect's log format") as said:
        interop.transcripts(made() | {'version': version})
    assert '\n' not in str(said.value)


def test_a_log_in_parts_as_inspect_writes_some_is_read():
    found = made()
    found['samples'][0]['messages'][1]['content'] = 'It is a seven.'
    found['samples'][0]['messages'][2]['content'] = [{'type': 'text', 'text': 'Why'}, {'type': 'text', 'text': 'not?'}]
    assert [m['text'] for m in interop.transcripts(found)[0]['messages']] == ['It is a seven.', 'Why\nnot?', '']


@pytest.mark.parametrize(('change', 'said'), [
    (lambda x: x.pop('samples'), r'log.samples: NoneType, expected a list'),
    (lambda x: x['samples'][1].pop('scores'), r'log.samples\[1\].scores.judge.metadata.verdict: missing'),
    (lambda x: x['samples'][0]['messages'][1].pop('metadata'), r'log.samples\[0\].messages.metadata.w2s_jax: missing'),
    (lambda x: x['samples'][0]['messages'][1].update(content=[{'type': 'image', 'image': 'x'}]),
     r'messages.content: list, expected a text'),
    (lambda x: x['samples'].insert(0, 3), r'log.samples\[0\].messages: missing')])
def test_a_log_of_something_else_is_refused(change, said):
    found = made()
    change(found)
    with pytest.raises(DataError, match=said):
        interop.transcripts(found)


@pytest.mark.parametrize(('changed', 'said'), [
    ({'claims': ['x']}, 'claims: .*expected two strs'), ({'verdict': [.5, float('nan')]}, 'expected two probabilities'),
    ({'verdict': [1.5, -.5]}, 'expected two probabilities'), ({'verdict': [1, 0]}, 'expected two floats'),
    ({'right': 2}, 'right: 2, expected 0 or 1'), ({'right': True}, 'expected 0 or 1'),
    ({'question': 3}, 'expected str'),
    ({'messages': [{'seat': 0, 'side': 5, 'text': ''}]}, r'messages\[0\].side: 5, expected -1 to 1'),
    ({'messages': [{'seat': 3, 'side': 0, 'text': ''}]}, r'messages\[0\].seat: 3, expected 0 to 2'),
    ({'messages': [{'seat': 0, 'side': 0}]}, r'transcripts\[0\].messages\[0\].text: missing')])
def test_what_is_no_transcript_is_refused_in_one_line(changed, said):
    with pytest.raises(DataError, match=said) as error:
        made([TALK[1] | changed])
    assert '\n' not in str(error.value)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / 'a.eval').write_bytes(b'PK\x03\x04\xff')
    with pytest.raises(DataError, match=r"no JSON, expected Inspect's log in JSON"):
        interop.read(tmp_path / 'a.eval')


def test_inspect_reads_it_and_what_it_writes_is_read(tmp_path):
    """Where the extra `inspect` is installed."""
    pytest.importorskip('inspect_ai')
    from inspect_ai.log import read_eval_log, write_eval_log
    interop.write(tmp_path / 'a.json', made())
    read = read_eval_log(str(tmp_path / 'a.json'))
    assert read.results.scores[0].metrics['accuracy'].value == .5
    assert read.samples[0].scores['judge'].value == 'C' and read.samples[0].choices == TALK[0]['claims']
    write_eval_log(read, str(tmp_path / 'b.json'))
    assert interop.read(tmp_path / 'b.json') == TALK
    assert json.loads((tmp_path / 'b.json').read_text())['status'] == 'success'
