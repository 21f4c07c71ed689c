"""Linear probes on frozen models (arXiv 2312.09390, D.2): features are computed once, every head trains in seconds.

  python -m experiments.run --config=configs/probe.py:sst2 --workdir=runs/probe_sst2      # all from the hub
  python -m experiments.run --config=configs/probe.py:sst2 --workdir=runs/probe_sst2 \
      --config.teacher.model=FOLDER --config.student.model=FOLDER --config.task.path=FOLDER     # nothing downloaded

As in the paper: Adam at 1e-3, batch 128, no weight decay. Not as in the paper: at most 60 epochs, of which a rule on
held-out weak labels chooses the step; features are scaled to mean 0 and deviation 1 over the pool; heads have an
intercept that starts at the shares of the labels. Needs one pass of each model over the data; then every head trains in
seconds. `--config.optimizer.name=lbfgs --config.student.loss.name=xent --config.method.baselines="()"` solves them
exactly. What came out: docs/results.md.
"""
from w2s_jax.config import default_config


def get_config(task: str = 'sst2'):
    """`task`: a name of `w2s_jax.tasks.TASKS` that has texts; `anthropic_hh` probes rewards."""
    c = default_config()
    c.task.name = task
    c.task.train_size = 4000
    c.teacher.model = 'HuggingFaceTB/SmolLM2-135M'
    c.student.model = 'HuggingFaceTB/SmolLM2-360M'
    c.teacher.mode = c.student.mode = 'probe'
    c.student.loss.name = 'confidence'
    c.train.batch_size, c.train.epochs = 128, 60  # at most: a rule on held-out weak labels chooses the step
    c.train.window = 1  # heads read features, whose lengths are all alike
    return c
