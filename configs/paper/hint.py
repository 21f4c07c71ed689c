"""Imitation made trivial (arXiv 2312.09390, appendix E.3): texts that end with what the weak model says of them.

  python -m experiments.run --config=configs/paper/hint.py --workdir=runs/hint --config.teacher.model=FOLDER \\
      --config.student.model=FOLDER --config.task.path=FOLDER      # paraphrase-MiniLM-L3-v2, SST-2; nothing downloaded

Needs a sentence encoder and SST-2, and half an hour of CPU time. Measured, ten seeds, 450 sentences a half, 500
test sentences, three epochs, rate 3e-4 (nothing tuned), accuracy in per cent with intervals over seeds and test
examples:

  weak         68.0 [64.4, 71.3]
  hint xent    68.0 [64.4, 71.3]   PGR .00 [.00, .00]   agrees with the weak model on every test row of every seed
  xent         68.1 [64.6, 71.7]   PGR .01 [-.26, .21]  repeats 74.5 +- 1.0 % of weak errors (ceiling: 38.9)
  ceiling      77.6 [74.6, 80.6]

A student that is told the answer learns to repeat it, and nothing else. That it does worse than a plain one is not
shown here: the plain one gains nothing either, and so few rows leave its PGR open.

One epoch (`--config.student.epochs=1`, three seeds): the hint is followed on all of the weak model's errors again
(67.9, as the weak model), but the ceiling has not learned enough (65.2 [56.1, 75.0]) for a PGR."""
from w2s_jax.config import compose, default_config


def get_config():
    """A small sentence encoder, all of it trained; its teacher a probe of the first token behind its first block."""
    c = default_config()
    c.task.name, c.task.train_size, c.task.test_size, c.task.max_length = 'sst2', 900, 500, 64
    c.teacher.model = c.student.model = 'sentence-transformers/paraphrase-MiniLM-L3-v2'
    c.teacher.mode, c.teacher.layers, c.teacher.read_out = 'probe', 1, 'first'
    c.student.mode, c.student.learning_rate = 'full', 3e-4
    c.train.epochs, c.train.batch_size = 3, 32
    c.train.watch, c.train.evaluations, c.train.keep = 64, 2, 'teacher'
    c.method.name, c.method.labels, c.method.baselines = 'hint', 'hard', ()  # a hint is an answer, no probability
    c.report.diagnostics, c.seeds = ('error_structure',), tuple(range(10))
    c = compose(c)
    c.method.words = ('negative', 'positive')
    return c
