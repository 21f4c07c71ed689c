"""A grid of probes for tests: two losses of a tiny language model whose features are computed once."""
from w2s_jax.config import default_config
from w2s_jax.engine import sweep


def get_config():
    """Texts of a file, named on the command line, as are the models."""
    c = default_config()
    c.task.name, c.task.text, c.task.label, c.task.test_size = 'files', 'text', 'label', 40
    c.student.mode = 'probe'
    c.optimizer.learning_rate = 1e-2
    c.seeds = (0, 1)
    c.train.epochs, c.train.batch_size = 2, 8
    c.report.html, c.report.resamples = False, 100
    return c


def get_sweep():
    """Two cells."""
    return sweep.values('student.loss.name', ['xent', 'confidence'])
