"""How a token is chosen: pure functions of a row's next-token logits `[V]`, and the row's own key."""
import dataclasses

import jax
import jax.numpy as jnp

from w2s_jax.errors import ConfigError

_RANGES = {  # field -> (least, most, whether the least is allowed)
    'temperature': (0, float('inf'), True), 'top_k': (0, 2**31, True), 'top_p': (0, 1, False), 'min_p': (0, 1, True),
    'alpha': (0, 1, True), 'head': (0, 1, True)}


def top_k(logits, k: int):
    """`[V]` with all but the k largest at -inf (arXiv 1805.04833, section 5.4); those equal to the k-th stay."""
    least = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][-1]
    return jnp.where(logits >= least, logits, -jnp.inf)


def top_p(logits, p: float):
    """`[V]` with only the fewest tokens that have probability p together, the others at -inf (arXiv 1904.09751,
    section 3.1); those as probable as the last of them stay."""
    ordered = -jnp.sort(-logits)
    probabilities = jax.nn.softmax(ordered)
    kept = jnp.cumsum(probabilities) - probabilities < p  # of the first this is 0 < p
    return jnp.where(logits >= jnp.where(kept, ordered, jnp.inf).min(), logits, -jnp.inf)


def min_p(logits, p: float):
    """`[V]` with all that are less than p times as probable as the most probable at -inf (arXiv 2407.01082)."""
    return jnp.where(jax.nn.softmax(logits) >= p * jax.nn.softmax(logits).max(), logits, -jnp.inf)


def contrasted(logits, alpha: float, head: float):
    """`[V]`: log p1 - (1 - alpha) log p0 of the tokens v with p1(v) >= head max p1, else -inf: contrastive decoding
    (arXiv 2210.15097, eq. 2 and 3) between a model before (0) and after (1) it was aligned.

    Args:
      logits: `[2, V]`, of model 0 and of model 1.  alpha: at 1 what remains is p1 within that set.
    """
    before, after = jax.nn.log_softmax(logits)
    inside = after >= after.max() + jnp.log(head)
    return jnp.where(inside, after - (1 - alpha) * before, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Pick:
    """(logits, key) -> token, int32. Hashable: programs are compiled for one.

    temperature: logits are divided by it; 0 is greedy, whatever top_k, top_p and min_p say, as they all keep the most
      probable token (of equal ones the first is taken).
    top_k, top_p, min_p: applied in this order, after the temperature, as transformers does; 0, 1 and 0: not at all.
    alpha: of `contrasted`, whose score then takes the place of the logits, and two models are asked; None: one model.
    head: of `contrasted`; 0: all tokens.
    Raises ConfigError for numbers out of range.
    """
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    alpha: float | None = None
    head: float = 0.1

    def __post_init__(self):
        for field, (least, most, included) in _RANGES.items():
            value = getattr(self, field)
            if value is not None and not (least <= value <= most and (included or value > least) and value < 2**60):
                raise ConfigError(f'pick.{field}: {value!r}, expected a number {"from" if included else "above"} '
                                  f'{least} to {most}')

    @property
    def models(self) -> int:
        """How many models it asks."""
        return 1 if self.alpha is None else 2

    def scores(self, logits):
        """`[V]`: logits of the distribution that a token is drawn from."""
        if self.alpha is not None:
            logits = contrasted(logits, self.alpha, self.head)
        if not self.temperature:
            return logits
        logits = logits / self.temperature
        logits = top_k(logits, self.top_k) if self.top_k else logits
        logits = top_p(logits, self.top_p) if self.top_p < 1 else logits
        return min_p(logits, self.min_p) if self.min_p else logits

    def __call__(self, logits, key):
        """The token, of logits `[V]` in float32, or `[2, V]` if there are two models."""
        scores = self.scores(logits)
        return (jax.random.categorical(key, scores) if self.temperature else scores.argmax()).astype(jnp.int32)


GREEDY = Pick(temperature=0.0)
