"""Scalable oversight: protocols by which a weak judge decides between two claims, as pure functions on arrays.

registry.py has the types and `held`; protocols.py the protocols; scores.py what is made of verdicts once it is known
which claim was right; sparse_pixels.py a game whose debaters are exact; chess_lines.py and chess_board.py lines of
chess; self_critique.py critics of critics, with what they are worth in closed form; sandwich.py holds protocols
against experts; scaling.py is success by capability gap; interop.py writes transcripts of texts as logs of Inspect.
amplification.py is training, and not a protocol of this kind.
"""
from w2s_jax.protocols import (
    amplification,
    chess_board,
    chess_lines,
    interop,
    protocols,
    sandwich,
    scaling,
    scores,
    self_critique,
    sparse_pixels,
)
from w2s_jax.protocols.registry import PROTOCOLS, Agent, Judge, Question, Transcript, both, held, swapped

__all__ = ['PROTOCOLS', 'Agent', 'Judge', 'Question', 'Transcript', 'amplification', 'both', 'chess_board',
           'chess_lines', 'held', 'interop', 'protocols', 'sandwich', 'scaling', 'scores', 'self_critique',
           'sparse_pixels', 'swapped']
