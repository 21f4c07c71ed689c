"""Scalable oversight: protocols by which a weak judge decides between two claims, as pure functions on arrays.

registry.py has the types and `held`; protocols.py the protocols; scores.py what is made of verdicts once it is known
which claim was right; sparse_pixels.py a game whose debaters are exact; chess_lines.py and chess_board.py
lines of chess.
"""
from w2s_jax.protocols import chess_board, chess_lines, protocols, scores, sparse_pixels
from w2s_jax.protocols.registry import PROTOCOLS, Agent, Judge, Question, Transcript, both, held, swapped

__all__ = ['PROTOCOLS', 'Agent', 'Judge', 'Question', 'Transcript', 'both', 'chess_board', 'chess_lines', 'held',
           'protocols', 'scores', 'sparse_pixels', 'swapped']
