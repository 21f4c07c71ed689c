"""Tables of what a config can name."""
import difflib

from w2s_jax.errors import ConfigError


def known(field: str, name: str, table: dict) -> str:
    """`name`, if the table has it. Else raises ConfigError that lists the table and the nearest name."""
    if name in table:
        return name
    near = difflib.get_close_matches(str(name), table, 1)
    hint = f'; did you mean {near[0]!r}?' if near else ''
    raise ConfigError(f'{field}: unknown {name!r}, expected one of {", ".join(sorted(table))}{hint}')
