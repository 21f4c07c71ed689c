"""What the entry points share: flags in, one clean line and exit status 2 if the user can mend it."""
import ast
import contextlib
import errno
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import app, flags

from w2s_jax import config as configs
from w2s_jax import paths
from w2s_jax.engine import plan
from w2s_jax.errors import ConfigError, HostsError, Preempted, TakenOver, UserError
from w2s_jax.runtime import multihost, preemption, process
from w2s_jax.text import one_line


def define_hosts() -> None:
    """Defines the flags of commands that several hosts run as one."""
    flags.DEFINE_bool('distributed', False, 'run as one with the same command on other hosts: those that TPU, SLURM, '
                      'GKE or MPI tell, or --coordinator, --processes and --process')
    flags.DEFINE_string('coordinator', None, 'host:port of process 0')
    flags.DEFINE_integer('processes', None, 'how many processes there are', 1)
    flags.DEFINE_integer('process', None, 'which of them this is, from 0', 0)
    flags.DEFINE_integer('join_seconds', 300, 'how long to wait for the others', 1)


def join_hosts() -> None:
    """Joins the other hosts where the flags say so. Raises ConfigError, HostsError."""
    values = {k: flags.FLAGS[k].value for k in ('coordinator', 'processes', 'process') if k in flags.FLAGS}
    if not values:
        return
    if flags.FLAGS['distributed'].value:
        seconds = flags.FLAGS['join_seconds'].value or 300
        if not multihost.supervised():
            sys.exit(multihost.supervise(values['coordinator'], values['process'], seconds))
        multihost.start(**values, seconds=seconds)
    elif extra := [k for k, v in values.items() if v is not None]:
        raise ConfigError(f'--{extra[0]}: only with --distributed')


def together(main: Callable[[], None]) -> None:
    """`main()`, and then leaves the other hosts. Raises HostsError where one of them broke it off."""
    try:
        main()
    except Preempted:  # all hosts are here
        multihost.finish()
        raise
    except (UserError, TakenOver, OSError):
        raise
    except RuntimeError as e:
        if multihost.count() > 1:
            multihost.blame(e)
        raise
    except Exception as e:
        multihost.leave(plan.blamed(e) or one_line(e), 2 if plan.blamed(e) else 1)
        raise
    multihost.finish()


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main()`; a UserError ends in `error: ...` on stderr and exit status 2."""
    process.quiet()
    preemption.heed()
    try:
        parse(sys.argv)
        process.keep_freed_memory()
        process.keep_compilations()
        join_hosts()
        try:
            together(main)
        except Exception:
            preemption.check()  # a library may have called what broke it off by another name
            raise
    except Preempted as e:
        leave(f'stopped by SIGTERM ({e}); run the same command again to resume', multihost.STOPPED)
    except TakenOver as e:
        leave(f'stopped: {e}; run the same command again to help it', multihost.STOPPED)
    except HostsError as e:
        leave(f'stopped: {e}; run the same command on every host to resume', multihost.STOPPED)
    except UserError as e:
        leave(f'error: {e}', 2)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        leave(f'error: {e.filename or "disk"}: cannot be written ({e.strerror}); free space, and run the same command '
              'again to resume', 2)
    except MemoryError as e:
        leave(f'error: not enough memory ({one_line(e) or "for what was asked"}), expected smaller sizes', 2)
    except Exception as e:
        if (blamed := plan.blamed(e)) is None:
            raise
        traceback.print_exception(e)
        leave(f'error: {blamed}', 2)
    except KeyboardInterrupt:
        leave('interrupted; run the same command again to resume', 130)


def leave(message: str, status: int) -> None:
    """Ends the process at once: at a polite exit orbax's background work prints tracebacks, and may abort."""
    multihost.leave(message, status)
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def parse(argv: list[str]) -> None:
    """Parses all flags. Raises ConfigError for whatever absl, ml_collections or a config file object to."""
    try:
        app.define_help_flags()
        if 'config' in flags.FLAGS:
            flag = flags.FLAGS['config']
            flag.parser = Composing(flag.parser, argv)
        rest = flags.FLAGS(argv)
    except UserError:
        raise
    except SystemExit:
        sys.exit(0)  # absl has printed its help, after which it exits with 1
    except flags.Error as e:
        raise ConfigError(explain(e, argv) if 'Traceback' in str(e) else one_line(e)) from None
    except Exception as e:  # a config file is a program: it may raise anything
        raise ConfigError(explain(e, argv)) from None
    if len(rest) > 1:
        raise ConfigError(f'{rest[1]}: unexpected argument, expected flags such as --config=configs/quickstart.py')
    _check_config(argv)


@contextlib.contextmanager
def no_exit():
    """A block of a user's program, which may raise anything but must not end this one."""
    try:
        yield
    except (Exception, KeyboardInterrupt, Preempted):
        raise
    except BaseException as e:
        raise RuntimeError(f'{type(e).__name__}: {one_line(e)}, expected no exit in a config file') from e


class Composing(flags.ArgumentParser):
    """Reads a config file, imports its plug-ins, and brings the config into the form that it has with what the flags
    name (`--config.method.name=...`), so that these may set the fields that come with it."""

    def __init__(self, parser, argv: list[str]):
        self.parser: Any = parser.parser if isinstance(parser, Composing) else parser
        found = ((re.match(r'--?(no)?config\.([\w.]+)(?:=(.*))?', arg, re.DOTALL), after)
                 for arg, after in itertools.pairwise([*argv[1:], '--']))
        self.overrides = [(m[2], after if m[3] is None and not after.startswith('--') else m[3])
                          for m, after in found if m]

    def parse(self, argument):
        """A ConfigDict, locked. Raises ConfigError for a field that is not there."""
        paths.check_file(str(argument).partition(':')[0], ConfigError)
        with no_exit():
            config = self.parser.parse(argument)
        if not isinstance(config, ml_collections.ConfigDict):
            return config
        with config.unlocked():
            for field, text in sorted(self.overrides, key=lambda o: (not configs.naming(o[0]), o[0] != 'plugins')):
                if text is not None and configs.naming(field):
                    self.name(config, field, text)
                    plan.load_plugins(config)
        plan.load_plugins(config)
        config = configs.compose(config)
        for field, text in self.overrides:
            configs.check_name(field, config)
            configs.check_text(field, text, config)
        return config.lock()

    def name(self, config, field: str, text: str) -> None:
        """Sets a field that names something, as far as its text can be read; the flag itself says what is wrong."""
        *path, last = field.split('.')
        node = config
        for part in path:
            if part not in node:
                return
            node = node[part]
        several = isinstance(node.get(last), tuple) or text.startswith(('(', '['))
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            value = ast.literal_eval(text) if several else text
            node[last] = tuple(value) if isinstance(value, list) else value

    def flag_type(self) -> str:
        return self.parser.flag_type()


def explain(error: Exception, argv: list[str]) -> str:
    """What went wrong in the config file, and at which of its lines."""
    option, path = _config_option(argv)
    trace = ''.join(traceback.format_exception(error)).strip()
    message = list(itertools.takewhile(lambda line: not line.startswith(' '), reversed(trace.splitlines())))
    lines = re.findall(rf'File "{re.escape(path)}", line (\d+)', trace)
    return ': '.join([option, *(f'line {n}' for n in lines[-1:]), ' '.join(' '.join(reversed(message)).split())])


def _config_option(argv: list[str]) -> tuple[str, str]:
    option = next((arg for arg in argv if re.match('--?config=', arg)), '--config')
    return option, option.partition('=')[2].partition(':')[0]


def _check_config(argv: list[str]) -> None:
    """absl takes a file that is not there, or a `get_config` that returns nothing, until it is first used."""
    if 'config' not in flags.FLAGS:
        return
    flag = flags.FLAGS['config']
    if flag.present and not isinstance(flag.value, ml_collections.ConfigDict):
        option, path = _config_option(argv)
        found = 'get_config() returned something else' if os.path.isfile(path) else 'no such file'
        raise ConfigError(f'{option}: {found}, expected a Python file whose get_config() returns a ConfigDict')
