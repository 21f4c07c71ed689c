"""Reward models from pairwise preferences (arXiv 2312.09390, section 3): two completions, one scalar each,
Bradley-Terry; the student learns the teacher's soft preferences.

  python -m experiments.run --config=configs/reward.py --workdir=runs/reward           # hh-rlhf, from the hub
  python -m experiments.run --config=configs/reward.py:preference --workdir=runs/reward \
      --config.task.path=pairs.jsonl --config.task.prompt=prompt \
      --config.task.chosen=chosen --config.task.rejected=rejected                                  # your own pairs

One epoch, as in the paper. Transcripts that are too long lose their beginning. Needs two models (folders or hub ids).

Measured by probes (`configs/probe.py:anthropic_hh`) on single-turn harmless pairs, three seeds: weak 62.3, naive 63.2,
ceiling 63.0: no gap between models of 50 and 92 million parameters, so PGR is undefined. In the paper, too, naive
reward models recover little (about 10 % of the gap).
"""
from w2s_jax.config import default_config


def get_config(task: str = 'anthropic_hh'):
    """`task`: anthropic_hh, or preference for a file with prompt, chosen and rejected."""
    c = default_config()
    c.task.name = task
    c.task.max_length = 256
    c.teacher.model = 'HuggingFaceTB/SmolLM2-135M'
    c.student.model = 'HuggingFaceTB/SmolLM2-360M'
    c.train.epochs = 1
    return c
