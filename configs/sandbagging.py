"""A student that hides what it can do (method `sandbagging`), elicited by weak labels.

  python -m experiments.run --config=configs/sandbagging.py --workdir=runs/sandbagging           # the salient concept
  python -m experiments.run --config=configs/sandbagging.py:chess --workdir=runs/sandbagging_chess

Locking chess-m takes a higher rate and longer than it is taught with here. Seconds and, of chess, some minutes on two
cores. What came out: docs/methods/sandbagging.md.
"""
from configs import quickstart, salient_concept
from w2s_jax.config import compose


def get_config(task: str = 'salient'):
    """`task`: salient, a network on the salient concept, or chess, a pretrained rung of the ladder."""
    c = salient_concept.get_config() if task == 'salient' else quickstart.get_config()
    c.method.name = 'sandbagging'
    c.student.loss.name, c.method.baselines = 'xent', ()
    c = compose(c)
    if task == 'salient':
        c.train.epochs = 1
    else:
        c.method.rate, c.method.epochs = 1e-3, 20
    return c
