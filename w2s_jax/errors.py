"""What a user can do wrong, as types. The entry points print the message in one line and exit with 2."""


class UserError(Exception):
    """Something that the user can mend; the message is one line: what, where, and what was expected."""

    def __str__(self) -> str:
        return ' '.join(super().__str__().splitlines())  # also where a value that it quotes has several


class ConfigError(UserError):
    """A field of the config, or a combination of fields, that cannot be run."""


class DataError(UserError):
    """A file or a row of data that cannot be used."""


class WeightsError(UserError):
    """A weight file that is missing, damaged or of the wrong shape."""


class StoreError(UserError):
    """A work directory that cannot be used."""


class NonFiniteError(UserError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""


class Preempted(BaseException):
    """This process was asked to stop (SIGTERM) and has saved what it did; the message says where it was.

    No Exception, as KeyboardInterrupt is none: it comes at any moment, and is not to be taken for a damaged file."""


class TakenOver(Exception):
    """Another process has taken over the work of this one, which it had not heard of for long; the message says what.
    """


class HostsError(Exception):
    """Another host of this run is gone or has stopped; the message says which."""
