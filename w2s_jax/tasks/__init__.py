"""TASKS: name -> load(task_config, log) -> Dataset. Add one with a function and a line."""
from collections.abc import Callable

from w2s_jax.tasks import chess, synthetic

TASKS: dict[str, Callable] = {
    'chess': chess.load,
    'salient_concept': synthetic.load,
}
