"""A small chess model teaches a larger one, in about two minutes on two CPU cores, with nothing downloaded.

  python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart
"""
from w2s_jax.config import default_config


def get_config():
    """Naive and confidence students on the built-in puzzles, three seeds."""
    c = default_config()
    c.teacher.model = 'chess-xs'
    c.student.model = 'chess-m'
    c.student.loss.name = 'confidence'
    c.task.train_size = 2400
    c.task.test_size = 800
    return c
