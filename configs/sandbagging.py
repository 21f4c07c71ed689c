"""A student that hides what it can do (method `sandbagging`), elicited by weak labels.

  python -m experiments.run --config=configs/sandbagging.py --workdir=runs/sandbagging           # the salient concept
  python -m experiments.run --config=configs/sandbagging.py:chess --workdir=runs/sandbagging_chess
"""
from configs import quickstart, salient_concept
from w2s_jax.config import compose


def get_config(task: str = 'salient'):
    """`task`: salient, a network on the salient concept, or chess, a pretrained rung of the ladder."""
    c = salient_concept.get_config() if task == 'salient' else quickstart.get_config()
    c.method.name = 'sandbagging'
    c.student.loss.name, c.method.baselines = 'xent', ()
    c.train.epochs = 1 if task == 'salient' else c.train.epochs
    return compose(c)
