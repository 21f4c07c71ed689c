"""Checkpoints of a training run: orbax behind two functions. Saved aside and renamed, so never half there."""
import contextlib
import pathlib
from collections.abc import Callable

import jax
import orbax.checkpoint as ocp

from w2s_jax.errors import StoreError
from w2s_jax.runtime import multihost


class Checkpoint:
    """The last checkpoints of one group of runs, in a folder of its own.

    check: called before each save; what it raises keeps it from being written.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 2, check: Callable[[], None] = lambda: None):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self.folder, self.check = folder.resolve(), check
        with self._writing():
            self.manager = ocp.CheckpointManager(self.folder, options=options)

    def restore(self, state, history: dict):
        """The newest (state, history, aux) that was saved; what was passed in, and {}, if there is none.

        Raises StoreError where the newest cannot be read into this state.
        """
        step = self.manager.latest_step()
        if step is None:
            return state, history, {}
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, {'state': state, 'history': history})
        try:
            saved = self.manager.restore(step, args=ocp.args.Composite(
                trees=ocp.args.StandardRestore(like), aux=ocp.args.JsonRestore()))
        except Exception as e:  # orbax raises bare ones too
            raise StoreError(f'{self.folder}/{step}: unreadable checkpoint ({type(e).__name__}); '
                             'delete it to go on from the one before, or from the start') from None
        return saved.trees['state'], saved.trees['history'], saved.aux

    def save(self, step: int, state, history: dict, aux: dict | None = None) -> None:
        """Saves in the background, after waiting for the save before. Raises StoreError if that one failed.

        aux: JSON.
        """
        self.check()
        with self._writing():
            self.manager.save(step, args=ocp.args.Composite(
                trees=ocp.args.StandardSave({'state': state, 'history': history}), aux=ocp.args.JsonSave(aux or {})))

    def close(self) -> None:
        """Waits for what is being saved. Raises StoreError where it failed."""
        with self._writing():
            self.manager.wait_until_finished()
            self.manager.close()

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except Exception as e:  # a full disk is an OSError, a ValueError or a RuntimeError, by who meets it first
            if multihost.count() > 1 and isinstance(e, RuntimeError):
                raise  # most likely another host is gone
            reason = ' '.join(str(e).split()).rpartition(': ')[2].partition(' [')[0]
            raise StoreError(f'{self.folder}: cannot be written ({reason or type(e).__name__})') from None
