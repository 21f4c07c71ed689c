"""Paths as users write them: what is refused before anything is read or written."""
import os
import pathlib
import stat
from collections.abc import Callable

from w2s_jax.errors import ConfigError, DataError, UserError


def folder(path, field: str) -> pathlib.Path:
    """The folder that `field` names, absolute; it need not be there. Raises ConfigError for what can be none."""
    if not isinstance(path, str | os.PathLike) or not str(path).strip():
        raise ConfigError(f'{field}: {path!r}, expected a folder')
    if '://' in str(path):
        raise ConfigError(f'{field}: {path}, expected a folder here; a URL is for --store of a grid')
    try:
        found = pathlib.Path(path).expanduser().absolute()
        there = os.path.lexists(found)
        if there and not found.is_dir():
            raise ConfigError(f'{field}: {path}: a file, expected a folder')
        if not there:
            found.stat()
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise ConfigError(f'{field}: {shortened(path)}: lies below a file, expected a folder') from None
    except (OSError, RuntimeError, ValueError, TypeError) as e:  # too long, a null byte, no such user
        raise ConfigError(f'{field}: {shortened(path)}: {reason(e)}, expected a folder') from None
    return found


def check_file(path, kind: Callable[[str], UserError] = DataError) -> None:
    """Raises a UserError of that `kind` for what is there and no regular file: reading a pipe would wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as e:
        raise kind(f'{shortened(path)}: cannot be read ({reason(e)})') from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise kind(f'{path}: a pipe or a device, expected a regular file')


def exists(path: pathlib.Path, field: str = '') -> bool:
    """Whether something is there. Raises DataError for what can be no path."""
    try:
        return bool(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as e:
        where = f'{field}: ' if field else ''
        raise DataError(f'{where}{shortened(path)}: cannot be read ({reason(e)})') from None


def is_folder(path) -> bool:
    """Whether that is a folder; False for what can be no path."""
    try:
        return pathlib.Path(path).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return False


def shortened(path) -> str:
    """A path, of a long one the beginning."""
    text = str(path)
    return repr(text) if not text.isprintable() and len(text) <= 200 else text if len(text) <= 200 else f'{text[:80]}…'


def reason(error: BaseException) -> str:
    """What the system says, in lower case."""
    return (getattr(error, 'strerror', None) or ' '.join(str(error).split()) or type(error).__name__).lower()
