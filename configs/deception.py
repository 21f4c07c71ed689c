"""What students lose to a conflict of preferences, and whether they lose it where their supervisor is blind.

  python -m experiments.run --config=configs/deception.py --workdir=runs/deception
  python -m experiments.grid --config=configs/deception.py --workdir=runs/deception_widths        # widths 4 to 256

Needs nothing; 1.5 minutes, and 4.5 for the grid, on two cores. Measured, eight seeds: a reward for contradicting the
truth costs 5.5 % of the rows, and 2.15 times as often what the strong model knows and the weak one does not (score
.957, base .448); a second preference costs 37 % and lift .99: everywhere. Details: docs/methods/deception.md.
"""
from w2s_jax.config import compose, default_config
from w2s_jax.engine import sweep


def get_config():
    """Students without conflict, with explicit and implicit conflict, on a weak model's labels and on a rung's."""
    c = default_config()
    c.task.name = 'harmless_helpful'
    c.teacher.model, c.student.model = 'mlp-4', 'mlp-256'
    c.method.name, c.method.baselines = 'conflict', ()
    c.report.diagnostics = ('deception',)
    c.optimizer.learning_rate, c.optimizer.warmup = 3e-3, 0.0
    c.train.epochs, c.train.batch_size, c.train.eval_batch_size = 10, 64, 1000
    c.seeds = tuple(range(8))
    c = compose(c)
    c.method.through = 'mlp-32'
    return c


def get_sweep():
    """The cells: how wide the student is, next to a weak model of width 4."""
    return sweep.values('student.model', ['mlp-4', 'mlp-32', 'mlp-128', 'mlp-256'])
