"""Files that a reader sees whole, the old one or the new one, whoever else writes them."""
import contextlib
import glob
import pathlib
import threading

from w2s_jax.store import lease


def write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
    """Writes a file aside, under a name that is no other thread's or process's, and renames it. Raises OSError.

    What killed processes left aside of it is removed. A text is ASCII; of other texts, give the bytes.
    """
    part = path.with_name(f'.part-{path.name}-{lease.process()}.{threading.get_ident()}')
    try:
        if isinstance(content, str):
            part.write_text(content)
        else:
            part.write_bytes(content)
        part.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    for rest in path.parent.glob(f'.part-{glob.escape(path.name)}-*'):
        if not lease.may_live(rest.name.rpartition('-')[2]):
            rest.unlink(missing_ok=True)
    return path
