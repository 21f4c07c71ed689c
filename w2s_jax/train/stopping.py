"""STOPPING: name -> a rule that scores a model during training, without truth; the parameters of the best are kept.

A rule is `fn(probabilities, labels, settings) -> score`: numpy, `[M, K]` both, of rows that are held out of training
and have weak labels like those that are trained on. The higher score is the better one; of equal ones the first is
kept. Options of `register`:

  learned   the rule looks at the rows that are learned from, and none are held out
  evenly    it looks after every epoch, or at `train.evaluations` even steps, and not more often at the beginning
  past      it is also given `past=(answers, scores)`, of the looks before this one: `[t, M]` int32 and `[t]` float32
  peers     it is also given `peers`, `[2, M]` int32: what two more models, which learn one half of the rows each,
            answer when they are as far
"""
import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import special

from w2s_jax import data
from w2s_jax.registry import Registry, Setting, Settings

STOPPING = Registry('stopping rule', options=('learned', 'evenly', 'past', 'peers'))
TEMPERATURES = np.geomspace(.2, 200, 31)
HOLDOUT = Setting(.1, 0, 1, '()', doc="share of the rows, whole groups, held out of training for the rule")


@STOPPING.register('agreement')
def agreement(probabilities: np.ndarray, labels: np.ndarray, settings: Settings) -> float:
    """How often the model answers as its weak labels do (Burns et al. 2023, arXiv 2312.09390, figure 13)."""
    return float((probabilities.argmax(-1) == labels.argmax(-1)).mean())


@STOPPING.register('likelihood')
def likelihood(probabilities: np.ndarray, labels: np.ndarray, settings: Settings) -> float:
    """The mean log-likelihood of the weak labels, the negative of the cross-entropy."""
    return float((labels * np.log(np.maximum(probabilities, 1e-30))).sum(-1).mean())


@STOPPING.register('calibrated')
def calibrated(probabilities: np.ndarray, labels: np.ndarray, settings: Settings) -> float:
    """The mean log-likelihood of the weak labels by p^(1/T), T being that of TEMPERATURES which makes them likeliest.

    So a model that tells classes apart is not held back by being too sure (Guo et al. 2017, arXiv 1706.04599, section
    4).
    """
    logits = np.log(np.maximum(probabilities, 1e-30)) / TEMPERATURES[:, None, None]
    logs = logits - special.logsumexp(logits, axis=-1, keepdims=True)
    return float((labels * logs).sum(-1).mean(-1).max())


@STOPPING.register('label_wave', learned=True, evenly=True, past=True,
                   window=Setting(2, 1, 100, doc='changes that are averaged'))
def label_wave(probabilities: np.ndarray, labels: np.ndarray, settings: Settings, past: tuple) -> float:
    """Stops where fewest answers on the learned rows change: at the first minimum of their moving average.

    The share of answers that are other ones than a look ago falls while what generalizes is learned, and rises again
    when mislabelled rows are (Label Wave, arXiv 2502.07551). The labels are not looked at.
    """
    answers, scores = past
    if not len(answers):
        return -1.0
    every = np.concatenate([answers, probabilities.argmax(-1)[None]])
    changes = (every[1:] != every[:-1]).mean(-1)
    now = -float(changes[-settings.window:].mean())
    return now if scores[-1] == scores.max() else min(now, float(scores[-1]))  # else a minimum was passed


@STOPPING.register('epoch', learned=True, evenly=True, past=True,
                   number=Setting(1, 1, 10**6, doc='epochs, or looks, after which the parameters are kept'))
def epoch(probabilities: np.ndarray, labels: np.ndarray, settings: Settings, past: tuple) -> float:
    """Stops after so many epochs of a longer schedule; one is what arXiv 2312.09390 finds to overfit little."""
    return -abs(float(len(past[1]) + 1 - settings.number))


@STOPPING.register('cross_half', evenly=True, peers=True)
def cross_half(probabilities: np.ndarray, labels: np.ndarray, settings: Settings, peers: np.ndarray) -> float:
    """How often two models that learn one half of the rows each answer alike: what both find is not the errors that one
    half alone has. It costs as much again as the training; neither the labels nor the model's answers are looked at."""
    return float((peers[0] == peers[1]).mean())


def recorded(probabilities: np.ndarray, labels: np.ndarray, past: tuple) -> float:
    """The rule of such a model, whose answers are kept and not its parameters."""
    return 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """What a rule looks at.

    rule: (probabilities `[M, K]`, labels `[M, K]`) -> a score.  rows: `[R, M]` of the pool.  targets: `[R, M, K]`, or
    `[R, M]` int32.  evenly, past: as they were registered.  peers: `[R, E, 2, M]` int32, at each look, or None.
    """
    rule: Callable
    rows: np.ndarray
    targets: np.ndarray
    evenly: bool = False
    past: bool = False
    peers: np.ndarray | None = None

    def scores(self, probabilities: np.ndarray, past: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """`[R]` float32: the rule's score of each run. probabilities: `[R, M, K]`.  past: answers `[t, R, M]` and
        scores `[t, R]` so far."""
        targets = data.distributions(self.targets, probabilities.shape[-1])
        more: list[dict] = [{'past': tuple(x[:, r] for x in past)} if self.past else {} for r in range(len(targets))]
        if self.peers is not None:
            more = [one | {'peers': mine[len(past[1])]} for one, mine in zip(more, self.peers, strict=True)]
        return np.array([self.rule(p, t, **m) for p, t, m in zip(probabilities, targets, more, strict=True)],
                        np.float32)
