"""Texts that are parts of others never stand on both sides of a cut."""
import pathlib

import numpy as np
import pytest

from w2s_jax import data
from w2s_jax.config import compose, default_config
from w2s_jax.tasks import TASKS
from w2s_jax.tasks.text import phrases

DATA = pathlib.Path(__file__).parents[3] / 'shared' / 'assets' / 'data'


def test_whole_by_hand():
    texts = ['a fine film', 'fine', 'Fine film', 'film fine', 'a', 'a fine film', 'refine', 'not a fine film at all',
             '']
    assert phrases.whole(texts).tolist() == [False, False, False, True, False, False, True, True, True]


def test_it_says_what_a_look_at_all_pairs_says():
    rng = np.random.default_rng(0)
    texts = [' '.join(rng.choice(list('abc'), rng.integers(1, 6))) for _ in range(200)]
    inside = lambda a, b: len(b) > len(a) and f' {a} ' in f' {b} '
    assert phrases.whole(texts).tolist() == [not any(inside(t, other) for other in texts) for t in texts]


@pytest.mark.long
@pytest.mark.parametrize('task', ['sst2', 'rotten_tomatoes', 'cola', 'ag_news'])
def test_hardly_a_text_of_a_real_task_is_part_of_one_in_the_other_half(task):
    if not (DATA / task).is_dir():
        pytest.skip(f'{DATA / task} is absent')
    c = default_config()
    c.task.name = task
    c = compose(c)
    c.task.path, c.task.train_size = str(DATA / task), 4000
    pool = TASKS[task].fn(c.task, lambda *a: None).pool
    texts = np.array([f' {t} '.lower() for t in pool.inputs['text'][:, 0]], object)
    first, second = data.halves(pool.group, .5, 0)
    inside = sum(not kept for kept in phrases.whole([t.strip() for t in texts[np.concatenate([first, second])]]))
    assert inside < .01 * len(texts)
