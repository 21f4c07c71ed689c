"""Prompted models beside fine-tuned ones (arXiv 2312.09390, section 5.2.1): zero-shot and few-shot.

  python -m experiments.run --config=configs/paper/prompting.py --workdir=runs/prompting                 # SST-2
  python -m experiments.run --config=configs/paper/prompting.py --workdir=runs/prompting_offline \\
      --config.teacher.model=FOLDER --config.student.model=FOLDER --config.task.path=FOLDER

Needs a causal student. Each test text is read once with each answer behind it, with `shots` examples before it:
SmolLM2's first 18 layers, taught by 6: 27 TFLOP, some 20 minutes on two cores. `--config.method.teacher=True`: the
teacher is prompted as well.
"""
from w2s_jax.config import compose, default_config


def get_config(task: str = 'sst2'):
    """`task`: a task of one text a row; other tasks need other `method.words`."""
    c = default_config()
    c.task.name, c.task.train_size, c.task.test_size = task, 1000, 500
    c.teacher.model, c.student.model = 'HuggingFaceTB/SmolLM2-135M', 'HuggingFaceTB/SmolLM2-360M'
    c.teacher.mode = c.student.mode = 'probe'
    c.train.batch_size, c.train.epochs, c.train.window = 64, 60, 1
    c.method.name = 'prompted'
    c = compose(c)
    c.method.words, c.method.template, c.method.shots = ('negative', 'positive'), '{text}\nSentiment: {answer}', 4
    return c
