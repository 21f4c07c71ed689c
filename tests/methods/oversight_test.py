"""Debates in words: what is asked and heard, quotes, the plan, and a whole experiment."""
import json
import types

import numpy as np
import pytest
import tiny
from words import own, sentences

from w2s_jax import config as configs
from w2s_jax import evaluation
from w2s_jax.engine import experiment, plan, truth
from w2s_jax.errors import ConfigError
from w2s_jax.labels import transcripts
from w2s_jax.labels.texts import TABLES
from w2s_jax.registry import Settings
from w2s_jax.store.artifacts import Artifact

WORDS = ('no', 'yes')


def column(*texts):
    out = np.empty((len(texts), 1), object)
    out[:, 0] = texts
    return out


TEXTS = column('the sky is Blue', 'grass is green')
SAID = {'said0/text': column('it is  red', 'it is "blue"\nindeed', '"hay" and "is green"', 'so'),
        'said1/text': column('a', 'b', 'c', 'd')}


def table(name, columns, seed=0, **settings):
    entry = TABLES[name]
    chosen = {k: s.default for k, s in entry.settings.items()} | {'words': WORDS} | settings
    return entry.fn(columns, Settings(chosen), np.random.default_rng(seed))


def test_requests_begin_an_argument_for_either_answer_after_what_was_said():
    found = table('requests', {'text': TEXTS})['text'][:, 0]
    assert list(found[:2]) == [f'the sky is Blue\nThe answer is {word}, because' for word in WORDS]
    later = table('requests', {'texts/text': TEXTS, 'said0/text': SAID['said0/text']})['text'][:, 0]
    assert later[3].split('\n') == [
        'grass is green', 'Argument for no: "hay" (not in the text) and "is green"', 'Argument for yes: so',
        'The answer is yes, because']


def test_a_debate_is_heard_from_both_sides_in_an_order_that_is_drawn():
    columns = {'texts/text': TEXTS} | SAID
    found, other = (table('transcripts', columns, swapped=x) for x in (False, True))
    np.testing.assert_array_equal(found['first'], 1 - other['first'])
    lines = found['text'][0, 0].split('\n')
    first = found['first'][0]
    assert lines[0] == 'the sky is Blue' and len(lines) == 5
    assert lines[1 + first] == 'Argument for no: it is red' and lines[3 + first] == 'Argument for no: a'
    assert sorted(lines) == sorted(other['text'][0, 0].split('\n')) and lines != other['text'][0, 0].split('\n')
    np.testing.assert_array_equal(found['quotes'], [[1, 0], [1, 1]])


def test_a_consultancy_is_one_side_with_even_odds():
    many = np.tile(TEXTS, (200, 1))
    columns = {'texts/text': many, 'said0/text': np.tile(SAID['said0/text'], (200, 1))}
    found = table('transcripts', columns, protocol='consultancy')
    for side, text in zip(found['first'], found['text'][:, 0], strict=True):
        lines = text.split('\n')
        assert len(lines) == 2 and lines[1].startswith(f'Argument for {WORDS[side]}: ')
    assert .4 < found['first'].mean() < .6


@pytest.mark.parametrize(('speech', 'marked', 'counts'), [
    ('"the  SKY" it says', '"the  SKY" it says', (1, 0)), ('\u201cis blue\u201d', '\u201cis blue\u201d', (1, 0)),
    ('"is red", "sky"', '"is red" (not in the text), "sky"', (1, 1)), ('nothing', 'nothing', (0, 0)),
    ('"an open one', '"an open one', (0, 0))])
def test_quotes_that_are_not_in_the_text_are_marked(speech, marked, counts):
    assert transcripts.verified('the sky is Blue', speech) == (marked, counts)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('debate')
    tiny.folder(folder / 'tiny')
    (folder / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(120))))
    return folder


def config(folder, **changes):
    c = configs.compose(own(folder / 'tiny', folder / 'rows.jsonl', **{'method.name': 'oversight'}))
    keys = {'method.baselines': (), 'student.loss.name': 'xent', 'student.mode': 'probe', 'teacher.mode': 'probe',
            'task.max_length': 100, 'method.steps': 5, 'seeds': (0,),
            'method.template': '{text}:{answer} is', 'method.words': ('n', 'y')}
    c.update_from_flattened_dict(keys | changes)
    return c


def prepared(c):
    return plan.prepare(plan.ready(c), lambda *a: None)


def needs(phase, name):
    return truth.everyone(phase.needs[name])


def test_teachers_read_transcripts_and_students_do_not(folder):
    found = prepared(config(folder))
    judge, = [p for p in found.phases if p.kind == 'fit' and p.role == 'teacher']
    student = next(p for p in found.phases if p.role == 'student')
    heard = lambda phase, name: any(p.label.startswith('transcripts') for p in needs(phase, name))
    assert heard(judge, 'inputs') and heard(judge, 'predict/test')
    assert not heard(student, 'inputs') and not heard(student, 'predict/test')
    labels = student.needs['targets']
    assert heard(labels, 'inputs') and labels.needs['scale'] is judge.needs['scale']
    assert not np.isin(truth.learned(judge), truth.learned(student)).any()
    shown = next(p for p in found.phases if p.kind == 'evaluate').needs['test/test']
    assert shown.label == 'transcripts of the test'


def test_protocols_and_seeds_share_what_agents_say(folder):
    def speeches(**changes):
        return {p.id for p in prepared(config(folder, **changes)).phases if p.kind == 'generate'}
    one = speeches()
    assert one == speeches(**{'method.protocol': 'consultancy'}) == speeches(seeds=(0, 1)) and len(one) == 2
    assert len(speeches(**{'seeds': (0, 1), 'method.own_texts': True})) == 4
    assert one < speeches(**{'method.rounds': 2})


def test_a_judge_that_hears_nobody_is_the_teacher_of_naive(folder):
    direct = prepared(config(folder, **{'method.protocol': 'direct'}))
    plain = own(folder / 'tiny', folder / 'rows.jsonl', **{'method.name': 'naive'})
    same = {'method.baselines', 'student.loss.name', 'student.mode', 'teacher.mode', 'task.max_length', 'seeds'}
    mine = config(folder)
    plain.update_from_flattened_dict({k: mine[k.split('.')[0]] if k == 'seeds' else mine[k.split('.')[0]][
        k.split('.')[1]] if k.count('.') == 1 else mine.student.loss.name for k in same})
    ids = lambda found: {p.id for p in found.phases if p.kind in ('fit', 'predict')}
    assert ids(direct) == ids(prepared(plain))


def test_examples_are_rows_of_what_stands_for_the_test_set():
    said = {'weak': {'top': np.zeros((3, 1), int)}, 'xent': {'top': np.ones((3, 1), int)}}
    rows = types.SimpleNamespace(arrays={'text': np.array([['a'], ['b'], ['c']], object)})
    found = evaluation.examples(said, np.ones(3, int), rows, lambda inputs, answers: str(inputs['text'][0]), 3)
    assert sorted(row['html'] for row in found) == ['a', 'b']


@pytest.mark.long
def test_an_experiment(folder, tmp_path):
    results = experiment.run(config(folder, **{'method.rounds': 2, 'report.html': True}), tmp_path)
    assert results['students'][0]['method'] == 'oversight' and 0 <= results['weak']['accuracy']['mean'] <= 1
    found = [Artifact(p) for p in (tmp_path / 'store').glob('table-*')]
    text = next(a for a in found if 'quotes' in a.arrays and len(a.arrays['text']) == 96).arrays['text']
    assert all(row[0].count('\nArgument for ') == 4 for row in text)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'method.words': ('a',)}, r"method\.words: \('a',\) for 2 classes, expected two words"),
    ({'method.words': ('a', 'a')}, r'method\.words'),
    ({'method.template': '{answer} {text}'}, r'method\.template: .* and \{answer\} once behind it'),
    ({'method.protocol': 'duel'}, r"method\.protocol: unknown 'duel'"),
    ({'method.steps': 500}, r'method\.steps: 500')])
def test_bad_settings_are_refused(folder, changes, words):
    with pytest.raises(ConfigError, match=words):
        prepared(config(folder, **changes))
