"""TRANSFORMS: name -> what is done to weak labels: `fn(labels, features, settings, rng) -> (labels, keep)`.

labels: `[n, K]` float32, rows sum to 1.  features: `[n, ...]`, what the student's frozen model makes of the rows, for
those registered with `features=True`, else None.  rng: numpy's, drawn from the run's seed.  keep: `[n]` bool, which
rows the student learns from; None: all. Pure: no truth, no files.
"""
import numpy as np

from w2s_jax.registry import Registry, Setting, Settings

TRANSFORMS = Registry('transform', options=('features',), traces=True)


@TRANSFORMS.register('harden')
def harden(labels: np.ndarray, features, settings: Settings, rng):
    """Each label becomes its most probable class."""
    return np.eye(labels.shape[1], dtype=np.float32)[labels.argmax(-1)], None


@TRANSFORMS.register('confident', share=Setting(.5, 0, 1, '(]', traced=True, doc='of the rows, the surest ones'))
def confident(labels: np.ndarray, features, settings: Settings, rng):
    """Keeps the share of rows whose labels are surest, as many as share says; of equal ones the first."""
    surest = np.argsort(-labels.max(-1), kind='stable')[:max(1, round(settings.share * len(labels)))]
    return labels, np.isin(np.arange(len(labels)), surest)


def altered(labels: np.ndarray, temperature: float, noise: float, seed: int) -> np.ndarray:
    """Probabilities `[n, K]` as p^(1/T), renormalised, and a share of them moved by one to K - 1 classes (label noise,
    drawn by the seed)."""
    if temperature != 1:
        logs = np.log(np.maximum(labels, 1e-30)) / temperature
        logs -= logs.max(-1, keepdims=True)
        labels = (np.exp(logs) / np.exp(logs).sum(-1, keepdims=True)).astype(np.float32)
    if noise:
        rng, classes = np.random.default_rng((seed, 2)), labels.shape[-1]
        shift = np.where(rng.random(len(labels)) < noise, rng.integers(1, classes, len(labels)), 0)
        labels = np.take_along_axis(labels, (np.arange(classes) - shift[:, None]) % classes, axis=-1)
    return labels
