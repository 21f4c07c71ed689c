"""Logistic regression on the first of the features: who sees more of them can be exactly who sees fewer."""
import flax.linen as nn


class Logistic(nn.Module):
    """features `[B, F]` float32 to logits `[B, K]`, a linear function of the first `seen` of them."""
    seen: int
    num_classes: int

    @nn.compact
    def __call__(self, features):
        # From zero: the same start for every width, and the function that all of them share.
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name='out')(features[:, :self.seen])
