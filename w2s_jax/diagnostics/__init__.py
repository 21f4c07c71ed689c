"""DIAGNOSTICS: name -> what else is measured on stored predictions: `fn(student, weak, ceiling, truth, settings)`.

student, weak, ceiling: of one seed and test set, the probabilities `[N, K]` (K up to 5; else those of the best five
classes, zero elsewhere, is not stored: `top` `[N, 5]` classes) as a `Predictions`.  truth: `[N]`. Pure numpy.
Returns: {measure: number}, or {measure: (number, title, factor, digits)}; a mean over seeds and its standard error are
made of them, and they describe themselves in results.json, so that a report needs no plug-in.
"""
from w2s_jax.registry import Registry

DIAGNOSTICS = Registry('diagnostic')
