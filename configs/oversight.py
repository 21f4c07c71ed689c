"""A weak judge hears strong agents argue before it labels (arXiv 2501.13124): debate, consultancy, and nobody.

  python -m experiments.grid --config=configs/oversight.py:boolq --workdir=runs/oversight      # all from the hub
  python -m experiments.grid --config=configs/oversight.py:boolq --workdir=runs/oversight --config.task.path=FOLDER \
      --config.teacher.model=FOLDER --config.student.model=FOLDER                        # nothing downloaded

The student's model, which must be causal, writes a speech for either answer of every text, once for all cells and
seeds; teachers and students are probes. Needs one pass of each model over the texts with and without speeches, and
2 x rows x method.steps tokens of writing. What came out: docs/methods/debate.md.
"""
from w2s_jax.config import compose, default_config
from w2s_jax.engine import sweep
from w2s_jax.tasks.text import nlp


def get_config(task: str = 'boolq'):
    """`task`: a name of `w2s_jax.tasks.TASKS` with one text a row and two classes."""
    c = default_config()
    c.task.name, c.task.train_size, c.task.test_size, c.task.max_length = task, 800, 200, 384
    c.teacher.model = 'HuggingFaceTB/SmolLM2-135M-Instruct'
    c.student.model = 'HuggingFaceTB/SmolLM2-360M-Instruct'
    c.teacher.mode = c.student.mode = 'probe'
    c.method.name, c.student.loss.name, c.method.baselines = 'oversight', 'xent', ()
    c.train.batch_size, c.train.epochs, c.train.window = 128, 60, 1
    c.seeds = (0, 1, 2)
    c = compose(c)
    c.method.words = nlp.SPECS[task].classes if task in nlp.SPECS else ('no', 'yes')
    c.method.steps, c.method.sampling_temperature = 32, .7
    return c


def get_sweep(task: str = 'boolq'):
    """Who is heard: nobody, both sides, or one that is drawn."""
    return sweep.values('method.protocol', ['direct', 'debate', 'consultancy'])
