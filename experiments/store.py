"""Checks, lists or prunes a store.

  python -m experiments.store verify|ls|gc --workdir=W
"""
import sys

from w2s_jax import store_command

if __name__ == '__main__':
    sys.exit(store_command.main())
