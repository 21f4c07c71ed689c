"""Early stopping without ground truth (arXiv 2312.09390, figures 7 and 13).

  python -m experiments.grid --config=configs/paper/early_stopping.py --workdir=runs/early_stopping           # seconds
  python -m experiments.grid --config=configs/paper/early_stopping.py:sst2 --workdir=runs/early_stopping_sst2 \\
      --config.teacher.model=FOLDER --config.student.model=FOLDER --config.task.path=FOLDER

On the salient concept, 25 epochs, eight seeds, measured: last 75.2 %, `agreement` 82.6, `epoch` 92.4, `label_wave`
95.0, `cross_half` 95.1; best look on the truth 95.5 (an oracle: `stops.best` of the curves in evaluation.json, and in
the report).
"""
from configs import probe, salient_concept
from w2s_jax.config import compose
from w2s_jax.engine import sweep


def get_config(task: str = 'salient'):
    """`salient`, or a task of texts, by probes."""
    c = salient_concept.get_config() if task == 'salient' else probe.get_config(task)
    if task == 'salient':
        c.train.epochs, c.train.watch = 25, 8000
    c.student.loss.name = 'xent'
    return compose(c)


def get_sweep(task: str = 'salient'):
    """The last step, and each rule."""
    return sweep.values('student.stopping.name', ['', 'agreement', 'calibrated', 'epoch', 'label_wave', 'cross_half'])
