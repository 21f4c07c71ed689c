"""Linear probes on frozen models (arXiv 2312.09390, D.2): features are computed once, every head trains in seconds.

  python -m experiments.run --config=configs/probe.py:sst2 --workdir=runs/probe_sst2      # all from the hub
  python -m experiments.run --config=configs/probe.py:sst2 --workdir=runs/probe_sst2 \
      --config.teacher.model=FOLDER --config.student.model=FOLDER --config.task.path=FOLDER     # nothing downloaded

As in the paper: Adam at 1e-3, batch 128, no weight decay. Not as in the paper: 20 epochs and no early stopping in
place of 200 epochs with it; features are scaled to mean 0 and deviation 1 over the pool. Needs one pass of each model
over the data; then every head trains in about two seconds.

Measured on SST-2, SmolLM2-135M-Instruct cut after layer 6 teaching the one cut after 18, three seeds: weak 62.9,
naive 70.7 (PGR .38 [.18, .59]), confidence 78.3 (.77 [.53, 1.06]), ceiling 83.1. More in the README.
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
