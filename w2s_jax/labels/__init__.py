"""Where weak labels come from (sources), and what is done to them before a student learns them (transforms)."""
from w2s_jax.labels import errors, filters, sources, texts, transforms, unsupervised

__all__ = ['errors', 'filters', 'sources', 'texts', 'transforms', 'unsupervised']
