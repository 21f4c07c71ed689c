import gzip
import json
import pathlib

import numpy as np
import pytest
import sections

from w2s_jax import data
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import TASKS

ASSETS = pathlib.Path(__file__).parents[3] / 'shared' / 'assets' / 'data'


def write(path, rows) -> str:
    path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
    return str(path)


def load(tmp_path, rows, name='preference', log=lambda line: None, **fields):
    return TASKS[name].fn(sections.task(name, path=write(tmp_path / 'pairs.jsonl', rows), **fields), log=log)


def transcripts(n: int) -> list[dict]:
    """As published: two turns, in which the second answer differs; three pairs begin with the same words."""
    start = '\n\nHuman: Question {}?\n\nAssistant: Yes.\n\nHuman: Really, {}?\n\nAssistant: '
    return [{'chosen': start.format(i // 3, i) + f'Good {i}.', 'rejected': start.format(i // 3, i) + f'Poor {i}.'}
            for i in range(n)]


def prompted(n: int) -> list[dict]:
    return [{'prompt': f'Question {i // 2}?', 'chosen': f'Good {i}.', 'rejected': f'Poor {i}.'} for i in range(n)]


@pytest.mark.parametrize('name, rows', [('anthropic_hh', transcripts(300)), ('preference', prompted(300)),
                                        ('preference', transcripts(300))])
def test_pairs(tmp_path, name, rows):
    d = load(tmp_path, rows, name)
    assert d.num_classes == 2 and d.truncate == 'start'
    for part in (d.pool, d.test):
        assert part.inputs['text'].shape == (len(part), 2)
        assert np.ptp(np.bincount(part.truth)) == 0
        for pair, truth in zip(part.inputs['text'], part.truth, strict=True):
            assert 'Good' in pair[truth] and 'Poor' in pair[1 - truth]
            assert pair[0].replace('Good', 'Poor') == pair[1].replace('Good', 'Poor')
        shared = [p[0].split('?')[0] for p in part.inputs['text']]
        assert len(set(zip(shared, part.group.tolist(), strict=True))) == len(set(shared)) == len(set(part.group))
    assert not set(d.pool.group) & set(d.test.group)
    a, b = data.split_groups(d.pool.group, 0.5, seed=0)
    assert not set(d.pool.group[a]) & set(d.pool.group[b])


def test_the_text_of_a_pair(tmp_path):
    d = load(tmp_path, prompted(60))
    text, number = d.pool.inputs['text'][0, d.pool.truth[0]], int(d.pool.inputs['text'][0, 0].split()[-1][:-1])
    assert text == f'Human: Question {number // 2}?\n\nAssistant: Good {number}.'
    d = load(tmp_path, prompted(60), template='{prompt} -> {completion}')
    assert d.pool.inputs['text'][0, d.pool.truth[0]].startswith('Question') and d.notes['template'].startswith('{pro')


def test_the_order_is_drawn_with_the_seed_and_knows_nothing_of_the_files(tmp_path):
    rows = transcripts(300)
    first, again, turned = (load(tmp_path, r, 'anthropic_hh') for r in (rows, rows, rows[::-1]))
    assert first.pool.inputs['text'][:].tolist() == again.pool.inputs['text'][:].tolist() \
        == turned.pool.inputs['text'][:].tolist()
    other = load(tmp_path, rows, 'anthropic_hh', seed=1)
    place = {tuple(sorted(p)): t for p, t in zip(first.pool.inputs['text'], first.pool.truth, strict=True)}
    same = [place[key] == t for p, t in zip(other.pool.inputs['text'], other.pool.truth, strict=True)
            if (key := tuple(sorted(p))) in place]
    assert 0.3 < np.mean(same) < 0.7


def test_identical_pairs_are_dropped_and_counted(tmp_path):
    rows = transcripts(90)
    for i in (3, 40):
        rows[i]['rejected'] = rows[i]['chosen']
    d = load(tmp_path, rows, 'anthropic_hh', max_bad_rows=0.0)
    assert d.notes['identical'] == 2 and d.notes['skipped'] == 0 and d.notes['rows'] == 88
    with pytest.raises(DataError, match='every pair is two identical texts'):
        load(tmp_path, [r | {'rejected': r['chosen']} for r in rows], 'anthropic_hh')


def test_published_files(tmp_path):
    for split, rows in (('train', transcripts(90)), ('test', transcripts(150)[90:])):
        with gzip.open(tmp_path / f'{split}.jsonl.gz', 'wt') as file:
            file.writelines(json.dumps(r) + '\n' for r in rows)
    d = TASKS['anthropic_hh'].fn(sections.task('anthropic_hh', path=str(tmp_path)), log=lambda line: None)
    assert d.notes['rows'] == 150 and len(d.test) > 40


def test_hub(monkeypatch):
    import datasets
    asked: list[tuple] = []

    def load_dataset(path, config, *, split, revision, data_dir):
        asked.append((path, config, split, revision, data_dir))
        return datasets.Dataset.from_list(transcripts(150)[:90] if split == 'train' else transcripts(150)[90:])
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    d = TASKS['anthropic_hh'].fn(sections.task('anthropic_hh'), log=lambda line: None)
    assert asked == [('Anthropic/hh-rlhf', None, s, None, None) for s in ('train', 'test')]
    assert len(d.test) > 40
    with pytest.raises(ConfigError, match=r'task.path: empty'):
        TASKS['preference'].fn(sections.task('preference'))


def test_chat_messages(tmp_path):
    def said(i, answer, prompt=True):
        return [{'role': 'user', 'content': f'Question {i}?'}] * prompt + [{'role': 'assistant', 'content': answer}]
    whole = [{'prompt': f'Question {i}?', 'chosen': said(i, 'Good.'), 'rejected': said(i, 'Poor.')} for i in range(60)]
    answers = [{'prompt': said(i, 'x')[:1], 'chosen': said(i, 'Good.', False), 'rejected': said(i, 'Poor.', False)}
               for i in range(60)]
    plain = [{'prompt': f'Question {i}?', 'chosen': 'Good.', 'rejected': 'Poor.'} for i in range(60)]
    texts = [set(map(tuple, map(sorted, np.concatenate([d.pool.inputs['text'], d.test.inputs['text']]))))
             for d in (load(tmp_path, rows) for rows in (whole, answers, plain))]
    made = {(f'Human: Question {i}?\n\nAssistant: Good.', f'Human: Question {i}?\n\nAssistant: Poor.')
            for i in range(60)}
    assert all(t and t <= made for t in texts)


@pytest.mark.parametrize('name, change, message', [
    ('anthropic_hh', {'chosen': ' '}, 'line 6: chosen is an empty text'),
    ('anthropic_hh', {'rejected': 3}, 'line 6: rejected is 3, expected a text'),
    ('anthropic_hh', {'rejected': 'Hello'}, 'line 6: rejected has no turn that starts with "Assistant:"'),
    ('preference', {'chosen': [{'role': 'cook', 'content': 'x'}]}, "line 6: chosen: role 'cook', expected one of user"),
    ('preference', {'chosen': ['x']}, "line 6: chosen: message 'x', expected an object"),
    ('preference', {'chosen': []}, 'line 6: chosen has no messages'),
])
def test_bad_rows(tmp_path, name, change, message):
    rows = transcripts(60)
    rows[5] |= change
    with pytest.raises(DataError, match=message) as e:
        load(tmp_path, rows, name)
    assert '\n' not in str(e.value) and 'pairs.jsonl' in str(e.value)


def test_bad_columns(tmp_path):
    with pytest.raises(DataError, match=r"task.chosen: no column 'chosn', it has 'chosen', 'prompt', 'rejected'"):
        load(tmp_path, prompted(9), chosen='chosn')
    with pytest.raises(DataError, match=r"pairs.jsonl: no column 'chosen', it has 'a'"):
        load(tmp_path, [{'a': 'x'}], 'anthropic_hh')
    with pytest.raises(ConfigError, match=r"task.template: '{prompt}', expected {prompt} and {completion}"):
        load(tmp_path, prompted(9), template='{prompt}')
    with pytest.raises(ConfigError, match=r'as there is no column of prompts'):
        load(tmp_path, [{k: v for k, v in r.items() if k != 'prompt'} for r in prompted(9)], template='{completion}')
    with pytest.raises(ConfigError, match=r"'chosen', 'chosen', 'rejected', expected different columns"):
        load(tmp_path, prompted(9), prompt='chosen')
    with pytest.raises(ConfigError, match=r'task.chosen: no such field here, expected task.name to be files or pref'):
        load(tmp_path, prompted(9), 'anthropic_hh', chosen='x')


def test_render(tmp_path):
    d = load(tmp_path, prompted(60))
    page = d.render({'text': d.pool.inputs['text'][0]}, {'truth': int(d.pool.truth[0]), 'weak': 0})
    assert page.count('<blockquote') == 2 and 'Good' in page and 'weak: the first' in page


def test_local_copy():
    path = ASSETS / 'hh_harmless_single_turn'
    if not path.exists():
        pytest.skip(f'{path} is not here')
    d = TASKS['anthropic_hh'].fn(sections.task('anthropic_hh', path=str(path)))
    assert len(d.pool) > 6000 and len(d.test) > 1500 and np.ptp(np.bincount(d.test.truth)) == 0
    assert not set(d.pool.group) & set(d.test.group)
    assert d.notes['leak']['warning'] is None and 0.5 < d.notes['leak']['surface_auroc'] < 0.7
