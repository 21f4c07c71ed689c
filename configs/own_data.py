"""Your own labelled texts: csv, json, jsonl or parquet, two classes or more.

  python -m experiments.run --config=configs/own_data.py --workdir=runs/mine \
      --config.task.path=reviews.csv --config.task.text=review --config.task.label=stars
  python -m experiments.run --config=configs/own_data.py --workdir=runs/quiz \
      --config.task.path=quiz.jsonl --config.task.question=q --config.task.options=choices --config.task.answer=correct

`--config.task.group=COLUMN` keeps rows of one source in one half; `--config.task.test_path=FILE` brings your own test
set. Needs two models (folders or hub ids, as below) and some hundred rows. Texts longer than `task.max_length` tokens
are cut at the end that `task.truncate` names and counted in results.json. What to expect depends on your data: look at
the gap between weak and ceiling first; where it is inside its noise PGR is undefined.
"""
from w2s_jax.config import default_config


def get_config():
    """LoRA on both models: the cheapest way to fine-tune them whole."""
    c = default_config()
    c.task.name = 'files'
    c.teacher.model = 'HuggingFaceTB/SmolLM2-135M'
    c.student.model = 'HuggingFaceTB/SmolLM2-360M'
    c.teacher.mode = c.student.mode = 'lora'
    c.student.loss.name = 'confidence'
    return c
