"""Early stopping without ground truth (arXiv 2312.09390, figures 7 and 13).

  python -m experiments.grid --config=configs/paper/early_stopping.py --workdir=runs/early_stopping
  python -m experiments.grid --config=configs/paper/early_stopping.py:sst2 --workdir=runs/early_stopping_sst2 \\
      --config.teacher.model=FOLDER --config.student.model=FOLDER --config.task.path=FOLDER

The first needs nothing, and three minutes of CPU time. Measured, 25 epochs, ten seeds, per cent: last 75.1 (truth:
98.4), `agreement` 82.5, `calibrated` 82.0, `epoch` 92.2 (truth: 94.9), `label_wave` 94.8, `cross_half` 95.0; best look
on the truth 95.4 (an oracle: `stops.best` of the curves in evaluation.json, and in the report). But for `epoch` no
rule takes anything from the ceiling. The second needs two models and SST-2: one pass of each over 4000 rows and a test
set, some 20 minutes with SmolLM2's first 6 and 18 layers on two cores.
"""
from configs import probe, salient_concept
from w2s_jax.config import compose
from w2s_jax.engine import sweep


def get_config(task: str = 'salient'):
    """`salient`, or a task of texts, by probes."""
    c = salient_concept.get_config() if task == 'salient' else probe.get_config(task)
    if task == 'salient':
        c.train.epochs, c.train.watch, c.seeds = 25, 8000, tuple(range(10))
    c.student.loss.name = 'xent'
    return compose(c)


def get_sweep(task: str = 'salient'):
    """The last step, and each rule."""
    return sweep.values('student.stopping.name', ['', 'agreement', 'calibrated', 'epoch', 'label_wave', 'cross_half'])
