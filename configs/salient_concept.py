"""The pipeline's own test: a task with known answers (methods.md T2), in seconds on a CPU.

  python -m experiments.run --config=configs/salient_concept.py --workdir=runs/salient              # 4 epochs
  python -m experiments.run --config=configs/salient_concept.py:long --workdir=runs/salient_long    # 20 epochs

After 4 epochs the naive student recovers most of the gap; after 20 it has learned its supervisor's errors
and falls below it, and the confidence loss (alpha .75) keeps it from that.
"""
from w2s_jax.config import default_config


def get_config(length: str = 'short'):
    """`short`: 4 epochs, naive.  `long`: 20 epochs, naive and confidence."""
    c = default_config()
    c.task.name = 'salient_concept'
    c.labels.source = 'column'
    c.student.model = 'mlp-128'
    c.optimizer.learning_rate = 5e-4
    c.optimizer.warmup = 0.0
    c.optimizer.schedule = 'constant'
    c.optimizer.clip = 0.0
    c.seeds = tuple(range(8))
    c.train.epochs, c.train.batch_size = 4, 64
    c.train.eval_batch_size = 1000
    if length == 'long':
        c.train.epochs = 20
        c.student.loss.name = 'confidence'
        c.student.loss.alpha = 0.75
    return c
