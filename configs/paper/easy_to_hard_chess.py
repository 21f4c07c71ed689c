"""Easy to hard on chess puzzles (arXiv 2312.09390, appendix B, figure 20): training on easy, hard or all puzzles, each
measured on all, on easy and on hard ones; beside it the student before any training.

  python -m experiments.grid --config=configs/paper/easy_to_hard_chess.py --workdir=runs/easy_to_hard
  python -m experiments.grid --config=configs/paper/easy_to_hard_chess.py:rating --workdir=runs/easy_to_hard_rating \
      --config.task.path=lichess_puzzles.parquet                            # needs the extra `chess`

Figure 20 is `ceiling` (truth of easy, hard or all puzzles) and `zero_shot` in the cells' results.json, by test set,
and by `band_1` to `band_4` from easy to hard. Beside them stand weak labels of the same puzzles, with PGR by test set.
The built-in puzzles, which need nothing, have no ratings: there a puzzle is the harder the more legal moves it has.
With `rating` the cut is the paper's: Elo 1200 (`--config.task.cut=900`: its other one). As many puzzles are learned in
each cell.

Three seeds, some ten minutes on two cores (`--dry_run`: 9 TFLOP). Measured: docs/methods.md, "Easy to hard".
"""
from w2s_jax.config import default_config
from w2s_jax.engine import sweep


def get_config(difficulty: str = 'legal_moves'):
    """`difficulty`: legal_moves, or rating, which puzzles of Lichess have."""
    c = default_config()
    c.task.difficulty, c.task.bands = difficulty, 4
    c.task.cut = 1200. if difficulty == 'rating' else .5
    c.task.train_size, c.task.test_size = 900, 1200
    c.teacher.model, c.student.model = 'chess-xs', 'chess-m'
    c.train.epochs, c.student.learning_rate = 1, 1e-4  # the quickstart's rate, chosen there
    c.train.keep, c.report.html = 'teacher', False
    return c


def get_sweep(difficulty: str = 'legal_moves'):
    """What is learned."""
    return sweep.values('task.train', ['easy', 'hard', 'all'])
