"""A grid on the chess ladder: three teachers by three students by two losses, three seeds each.

  python -m experiments.grid --config=configs/chess_grid.py --workdir=runs/chess_grid --dry_run
  python -m experiments.grid --config=configs/chess_grid.py --workdir=runs/chess_grid
  python -m experiments.grid --config=configs/chess_grid.py:rates --workdir=runs/chess_rates

Every teacher, its labels and every ceiling is computed once, whoever needs it.
"""
from w2s_jax.config import default_config
from w2s_jax.engine import sweep


def get_config(what: str = 'sizes'):
    """What all cells share. `what`: sizes (models by losses) or rates (learning rates of the smallest student)."""
    c = default_config()
    c.task.train_size, c.task.test_size = 2400, 800
    c.teacher.model, c.student.model = 'chess-xs', 'chess-s'
    c.method.baselines = ()
    if what == 'rates':
        c.student.model, c.seeds = 'chess-xs', tuple(range(8))
        c.method.baselines = ('xent',)
    return c


def get_sweep(what: str = 'sizes'):
    """The cells: overrides of dotted fields."""
    if what == 'rates':
        return sweep.values('student.learning_rate', [1e-4, 1.5e-4, 2.4e-4, 3.6e-4, 5.5e-4, 8.5e-4, 1.3e-3, 2e-3])
    return sweep.product(
        sweep.values('teacher.model', ['chess-xs', 'chess-s', 'chess-m']),
        sweep.values('student.model', ['chess-s', 'chess-m', 'chess-l']),
        sweep.values('student.loss.name', ['xent', 'confidence']))
