"""Texts that a tiny language model can learn to tell apart, and an experiment with them."""
import numpy as np

from configs import own_data
from w2s_jax import config as configs

ALPHABET = 'bcdefghijklmnop'


def sentences(n=240, seed=0):
    """Words of letters; the class is whether there is a 'z'."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        word = [''.join(rng.choice(list(ALPHABET), rng.integers(2, 9))) for _ in range(rng.integers(1, 7))]
        if i % 2:
            word[-1] += 'z'
        yield {'text': ' '.join(word), 'label': ['without', 'with'][i % 2]}


def own(model, file, **changes):
    c = own_data.get_config()
    c.task.path, c.task.text, c.task.label = str(file), 'text', 'label'
    c.teacher.model = c.student.model = str(model)
    c.seeds, c.train.epochs, c.train.evaluations, c.report.html, c.train.shapes = (0, 1), 1, 1, False, 2
    c = configs.compose(c)
    c.update_from_flattened_dict(changes)
    return c
