"""A small chess model teaches a larger one, in about two minutes on two CPU cores, with nothing downloaded.

  python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart
"""
from w2s_jax.config import default_config


def get_config():
    """Naive and confidence students on the built-in puzzles, five seeds.

    Few labels and a low rate, since imitation costs the student what it could do before: with three times the labels and
    the default rate of 3e-4 it falls below its zero-shot accuracy (docs/chess.md).
    """
    c = default_config()
    c.teacher.model = 'chess-xs'
    c.student.model = 'chess-m'
    c.student.loss.name = 'confidence'
    c.student.learning_rate = 1e-4
    c.seeds = (0, 1, 2, 3, 4)
    c.task.train_size = 400
    c.task.test_size = 800
    return c
