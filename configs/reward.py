"""Reward models from pairwise preferences (arXiv 2312.09390, section 2.6 of the field's facts): two completions, one
scalar each, Bradley-Terry; the student learns the teacher's soft preferences.

  python -m experiments.run --config=configs/reward.py --workdir=runs/reward              # Anthropic/hh-rlhf from the hub
  python -m experiments.run --config=configs/reward.py:preference --workdir=runs/reward \
      --config.task.path=pairs.jsonl --config.task.prompt=prompt \
      --config.task.chosen=chosen --config.task.rejected=rejected                                  # your own pairs

One epoch, as in the paper. Transcripts that are too long lose their beginning. The README has measured numbers; in
the paper, too, naive reward models recover little (about 10 % of the gap).
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
