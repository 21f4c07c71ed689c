"""A grid for tests: three learning rates by two losses of a small student on a task without files, two seeds."""
from w2s_jax.config import default_config
from w2s_jax.engine import sweep


def get_config():
    """Checkpoints often, so that there is much to be interrupted."""
    c = default_config()
    c.task.name = 'salient_concept'
    c.task.train_size, c.task.test_size = 640, 100
    c.labels.source, c.student.model = 'column', 'mlp-128'
    c.optimizer.learning_rate, c.optimizer.warmup = 5e-4, 0.0
    c.seeds = (0, 1)
    c.train.epochs, c.train.batch_size, c.train.checkpoint_every = 10, 16, 20
    c.report.html, c.report.resamples = False, 100
    return c


def get_sweep():
    """Six cells: one ceiling of all, two groups of students."""
    return sweep.product([{'student.loss.name': 'xent'},
                          {'student.loss.name': 'confidence', 'student.loss.alpha': .75}],
                         sweep.values('student.learning_rate', [2e-4, 5e-4, 1e-3]))
