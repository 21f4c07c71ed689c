"""Texts from language models: `bind` or `opened` gives `generate`, and a `Pick` says how tokens are chosen."""
from w2s_jax.sampling.generate import Texts, bind, opened
from w2s_jax.sampling.pick import GREEDY, Pick

__all__ = ['GREEDY', 'Pick', 'Texts', 'bind', 'opened']
