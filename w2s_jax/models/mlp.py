"""Models over plain features, for tasks that need no language model: a multi-layer perceptron, and no backbone."""
import functools

import flax.linen as nn

# Uniform within 1 / sqrt(fan in), PyTorch's default: from so small a start the linear concept is learned well
# before the interactions that a supervisor's systematic errors are made of.
_SMALL = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class FeatureMLP(nn.Module):
    """features `[B, F]` float32 to logits `[B, K]`: one hidden ReLU layer of `width`."""
    width: int
    num_classes: int

    @nn.compact
    def __call__(self, features):
        dense = functools.partial(nn.Dense, kernel_init=_SMALL)
        return dense(self.num_classes, name='out')(nn.relu(dense(self.width, name='hidden')(features)))


class NoBackbone(nn.Module):
    """Nothing, and no parameters: below a head that reads inputs as they are."""

    @nn.compact
    def __call__(self):
        return None
