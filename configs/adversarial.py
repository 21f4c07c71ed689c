"""Adversarial weak-to-strong training and its ablation on digits; every model measured under attack.

  python -m experiments.run --config=configs/adversarial.py --workdir=runs/adversarial

Needs nothing; two minutes on two cores. Measured, seeds 0, 1, 2, accuracy under attack (eps .1): plain students 28.1
21.8 27.3, on noise 45.2 45.6 46.4, adversarial confidence 67.0 69.2 68.5, all of Adv-W2S 60.6 63.3 64.2, ceiling 76.7
76.4 77.7; clean 88.6 93.0 93.1 to 91.0 93.8 94.0. What it hangs on: docs/methods/adversarial.md.
"""
from w2s_jax.config import compose, default_config


def get_config():
    """One experiment: students on rows as they are, on noise, and four on their own adversaries; three seeds."""
    c = default_config()
    c.task.name = 'digits'
    c.teacher.model, c.student.model = 'mlp-32', 'mlp-256'
    c.teacher.epochs = 150  # a teacher that has learned less teaches less robustness
    c.method.name, c.method.share = 'adversarial', 0.2
    c.student.loss.name = 'adv_w2s'
    c.optimizer.learning_rate, c.optimizer.warmup = 3e-3, 0.0
    c.train.epochs, c.train.batch_size, c.train.eval_batch_size = 60, 64, 600
    c.attack.eps = 0.1
    c = compose(c)
    c.student.loss.eps = 0.1
    return c
