"""What a process sets up before JAX allocates anything. Called by the entry points, never on import."""
import ctypes
import hashlib
import logging
import os
import pathlib
import platform
import sys

import absl.logging
import jax

from w2s_jax.errors import ConfigError

# glibc gives freed memory back to the kernel, which zeroes every page again on the next step: on a CPU that
# costs small models half their speed. These keep it (mallopt(3): names and values).
_KEEP_MEMORY = ((-8, 1), (-4, 0), (-1, -1), (-2, 2**28))  # arenas, no mmap, trim never, grow by 256 MB


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to keep freed memory in this process; False if there is no glibc."""
    if sys.platform != 'linux':
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, 'mallopt'):
        return False
    results = [libc.mallopt(name, value) for name, value in _KEEP_MEMORY]
    return all(results)


def return_freed_memory() -> None:
    """Gives what is free back to the kernel, once: between phases, whose buffers differ in size."""
    if arrow := sys.modules.get('pyarrow'):  # it has an allocator of its own
        arrow.default_memory_pool().release_unused()
    if sys.platform == 'linux' and hasattr(libc := ctypes.CDLL(None), 'malloc_trim'):
        libc.malloc_trim(0)


def keep_compilations() -> None:
    """Turns JAX's persistent compilation cache on, in a folder of the user's if JAX_COMPILATION_CACHE_DIR names no
    other ('' turns it off). Programs are machine code: on CPUs each kind of processor has a folder of its own."""
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
        return
    cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    jax.config.update('jax_compilation_cache_dir', str(cache / 'w2s_jax' / 'compiled' / _processor()))
    jax.config.update('jax_compilation_cache_max_size', 2 ** 31)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', .2)


def _processor() -> str:
    """A name for this kind of processor: what it can do, as Linux tells."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        found = sorted({line for line in lines if line.startswith(('flags', 'Features', 'model name'))})
    except OSError:
        found = [platform.processor()]
    return hashlib.sha256('\n'.join([platform.machine(), *found]).encode()).hexdigest()[:12]


def check_devices() -> None:
    """Raises ConfigError, which names JAX_PLATFORMS, if JAX cannot start on what that asks for."""
    try:
        jax.local_devices()
    except Exception as e:  # of many kinds; for what is not installed an AssertionError without a word
        asked = jax.config.values['jax_platforms']
        said = ' '.join(str(e).split()).partition(' (set JAX_PLATFORMS')[0] or type(e).__name__
        raise ConfigError(f'JAX_PLATFORMS={asked or ""}: JAX cannot start there ({said}), expected a platform of this '
                          'machine, as JAX_PLATFORMS=cpu') from None


def quiet() -> None:
    """Leaves out what libraries log about their own workings; orbax logs tracebacks of what it then raises."""
    absl.logging.set_verbosity(absl.logging.FATAL)
    absl.logging.set_stderrthreshold('fatal')
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    sys.excepthook, sys.unraisablehook = _excepthook, _unraisablehook


def _excepthook(kind, value, traceback) -> None:
    """As usual, but silent about the reads that orbax leaves behind when one of them has failed."""
    if not _left_behind(value):
        sys.__excepthook__(kind, value, traceback)


def _unraisablehook(unraisable) -> None:
    """The same for the writes that orbax leaves behind, as on a full disk."""
    if not _left_behind(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _left_behind(error) -> bool:
    return isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'
