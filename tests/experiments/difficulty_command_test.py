"""Texts graded by how sure a strong model is of them, and easy-to-hard on the grades."""
import io
import json

import numpy as np
import pytest
import sections
import tiny
from words import own, sentences

from experiments import difficulty
from w2s_jax.data import Examples
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import TASKS


def rows(n=300, seed=0):
    """(features `[n, 4]`, truth, group): the first feature knows the class, of every other row hardly."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    features[:, 0] = (2 * truth - 1) * np.where(np.arange(n) % 2, 2, .1)
    return features, truth, np.arange(n)


def test_what_features_hardly_tell_is_difficult():
    features, truth, group = rows()
    found = difficulty.difficulty(features, truth, group, np.random.default_rng(0))
    assert (found >= 0).all() and (found < .5 + 1e-6).all()
    assert found[::2].min() > found[1::2].max() - .05 and found[::2].mean() > found[1::2].mean() + .1


def test_no_row_has_learned_a_sibling(monkeypatch):
    """Rows of a group are never on both sides of a fold, and every row is graded by one fit that has not seen it."""
    features, truth, _ = rows(60)
    features[:, 3] = np.arange(60)
    monkeypatch.setattr(difficulty.probes, 'standardised', lambda x: x)
    group, seen = np.arange(60) // 3, []

    def predicted(x, labels, held, l2):
        seen.append((set(group[x[:, 3].astype(int)]), set(group[held[:, 3].astype(int)])))
        return np.full((len(held), 2), .5)
    monkeypatch.setattr(difficulty.probes, 'predicted', predicted)
    assert (difficulty.difficulty(features, truth, group, np.random.default_rng(0)) == .5).all()
    assert len(seen) == difficulty.FOLDS and all(not learned & held for learned, held in seen)
    assert sorted(g for _, held in seen for g in held) == list(range(20))
    with pytest.raises(DataError, match=r'^4 groups of rows, expected at least 5'):
        difficulty.difficulty(features, truth, np.arange(60) // 15, np.random.default_rng(0))


def test_rows_keep_their_text_class_and_group():
    features, truth, _ = rows(40)
    texts = np.array([[f'text {i}'] for i in range(40)], object)
    group = np.arange(40) // 2 + 7
    parts = [(Examples({'text': texts[a:b]}, truth[a:b], group[a:b]), features[a:b]) for a, b in ((0, 30), (30, 40))]
    found = difficulty.graded(parts, ['bad', 'good'], 0)
    assert [r['text'] for r in found] == [f'text {i}' for i in range(40)]
    assert [r['label'] for r in found] == [['bad', 'good'][t] for t in truth]
    assert [r['group'] for r in found] == (np.arange(40) // 2).tolist()


@pytest.mark.long
def test_a_file_is_graded_and_cut(tmp_path):
    tiny.folder(tmp_path / 'tiny')
    (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, sentences(240))))
    c = own(tmp_path / 'tiny', tmp_path / 'rows.jsonl', **{'teacher.mode': 'probe', 'student.mode': 'probe',
                                                           'train.batch_size': 16})
    found = difficulty.run(c, tmp_path / 'w', io.StringIO())
    assert len(found) == 240 and {r['label'] for r in found} == {'with', 'without'}
    assert sorted(r['text'] for r in found) == sorted(r['text'] for r in sentences(240))
    (tmp_path / 'graded.jsonl').write_text('\n'.join(map(json.dumps, found)))
    d = TASKS['files'].fn(sections.task('files', path=str(tmp_path / 'graded.jsonl'), text='text', label='label',
                                        group='group', difficulty='difficulty', cut=.5), log=lambda line: None)
    level = d.notes['difficulty']['cut']
    assert {*d.tests} == {'test', 'easy', 'hard'} and len(d.tests['easy']) and len(d.tests['hard'])
    by_text = {r['text']: r['difficulty'] for r in found}
    assert all(by_text[t[0]] <= level for t in d.pool.inputs['text'][:])
    c.student.mode = 'lora'
    with pytest.raises(ConfigError, match=r"^student.mode: 'lora', expected 'probe'"):
        difficulty.run(c, tmp_path / 'w', io.StringIO())
