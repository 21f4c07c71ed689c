"""Do larger students make their supervisor's errors less often (arXiv 2312.09390, section 5.1.3, figure 8)?

  python -m experiments.grid --config=configs/paper/inverse_scaling.py --workdir=runs/inverse_scaling

Needs nothing; seven minutes of CPU time. The report's figure "Agreement against the size of the student" has agreement
where chess-xs is right and where it is wrong (29.6 % right), and, dotted, how often the ceiling gives the same wrong
answer. Measured, three seeds, 200 puzzles a half, 800 test puzzles, per cent with standard errors over seeds;
`imitation` is `inheritance_imitation`, student less ceiling, with its interval over seeds (of these test puzzles):

                     two epochs                                      five epochs
  student    right       wrong       imitation              right       wrong       imitation
  chess-xs   83.0 +- .8  81.1 +- 1.6   6.6 [4.8, 8.5]       92.7 +- .7  92.8 +- .8   5.9 [4.2, 7.6]
  chess-s    81.0 +- .5  18.9 +- .1    0.4 [-1.0, 1.7]      83.7 +- .4  21.7 +- .3   1.7 [-0.1, 3.5]
  chess-m    84.7 +- .4  16.6 +- .1   -1.0 [-2.7, 0.7]      86.2 +- .3  18.8 +- .1  -0.4 [-1.1, 0.3]
  chess-l    88.3 +- .3  15.1 +- .2   -1.3 [-2.4, -0.2]     88.3 +- .5  17.5 +- .2  -0.4 [-1.2, 0.5]

From chess-s on, larger students agree less with the supervisor's errors, on every seed and at both lengths, and more
where it is right. But so do ceilings, which never saw a weak label: at these lengths and this rate students of other
sizes than the teacher's imitate next to nothing, and the trend is that of better models. Longer training repeats more
errors. A student of the teacher's own size starts from the same parameters, and has no PGR.
"""
from w2s_jax.config import compose, default_config
from w2s_jax.engine import sweep


def get_config():
    """chess-xs teaches the ladder on the built-in puzzles; the ceiling's errors are the control."""
    c = default_config()
    c.task.train_size, c.task.test_size = 400, 800
    c.teacher.model, c.student.model = 'chess-xs', 'chess-s'
    c.student.learning_rate = 1e-4  # the quickstart's rate, chosen there
    c.seeds = (0, 1, 2)
    c.train.keep = 'teacher'
    c.report.diagnostics = ('error_structure',)
    c = compose(c)
    c.report.error_structure.of = ('inheritance', 'new_errors')
    return c


def get_sweep():
    """The students, and two lengths of training."""
    return sweep.product(sweep.values('student.model', ['chess-xs', 'chess-s', 'chess-m', 'chess-l']),
                         sweep.values('student.epochs', [2, 5]))
