"""Weak-to-strong generalization in JAX. For scripts and notebooks:

  import w2s_jax
  config = w2s_jax.default_config()
  config.student.model = 'chess-s'
  results = w2s_jax.run(config, 'runs/mine')
  results.students  # a pandas table, a row a student; results.runs has a row a seed

  cells = w2s_jax.product(w2s_jax.values('teacher.model', ['chess-xs', 'chess-s']),
                          w2s_jax.values('student.loss.name', ['xent', 'confidence']))
  results = w2s_jax.grid(config, cells, 'runs/my_grid')
"""
from w2s_jax.api import Results, chain, default_config, grid, product, run, values, zipped

__all__ = ['Results', 'chain', 'default_config', 'grid', 'product', 'run', 'values', 'zipped']
