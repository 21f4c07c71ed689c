"""Several teachers on domains with a spurious feature: even weights, and weights learned with the student (RAVEN).

  python -m experiments.run --config=configs/raven.py --workdir=runs/raven
  python -m experiments.grid --config=configs/raven.py:phases --workdir=runs/raven_phases
"""
from w2s_jax.config import compose, default_config
from w2s_jax.engine import sweep


def get_config(what: str = 'one'):
    """`what`: one (attenuation .05) or phases (the base of the sweep)."""
    c = default_config()
    c.task.name = 'spurious_domains'
    c.teacher.model = c.student.model = 'linear'
    c.teacher.mode = c.student.mode = 'probe'
    c.teacher.stopping.name = c.student.stopping.name = ''
    c.method.name = 'raven'
    c.student.loss.name = 'weighted_teachers'
    c.optimizer.name, c.optimizer.learning_rate, c.optimizer.warmup = 'adamw', 1e-2, 0.0
    c.train.epochs, c.train.batch_size, c.train.eval_batch_size = 16, 64, 1000
    c.seeds = tuple(range(10))
    c = compose(c)
    c.method.domains, c.method.matched, c.method.alone = (0, 1, 2), True, True
    return c


def get_sweep(what: str = 'phases'):
    """The cells: how far the student sees what misled its teachers."""
    return sweep.values('task.attenuation', [0.0, 0.05, 0.1, 0.15, 0.2])
