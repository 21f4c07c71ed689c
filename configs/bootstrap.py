"""Bootstrapping through models of growing size beside the direct student, on a task with known answers and on chess.

  python -m experiments.run --config=configs/bootstrap.py --workdir=runs/bootstrap                # 4, 32, 256, 2048
  python -m experiments.run --config=configs/bootstrap.py:equal --workdir=runs/bootstrap_equal    # 2048 four times
  python -m experiments.run --config=configs/bootstrap.py:chess --workdir=runs/bootstrap_chess    # xs, s, m, l

Measured, accuracy in per cent with standard errors. On the salient concept (ten seeds, 20 epochs) the given labels are
right on 74.4 of the test set and the direct student of width 2048 falls to 71.3 +- 0.3; the chain goes 93.0 (width 4),
94.5 (32), 94.8 (256) and ends at 94.9 +- 0.3: 19.9 to 26.4 points above the direct student in each seed, 23.6 in the
mean. Four times the same width gains 0.3 (71.3, 71.5, 71.6, 71.6): small models help, since they learn fewer errors.

On chess (three seeds): weak 31.1, direct 39.4 +- 0.1 (PGR .34 [.23, .45]), chain 43.4 (s), 42.6 (m) and 42.7 +- 0.1 at
the end (.47 [.37, .57]), ceiling 55.8. Better than direct on every seed, but nothing is won after the first rung, and
the student before any training is at 49.9.
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
