"""What every model of images gives, and what a head reads of it."""
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """hidden: `[B, L, D]`, a vector for each place (of a vision transformer the class token before them).  pooled:
    `[B, D]`, or None without a pooler.  layers: the hidden states `[B, L, D]` that enter the first layer or stage and
    leave each of them, if asked for.  first: how many of the L are no places."""
    hidden: Any
    pooled: Any
    layers: Any
    first: int


def read_out(seen: Seen, place: str):
    """`[B, D]`: `first`: the class token, `mean`: over places, `pooled`: as the model itself pools."""
    if place == 'pooled':
        return seen.pooled
    return seen.hidden[:, 0] if place == 'first' else seen.hidden[:, seen.first:].mean(1)
