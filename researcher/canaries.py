"""Planted leaks: ideas that take the truth if they can. Each must be refused, and the log must say so."""
import json
from typing import TYPE_CHECKING

from researcher.idea import Idea, parse
from w2s_jax.api import UserError

if TYPE_CHECKING:
    from researcher.engine import Engine

LOSS = """
from w2s_jax.losses import LOSSES
@LOSSES.register('canary')
def canary(logits, targets, *, progress, settings, state):
    {body}
    return (logits ** 2).sum(-1), {{}}, state
"""
TRUTH = """
from w2s_jax.methods import METHODS
@METHODS.register('canary')
def canary(b):
    for seed in b.seeds:
        weak, labels = b.weak_labels(seed)
        b.weak(weak, labels)
        half = b.halves[seed].student
        b.ceiling(b.fit('ceiling', b.student, half, b.truth))
        b.students([b.fit({role!r}, b.student, half, b.truth)])
"""


def texts(engine: 'Engine') -> dict[str, tuple[str, str, bool]]:
    """Name -> (file name, text, whether its text alone is enough to refuse it)."""
    secret = str(engine.vault.folder / 'secret')
    return {
        'config of the data': ('a.json', json.dumps({'task.seed': 3}), True),
        'config of a source': ('b.json', json.dumps({'labels.source': 'teacher'}), True),
        'config of paths': ('c.json', json.dumps({'method.chain': ['/root/truth']}), True),
        'opens a file': ('d.py', LOSS.format(body=f'open({secret!r})'), True),
        'student on truth': ('e.py', TRUTH.format(role='student'), False),
        'ceiling as student': ('f.py', TRUTH.format(role='ceiling'), False),
        'reads the secret': ('g.py', LOSS.format(body=f'open({secret!r}, "rb").read()'), False)}


def run(engine: 'Engine') -> dict[str, str]:
    """Name -> why each was refused; '' for one that was not. All are logged."""
    out = {}
    for name, (file, text, by_text) in texts(engine).items():
        try:
            idea = parse(file, text) if by_text or file != 'g.py' else Idea(
                file, text, {'student.loss.name': 'canary'}, True)  # as if its text had not been read
            engine.students(idea)
            out[name] = ''
        except UserError as e:
            out[name] = str(e)
        engine.note({'event': 'canary', 'name': name, 'refused': out[name]})
    return out
