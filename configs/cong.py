"""ConG, contrastive weak-to-strong generation: a strong model learns texts that weak models write in contrast.

  python -m experiments.run --config=configs/cong.py --workdir=runs/cong \
      --config.teacher.model=WEAK --config.student.model=STRONG            # folders or hub ids; pairs from the hub
  python -m experiments.run --config=configs/cong.py:preference --workdir=runs/cong --config.task.path=pairs.jsonl ...
  python -m experiments.grid --config=configs/cong.py --workdir=runs/cong_alphas ...            # alpha 1, .7, .4, .1

Needs two causal language models with one tokenizer for the weak one before and after its alignment (that is one model),
and pairs with a common beginning (transcripts, or a column of prompts). Rates, lengths and alpha are those of the
published script (docs/methods/cong.md), for models of billions of parameters; not tuned here.
"""
from w2s_jax.config import compose, default_config
from w2s_jax.engine import sweep


def get_config(task: str = 'anthropic_hh'):
    """`task`: anthropic_hh, or preference for a file with prompt, chosen and rejected."""
    c = default_config()
    c.task.name, c.method.name, c.student.loss.name = task, 'cong', 'dpo'
    c = compose(c)
    c.task.max_length = 256
    c.teacher.model = 'HuggingFaceTB/SmolLM2-135M'
    c.student.model, c.student.mode = 'HuggingFaceTB/SmolLM2-360M', 'lora'
    c.method.baselines, c.train.epochs = (), 1
    return c


def get_sweep(task: str = 'anthropic_hh'):
    """How much of the weak model before alignment is taken off."""
    return sweep.values('method.alpha', [1., .7, .4, .1])
