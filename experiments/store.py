"""Checks, lists or prunes a store.

  python -m experiments.store verify|ls|gc --workdir=W
"""
import sys

from w2s_jax.store import command

if __name__ == '__main__':
    sys.exit(command.main())
