"""Bootstrapping through models of growing size beside the direct student, on a task with known answers and on chess.

  python -m experiments.run --config=configs/bootstrap.py --workdir=runs/bootstrap                # 4, 32, 256, 2048
  python -m experiments.run --config=configs/bootstrap.py:equal --workdir=runs/bootstrap_equal    # 2048 four times
  python -m experiments.run --config=configs/bootstrap.py:chess --workdir=runs/bootstrap_chess    # xs, s, m, l
"""
from configs import salient_concept
from w2s_jax.config import default_config


def get_config(what: str = 'widths'):
    """`widths`: perceptrons on the salient concept.  `equal`: the control.  `chess`: the built-in ladder."""
    c = default_config() if what == 'chess' else salient_concept.get_config()
    c.method.name = 'bootstrap'
    if what == 'chess':
        c.teacher.model, c.method.chain, c.student.model = 'chess-xs', ('chess-s', 'chess-m'), 'chess-l'
        return c
    c.seeds = tuple(range(10))
    c.train.epochs = 20
    c.method.chain = ('mlp-2048',) * 3 if what == 'equal' else ('mlp-4', 'mlp-32', 'mlp-256')
    c.student.model = 'mlp-2048'
    return c
