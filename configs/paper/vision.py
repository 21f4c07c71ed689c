"""Linear probes on vision models' features that you bring as arrays (arXiv 2312.09390, appendix D.1; the paper's
vision setup is AlexNet as the supervisor, and probes on DINO's features of ImageNet's validation images).

  python -m experiments.run --config=configs/paper/vision.py --workdir=runs/vision --config.task.path=features.npz
  python -m experiments.run --config=configs/paper/vision.py:given --workdir=runs/vision_given \
      --config.task.path=FOLDER --config.task.given=alexnet

Needs: a .npz file, a folder of .npy files or a .parquet file with arrays `strong` `[N, D]`, `weak` `[N, W]` and
`label` `[N]` (other names: task.strong ...). By default the teacher is a probe on `weak`, which learns one half. With
`given` weak labels come along instead, as the paper's do: `task.given`, AlexNet's softmax `[N, 1000]`, the whole pool
being the student's and the ceiling's (but for a share of .01, which is nobody's). Heads alone train, which takes
minutes for 40 000 rows of 2048 features (not timed). AlexNet's and DINO's weights are not at hand here, so that the
published numbers were not reproduced.

Published in the README of openai/weak-to-strong at its release (50 000 images, 40 000 of them to train on; Adam at
1e-3, batch 128, 20 epochs for ResNet-50, 5 for ViT-B/8), accuracy in per cent: AlexNet 56.6; DINO ResNet-50 taught by
it 60.7, ceiling 63.7; DINO ViT-B/8 taught by it 64.2, ceiling 74.9: PGR .58 and .42. The README after its repair of
the schedule has 61.9 of 64.5 and 66.6 of 74.0: .67 and .58. There features are not scaled, and the last step counts;
here they are scaled to mean 0 and deviation 1 over the pool, and a rule on held-out weak labels chooses the step.
"""
from w2s_jax.config import compose, default_config
from w2s_jax.errors import ConfigError


def get_config(labels: str = 'teacher'):
    """`labels`: teacher (a probe on the weak features), or given (weak labels of the file)."""
    if labels not in ('teacher', 'given'):
        raise ConfigError(f"--config=configs/paper/vision.py:{labels}: unknown, expected 'teacher' or 'given'")
    c = default_config()
    c.task.name = 'features'
    c.teacher.model = c.student.model = 'linear'
    c.teacher.mode = c.student.mode = 'probe'
    c.method.baselines = ()
    c.train.batch_size, c.train.epochs, c.train.window = 128, 20, 1
    c.train.eval_batch_size = 1000
    c.optimizer.learning_rate = 1e-3
    c = compose(c)
    if labels == 'given':
        c.labels.source, c.task.weak, c.method.share = 'column', '', .01
    return c
