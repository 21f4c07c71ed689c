"""Any two rungs of the built-in chess ladder, on the built-in puzzles or on real ones.

  python -m experiments.run --config=configs/chess.py --workdir=runs/chess
  python -m experiments.run --config=configs/chess.py:chess-xs,chess-l --workdir=runs/chess_xs_l
  python -m experiments.run --config=configs/chess.py --workdir=runs/lichess \
      --config.task.path=../shared/assets/chess/lichess_puzzles/train.parquet   # needs the extra `chess`

Puzzle files are those that Lichess publishes (csv, csv.zst or parquet); games are PGN. docs/chess.md has the
numbers.
"""
from w2s_jax.config import default_config


def get_config(rungs: str = 'chess-xs,chess-m'):
    """`rungs`: teacher,student out of chess-xs, chess-s, chess-m, chess-l."""
    c = default_config()
    c.teacher.model, _, c.student.model = rungs.partition(',')
    c.student.loss.name = 'confidence'
    return c
