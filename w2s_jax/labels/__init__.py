"""Where weak labels come from (sources), and what is done to them before a student learns them (transforms)."""
from w2s_jax.labels import filters, sources, transforms, unsupervised

__all__ = ['filters', 'sources', 'transforms', 'unsupervised']
