"""Texts that models write: kill and resume, what a tokenizer makes of them, plans and whole experiments of ConG."""
import io
import json
import types

import numpy as np
import pytest
import tiny
import tokenizers
from policy_test import artifacts, config, pairs, prepared

from w2s_jax import config as configs
from w2s_jax import sampling
from w2s_jax.engine import experiment, truth
from w2s_jax.errors import ConfigError
from w2s_jax.models import tokens
from w2s_jax.phases import generate


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cong')
    tiny.folder(folder / 'tiny')
    (folder / 'pairs.jsonl').write_text('\n'.join(map(json.dumps, pairs(80))))
    return folder


def cong(folder, **changes):
    c = config(folder)
    c.method.name = 'cong'
    c = configs.compose(c)
    c.update_from_flattened_dict({'method.steps': 6, 'method.judged': 8, 'seeds': (0,), 'train.epochs': 1,
                                  'method.tuning_epochs': 1, **changes})
    return c


def prompts():
    tokens = np.random.default_rng(0).integers(3, 20, (7, 9)).astype(np.int32)
    return tokens, np.array([9, 3, 5, 9, 2, 7, 4], np.int32)


def drawn(folder, generate_texts, part, monkeypatch, size=4):
    monkeypatch.setattr(generate, 'PART', part)
    rows, length = prompts()
    context = types.SimpleNamespace(execution=types.SimpleNamespace(eval_batch_size=size))
    section = {'samples': 2, 'hyper': {'seed': 3}}
    return generate.drawn(rows, length, generate_texts, section, context, folder, lambda *a: None)


def test_a_killed_phase_goes_on_with_the_same_bits(folder, tmp_path, monkeypatch):
    program, params = sampling.opened(folder / 'tiny')

    def write(tokens, length, keys):
        return program(params, tokens, length, keys, steps=5, pick=sampling.Pick())
    whole = drawn(tmp_path / 'whole', write, 1, monkeypatch)
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*args)
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path / 'killed', killed, 1, monkeypatch)
    assert len(list((tmp_path / 'killed').glob('*.npz'))) == 2
    again = drawn(tmp_path / 'killed', killed, 1, monkeypatch)
    assert len(calls) == 5  # two before, one that was killed, two after
    for name, value in whole.items():
        np.testing.assert_array_equal(again[name], value)
    other = drawn(tmp_path / 'killed', write, 1, monkeypatch, size=3)
    np.testing.assert_array_equal(other['tokens'], whole['tokens'])  # parts of other batches are not taken for these
    keys = generate.row_keys(3, np.array([4]), np.array([1]))
    alone = write(*(x[4:5] for x in prompts()), keys)
    np.testing.assert_array_equal(alone.tokens[0], whole['tokens'][4, 1])
    assert whole['tokens'].shape == (7, 2, 5) and len(np.unique(whole['tokens'][:, 0] - whole['tokens'][:, 1])) > 1


def test_a_space_before_a_text_is_kept():
    """A tokenizer of words with their spaces takes the first of a text's off, also where the text goes on another."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({'▁a': 0, '▁b': 1, '?': 2}, '?'))
    backend.decoder = tokenizers.decoders.Metaspace()
    found = tokens.continued(tokens.Tokenizer(backend, ''), [[0], [0, 1]], [[[1, 0], [1]], [[0], []]])
    assert found == [[' b a', ' b'], [' a', '']]


def test_texts_end_before_a_string_that_cuts_them():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({'a': 0, 'b': 1, 'c': 2}, 'c'))
    found = {'tokens': np.array([[[0, 1, 2]], [[0, 0, 0]]]), 'length': np.array([[3], [3]]),
             'stopped': np.array([[False], [False]])}
    asked = {'tokens': np.array([[[0]], [[0]]]), 'length': np.array([[1], [1]])}
    out = generate.written(tokens.Tokenizer(backend, ''), asked, found, ('b',))
    assert out['text'][0, 0].strip() == 'a' and out['ended'].tolist() == [[True], [False]]


def test_a_grid_over_beta_writes_its_texts_once(folder):
    def of(**changes):
        plan = prepared(cong(folder, **changes))
        return {p.label: p.id for p in plan.phases if p.kind == 'generate'}
    one, two, other = of(), of(**{'method.beta': .3}), of(**{'method.alpha': .7})
    assert len(one) > 4
    same = {label for label in one if one[label] == two[label]}
    assert same == set(one) - {'texts of ConG'}
    assert one['contrastive texts'] != other['contrastive texts']
    assert one['texts of the aligned weak model'] == other['texts of the aligned weak model']


def test_students_learn_from_prompts_of_their_own_half(folder):
    plan = prepared(cong(folder))
    student = next(p for p in plan.phases if p.label == 'student ConG')
    found = truth.learned(student)
    teacher = next(p for p in plan.phases if p.label == 'weak, aligned')
    assert len(found) and not np.isin(found, truth.learned(teacher)).any()


def test_the_reference_of_a_student_is_what_it_goes_on_from(folder):
    student = next(p for p in prepared(cong(folder)).phases if p.label == 'student ConG')
    assert student.needs['inputs'].needs['model'] is student.needs['start']


@pytest.mark.parametrize(('changes', 'words'), [
    ({'method.stops': ('ab',)}, r"method\.stops: 'ab' is 2 tokens of this tokenizer, expected one"),
    ({'method.sampling_temperature': 0., 'method.top_p': .5}, r'method\.sampling_temperature: 0 takes the most'),
    ({'method.steps': 10**5}, r'method\.steps: 100000, but .* was made for \d+ tokens'),
    ({'task.chat': True}, r"task\.chat: 'tiny' has no chat template")])
def test_bad_settings_are_one_line(folder, changes, words):
    with pytest.raises(ConfigError, match=words):
        prepared(cong(folder, **changes))


@pytest.mark.long
def test_a_whole_experiment(folder, tmp_path):
    experiment.run(cong(folder), tmp_path, io.StringIO())
    found = json.loads((tmp_path / 'results.json').read_text())
    rows = {s['label']: s['measures'] for s in found['students']}
    assert set(rows) == {'dpo', 'weak SFT', 'ConG-S', 'ConG'}
    for measures in rows.values():
        assert 0 < measures['preferred']['mean'] < 1 and len(measures['preferred']['seeds']) == 1
    texts = artifacts(tmp_path, 'generate')
    assert texts and all(a.arrays['text'].shape == a.arrays['length'].shape for a in texts)
    again = experiment.run(cong(folder), tmp_path, io.StringIO())
    assert again == found or json.loads((tmp_path / 'results.json').read_text())['students'] == found['students']
