"""Adversarial weak-to-strong training and its ablation on digits; every model measured under attack.

  python -m experiments.run --config=configs/adversarial.py --workdir=runs/adversarial

Needs nothing.
"""
from w2s_jax.config import compose, default_config


def get_config():
    """One experiment: students on rows as they are, on noise, and four on their own adversaries; three seeds."""
    c = default_config()
    c.task.name = 'digits'
    c.teacher.model, c.student.model = 'mlp-32', 'mlp-256'
    c.teacher.epochs = 150  # a teacher that is unsure, as after 60, teaches no robustness
    c.method.name, c.method.share = 'adversarial', 0.2
    c.student.loss.name = 'adv_w2s'
    c.optimizer.learning_rate, c.optimizer.warmup = 3e-3, 0.0
    c.train.epochs, c.train.batch_size, c.train.eval_batch_size = 60, 64, 600
    c.attack.eps = 0.1
    c = compose(c)
    c.student.loss.eps = 0.1
    return c
