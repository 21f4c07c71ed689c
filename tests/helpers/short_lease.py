"""Runs a module with leases that end after so many seconds of silence: `python short_lease.py SECONDS MODULE ...`."""
import runpy
import sys

from w2s_jax.store import lease
from w2s_jax.store.artifacts import Store

if __name__ == '__main__':
    seconds, module, *sys.argv[1:] = sys.argv[1:]
    Store.lease = lambda self, name: lease.hold(self.folder / 'leases' / name, float(seconds))
    runpy.run_module(module, run_name='__main__', alter_sys=True)
