"""Which of two moves is the best: the built-in puzzles as a task of two classes, that of the paper's loss for K = 2.

  python -m experiments.run --config=configs/chess_choice.py --workdir=runs/choice
  python -m experiments.grid --config=configs/chess_choice.py --workdir=runs/choice_lengths     # 1, 2 and 4 epochs

docs/chess.md has the numbers. The rate is the quickstart's, chosen there and not here.
"""
from w2s_jax.config import default_config
from w2s_jax.engine import sweep


def get_config(rungs: str = 'chess-xs,chess-m'):
    """`rungs`: teacher,student out of chess-xs, chess-s, chess-m, chess-l."""
    c = default_config()
    c.task.name, c.task.test_size = 'chess_choice', 1000
    c.teacher.model, _, c.student.model = rungs.partition(',')
    c.student.loss.name, c.student.learning_rate = 'confidence', 1e-4
    c.seeds = tuple(range(10))
    return c


def get_sweep(rungs: str = 'chess-xs,chess-m'):
    """Lengths of training, of teacher, students and ceiling alike."""
    return sweep.values('train.epochs', [1, 2, 4])
