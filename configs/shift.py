"""Sentiment that shifts: taught on films, measured on films and on other people's reviews, of six losses or teachers.

  python -m experiments.run --config=configs/shift.py:losses --workdir=runs/shift \
      --config.task.path=DATA/rotten_tomatoes --config.teacher.model=SMALL --config.student.model=LARGE \
      --config.task.shifted="('imdb=DATA/imdb','books=DATA/books.parquet', ...)"       # folders and files of one's own
  python -m experiments.run --config=configs/shift.py:teachers ... --config.method.teachers="('SMALL','OTHER','THIRD')"

Probes on frozen language models, ten seeds. Further test sets are files with the columns of the task, texts in `text`
and classes in `label`; rows that the pool has are left out of them and counted. Every test set has accuracies, PGR and
intervals of its own in results.json and the report; a student that falls below its supervisor on one is an alarm. With
`teachers` several supervisors label together: even weights, learned ones (RAVEN), and a student of each alone.
"""
from configs import probe
from w2s_jax.config import compose

LOSSES = ('xent', 'confidence', 'adaptive_confidence', 'entropy', 'generalized_xent', 'symmetric_xent')


def get_config(what: str = 'losses'):
    """`what`: losses, of one teacher, or teachers, whose labels are mixed."""
    c = probe.get_config('rotten_tomatoes')
    c.seeds = tuple(range(10))
    c.task.max_length, c.task.test_size = 64, 500  # reviews are long: their beginnings
    c.teacher.read_out = c.student.read_out = 'mean'
    if what == 'losses':
        c.student.loss.name, c.method.baselines = LOSSES[1], LOSSES[:1] + LOSSES[2:]
        return c
    c.method.name, c.student.loss.name = 'raven', 'xent'
    c = compose(c)
    c.method.alone = True
    return c
