"""TASKS: name -> load(task_config, log) -> Dataset. Add one with a function and a line."""
from collections.abc import Callable

from w2s_jax.tasks import chess, files, nlp, preference, synthetic

TASKS: dict[str, Callable] = {
    'chess': chess.load,
    'salient_concept': synthetic.load,
    'files': files.load,
    'preference': preference.load,
    'anthropic_hh': preference.load_hh,
} | dict.fromkeys(nlp.SPECS, nlp.load)
