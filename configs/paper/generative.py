"""Generative fine-tuning (arXiv 2312.09390, section 5.2.2): the task's texts first, then the weak labels.

  python -m experiments.run --config=configs/paper/generative.py --workdir=runs/generative            # SciQ
  python -m experiments.run --config=configs/paper/generative.py:anthropic_hh --workdir=runs/generative_hh
  python -m experiments.run --config=configs/paper/generative.py:salient --workdir=runs/generative_salient

Needs causal models (the paper's: its reward models); of SciQ and the preferences `--config.teacher.model=FOLDER
--config.student.model=FOLDER --config.task.path=FOLDER` keep it offline. The paper gained 10 to 20 points of PGR on
preferences, with a ceiling that had the same start. On SciQ SmolLM2's first 6 layers teaching 18 are 500 TFLOP, seven
hours on two cores, and were not run. `salient`: a minute of CPU time, no files; measured with ten seeds: a frozen
encoder leads to 98.1 % after the task's inputs (PGR .99) and to 80.0 % before (.24); one that is trained with its head
gains nothing (97.0 % and 97.0 %: `--config.student.mode=full --config.optimizer.learning_rate=1e-3
--config.train.epochs=25`).
"""
from configs import salient_concept
from w2s_jax.config import compose, default_config


def get_config(task: str = 'sciq'):
    """`task`: a task of texts, or `salient`."""
    if task == 'salient':
        return salient()
    c = default_config()
    c.task.name, c.task.train_size = task, 4000
    c.teacher.model, c.student.model = 'HuggingFaceTB/SmolLM2-135M', 'HuggingFaceTB/SmolLM2-360M'
    c.method.name = 'generative'
    c.student.mode = 'lora'
    c.train.batch_size = 32
    c = compose(c)
    c.method.epochs = 1
    return c


def salient():
    """The salient concept, spread over six features, and an encoder that its inputs teach."""
    c = salient_concept.get_config()
    c.student.model, c.student.mode, c.student.stopping.name = 'bottleneck-8', 'probe', ''
    c.method.name, c.task.turn, c.optimizer.learning_rate = 'generative', 6, 1e-2
    c.seeds = tuple(range(10))
    c = compose(c)
    c.method.epochs, c.method.rate = 20, 3e-3
    return c
