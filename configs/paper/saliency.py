"""How salient is the task to the student (arXiv 2312.09390, section 5.2.3)? Probes and fine-tuning, on weak labels and
on truth, of one model.

  python -m experiments.run --config=configs/paper/saliency.py --workdir=runs/saliency \
      --config.teacher.model=FOLDER --config.student.model=FOLDER --config.task.path=FOLDER   # nothing downloaded
  python -m experiments.run --config=configs/paper/saliency.py:lora ...                       # cheaper
  python -m experiments.run --config=configs/paper/saliency.py:full,files ... \
      --config.task.text=COLUMN --config.task.label=COLUMN                                    # data of your own

The paper's order: probe on weak labels < probe on truth < fine-tuned on weak labels < fine-tuned on weak labels, then
a probe on truth < fine-tuned on truth. In results.json: students `probe xent`, `probe on truth` (oracle), `xent`,
`xent, then probe on truth` (oracle), and `ceiling`. Models are full or lora; a student that is a probe is refused.

Needs: two models (folders or hub ids), data (SST-2's parquet files, or any that configs/own_data.py reads), and time:
the whole of SST-2, SmolLM2's first 6 layers teaching 18, is 610 TFLOP, eight hours on two cores. No such run was made.
`--config.student.layers=18` takes a model's first 18 blocks. 300 rows and one epoch are too few: a SmolLM2 of 6 blocks
was then at chance on SST-2, and what it taught, too.
"""
from w2s_jax.config import compose, default_config


def get_config(what: str = 'full'):
    """`what`: MODE[,TASK]: full or lora, and a name of `w2s_jax.tasks.TASKS` (without one sst2)."""
    mode, _, task = what.partition(',')
    c = default_config()
    c.method.name, c.task.name = 'saliency', task or 'sst2'
    c.method.baselines = ()
    c.teacher.model = 'HuggingFaceTB/SmolLM2-135M'
    c.student.model = 'HuggingFaceTB/SmolLM2-360M'
    c.teacher.mode = c.student.mode = mode
    return compose(c)
