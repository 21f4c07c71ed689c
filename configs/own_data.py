"""Your own data: csv, tsv, json, jsonl or parquet; texts with labels, questions with options, or preference pairs.

  python -m experiments.run --config=configs/own_data.py --workdir=runs/mine --config.task.path=FILE ...
  python -m experiments.run --config=configs/own_data.py:probe ...      # the heads alone, on stored features
  python -m experiments.run --config=configs/own_data.py:full ...       # every parameter; without a word: lora

and, `task.` standing for `--config.task.`:

  task.text=review task.label=stars                       # classes: words or integers
  task.text=question,passage task.label=answer            # several columns, joined by blank lines; or task.template=...
  task.text=review task.label=p                           # p in [0, 1]: the likelier class is the truth; or lists of K
  task.text=review task.label=stars task.weak=crowd --config.labels.source=column   # weak labels: classes, p or lists
  task.question=q task.options=choices task.answer=correct           # a list, or JSON; an index, a letter or a text
  task.question=q task.options=a,b,c,d task.answer=key               # several columns
  task.question=question task.options=distractor1,distractor2,distractor3 task.answer=correct_answer
  task.chosen=better task.rejected=worse task.prompt=ask             # preference pairs

How answers and labels were read is said on the screen and in results.json. `task.group=COLUMN` keeps rows of one source
in one half; `task.test_path=FILE` brings your own test set; `task.balance=True` drops rows of larger classes. Of
multiple choice also `question_accuracy` is measured, of all options together, on `task.questions` test questions.

Needs two models (folders or hub ids, as below) and some hundred rows: a batch (`--config.train.batch_size`; 32, of
probes 128) must fit into each half of what the test set leaves. Texts longer than `task.max_length` tokens are cut at
the end that `task.truncate` names and counted in results.json. What to expect depends on your data: look at the gap
between weak and ceiling first; where it is inside its noise PGR is undefined.
"""
from w2s_jax.config import default_config
from w2s_jax.errors import ConfigError

MODES = ('probe', 'lora', 'full')


def get_config(mode: str = 'lora'):
    """`mode`: probe (the head alone), lora (the cheapest way to fine-tune whole models) or full."""
    if mode not in MODES:
        raise ConfigError(f'--config=configs/own_data.py:{mode}: unknown mode, expected one of {", ".join(MODES)}')
    c = default_config()
    if mode == 'probe':
        c.train.batch_size, c.train.epochs, c.train.window = 128, 60, 1  # those of configs/probe.py
    c.task.name = 'files'
    c.teacher.model = 'HuggingFaceTB/SmolLM2-135M'
    c.student.model = 'HuggingFaceTB/SmolLM2-360M'
    c.teacher.mode = c.student.mode = mode
    c.student.loss.name = 'confidence'
    return c
