"""A teacher that is an earlier checkpoint of the student's own model: as large, but trained for less long.

  python -m experiments.grid --config=configs/checkpoints.py --workdir=runs/checkpoints        # chess, built in
  python -m experiments.run --config=configs/checkpoints.py:sst2 --workdir=runs/checkpoints_sst2 \\
      --config.teacher.model=OWNER/NAME@REVISION --config.student.model=OWNER/NAME              # from the hub

`chess-s-1`, `chess-s-2` and `chess-s-3` are one model at three points of its pretraining. Of models on the hub a
revision (a branch, tag or commit: `EleutherAI/pythia-160m@step3000`) is a checkpoint, where it has safetensors; of
models in folders each checkpoint is a folder.
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
