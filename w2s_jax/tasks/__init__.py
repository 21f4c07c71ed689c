"""TASKS: name -> load(task_config, log) -> Dataset. Add one with a function and a line."""
from collections.abc import Callable

from w2s_jax.tasks import preference, synthetic
from w2s_jax.tasks.chess import puzzles
from w2s_jax.tasks.text import files, nlp

TASKS: dict[str, Callable] = {
    'chess': puzzles.load,
    'salient_concept': synthetic.load,
    'files': files.load,
    'preference': preference.load,
    'anthropic_hh': preference.load_hh,
} | dict.fromkeys(nlp.SPECS, nlp.load)
