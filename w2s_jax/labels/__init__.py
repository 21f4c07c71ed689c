"""Where weak labels come from (sources), and what is done to them before a student learns them (transforms)."""
from w2s_jax.labels import (
    continuations,
    ensembles,
    errors,
    filters,
    passwords,
    sources,
    specialists,
    texts,
    transcripts,
    transforms,
    unsupervised,
)

__all__ = ['continuations', 'ensembles', 'errors', 'filters', 'passwords', 'sources', 'specialists', 'texts',
           'transcripts', 'transforms', 'unsupervised']
