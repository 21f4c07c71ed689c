"""What the entry points share: flags in, one clean line and exit status 2 where the user can mend it."""
import sys
from collections.abc import Callable

from absl import app, flags

from w2s_jax import runtime
from w2s_jax.errors import ConfigError, UserError


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main()`; a UserError ends in `error: ...` on stderr and exit status 2."""
    runtime.quiet()
    try:
        parse(sys.argv)
        runtime.keep_freed_memory()
        main()
    except UserError as e:
        print(f'error: {e}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted; run the same command again to go on', file=sys.stderr)
        sys.exit(130)


def parse(argv: list[str]) -> None:
    """Parses all flags. Raises ConfigError, in one line, for whatever absl or ml_collections object to."""
    try:
        app.define_help_flags()
        rest = flags.FLAGS(argv)
    except flags.Error as e:
        raise ConfigError(one_line(e)) from None
    except (AttributeError, KeyError, TypeError, ValueError, FileNotFoundError, SyntaxError, ImportError) as e:
        raise ConfigError(one_line(e)) from None
    if len(rest) > 1:
        raise ConfigError(f'{rest[1]}: unexpected argument, expected flags such as --config=configs/quickstart.py')


def one_line(error: Exception) -> str:
    """The message of an exception without line breaks and quotes around it."""
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return ' '.join(text.split())
