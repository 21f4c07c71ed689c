"""Scalable oversight: protocols by which a weak judge decides between two claims, as pure functions on arrays.

registry.py has the types and `held`; protocols.py the protocols; scores.py what is made of verdicts once it is known
which claim was right; sparse_pixels.py a game whose debaters are exact; sandwich.py holds protocols against experts;
scaling.py is success by capability gap; interop.py writes transcripts of texts as logs of Inspect.
"""
from w2s_jax.protocols import interop, protocols, sandwich, scaling, scores, sparse_pixels
from w2s_jax.protocols.registry import PROTOCOLS, Agent, Judge, Question, Transcript, both, held, swapped

__all__ = ['PROTOCOLS', 'Agent', 'Judge', 'Question', 'Transcript', 'both', 'held', 'interop', 'protocols',
           'sandwich', 'scaling', 'scores', 'sparse_pixels', 'swapped']
