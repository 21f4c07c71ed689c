"""A teacher that is an earlier checkpoint of the student's own model: as large, but trained for less long.

  python -m experiments.grid --config=configs/checkpoints.py --workdir=runs/checkpoints        # chess, built in
  python -m experiments.run --config=configs/checkpoints.py:sst2 --workdir=runs/checkpoints_sst2 \\
      --config.teacher.model=OWNER/NAME@REVISION --config.student.model=OWNER/NAME              # from the hub

`chess-s-1`, `chess-s-2` and `chess-s-3` are one model at three points of its pretraining. Measured, five seeds, 200
puzzles a half, 800 test puzzles, per cent with intervals over seeds and puzzles:

  teacher -> student      weak               zero-shot  naive, PGR             confidence, PGR        ceiling
  chess-s-1 -> chess-s-3  16.9 [14.2, 19.4]  17.6       23.6, .83 [.64, 1.03]  23.9, .88 [.72, 1.02]  24.9 [22.0, 28.0]
  chess-s-2 -> chess-s-3  17.4 [14.6, 20.2]  17.6       24.8, .98 [.85, 1.13]  23.3, .79 [.58, .94]   24.9 [22.0, 28.0]

and between the first two there is no gap. Labels of a teacher as good as the student itself is before training take it
nearly to its ceiling: 200 puzzles mostly teach what a puzzle is. Of models on the hub a revision (a branch, tag or
commit: `EleutherAI/pythia-160m@step3000`) is a checkpoint, where it has safetensors; of models in folders each
checkpoint is a folder.
"""
from configs import nlp
from w2s_jax.config import default_config


def get_config(task: str = 'chess'):
    """`chess`, or a task of texts."""
    if task != 'chess':
        return nlp.get_config(task)
    c = default_config()
    c.teacher.model, c.student.model = 'chess-s-1', 'chess-s-3'
    c.student.loss.name, c.student.learning_rate = 'confidence', 1e-4  # the quickstart's rate, chosen there
    c.task.train_size, c.task.test_size = 400, 800
    c.seeds = tuple(range(5))
    return c


def get_sweep(task: str = 'chess'):
    """Every two checkpoints, the earlier one first."""
    pairs = [(1, 2), (1, 3), (2, 3)]
    return [{'teacher.model': f'chess-s-{a}', 'student.model': f'chess-s-{b}'} for a, b in pairs]
