"""RLHF from weak preferences: a reward model learns what a weak model prefers, and a policy learns by that reward.

  python -m experiments.run --config=configs/rlhf.py --workdir=runs/rlhf \
      --config.teacher.model=WEAK --config.student.model=STRONG             # folders or hub ids; pairs from the hub
  python -m experiments.run --config=configs/rlhf.py:on_policy_distillation --workdir=runs/distilled ...
  python -m experiments.grid --config=configs/rlhf.py --workdir=runs/rlhf_kl ...           # kl 0, .02, .1, .5

Needs two causal language models (with one tokenizer if the weak model gives the reward, or is distilled) and pairs with
a common beginning. No constant is tuned: docs/methods/policy.md says what is known of them.
"""
from w2s_jax.config import compose, default_config
from w2s_jax.engine import sweep


def get_config(method: str = 'rlhf'):
    """`method`: rlhf, or on_policy_distillation."""
    c = default_config()
    c.task.name, c.method.name = 'anthropic_hh', method
    c = compose(c)
    c.task.max_length = 256
    c.teacher.model = 'HuggingFaceTB/SmolLM2-135M'
    c.student.model, c.student.mode = 'HuggingFaceTB/SmolLM2-360M', 'lora'
    c.method.baselines, c.train.epochs = (), 1
    if method == 'rlhf':
        c.method.best_of, c.method.true_reward = 4, True
    else:
        c.student.loss.name = 'dpo'
    return compose(c)


def get_sweep(method: str = 'rlhf'):
    """How dear it is to leave the reference; of distillation how much of the weak model's alignment is added."""
    field, found = ('kl', [0., .02, .1, .5]) if method == 'rlhf' else ('alpha', [.5, 1., 2.])
    return sweep.values(f'method.{field}', found)
