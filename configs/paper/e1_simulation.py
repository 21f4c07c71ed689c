"""Supervisors that a student can simulate, and such that it cannot (arXiv 2312.09390, appendix E.1), in seconds.

  python -m experiments.run --config=configs/paper/e1_simulation.py --workdir=runs/e1 \\
      --config.teacher.features=10

Needs nothing; 20 seconds of CPU time. Measured, ten seeds, per cent: teacher 74.7, its students 74.5, of random errors
94.7, ceiling 99.0. Twenty normal features; the truth is the sign of their sum. The teacher is a logistic regression on
the first of them, so that the student, one on all, can be exactly the teacher. Labels are hard, as in the paper.
Students:

  xent                 learns the teacher's labels: hardly any gain, and it agrees with the teacher far more often than
                       the teacher is right
  random errors xent   learns labels that are wrong as often, at random (an oracle: they are made from truth): far above
                       its labels

Not as in the paper: the features are drawn and not SciQ's, both models see the first of them in one order, and Adam in
place of scikit-learn's solver, from zero and without regularisation.
"""
from w2s_jax.config import default_config


def get_config():
    """Ten seeds, a teacher on the first ten of twenty features."""
    c = default_config()
    c.task.name, c.task.train_size, c.task.test_size = 'linear_features', 8000, 4000
    c.teacher.model = c.student.model = 'logistic'
    c.teacher.features = 10
    c.method.name, c.method.labels, c.method.baselines = 'simulated', 'hard', ()
    c.method.errors = ('random',)
    c.optimizer.weight_decay = 0.0
    c.seeds = tuple(range(10))
    c.train.epochs, c.train.batch_size, c.train.eval_batch_size = 10, 128, 1000
    return c
