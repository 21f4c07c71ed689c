"""Accuracy and PGR over the sizes of supervisor and student (arXiv 2312.09390, figures 2, 3, 5 and 12).

  python -m experiments.grid --config=configs/paper/scaling.py --workdir=runs/scaling                       # chess
  python -m experiments.grid --config=configs/paper/scaling.py:sciq,FOLDER,FOLDER,FOLDER --workdir=runs/scaling_sciq \\
      --config.task.path=FOLDER        # models from weak to strong, folders or hub ids; anthropic_hh: reward models

Every model teaches every later one, naively and with the confidence loss; each teacher, its labels and each ceiling
are computed once. The report has PGR for each supervisor over the students. Needs as many gigabytes as the largest
model takes for training (`--config.student.mode=lora`, or probe, takes less), and three seeds of each pair:
`--dry_run` says what that will cost (chess: 57 TFLOP, some 50 minutes on two cores). Numbers on chess are those of
docs/chess.md, where the rungs s, m and l are within three points.
"""
import itertools

from configs import chess, nlp, reward
from w2s_jax.errors import ConfigError

CHESS = ('chess-xs', 'chess-s', 'chess-m', 'chess-l')


def parsed(what: str) -> tuple[str, tuple[str, ...]]:
    """The task, and models from weak to strong, of `chess` or `TASK,MODEL,MODEL ...`. Raises ConfigError."""
    task, *models = what.split(',')
    models = models or (CHESS if task == 'chess' else ())
    if len(models) < 2:
        raise ConfigError(f'--config=configs/paper/scaling.py:{what}: {len(models)} models, expected TASK,MODEL,MODEL '
                          '... with two or more')
    return task, tuple(models)


def get_config(what: str = 'chess'):
    """What all cells share."""
    task, models = parsed(what)
    found = {'chess': chess, 'anthropic_hh': reward}.get(task)
    c = found.get_config() if found else nlp.get_config(task)
    c.teacher.model, c.student.model = models[:2]
    c.student.loss.name = 'confidence'
    return c


def get_sweep(what: str = 'chess'):
    """Every two models, the weaker one first."""
    _, models = parsed(what)
    return [{'teacher.model': weak, 'student.model': strong} for weak, strong in itertools.combinations(models, 2)]
