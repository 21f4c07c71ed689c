"""Tables of text: rows of cells, the first of them the head. Shown in columns, written as Markdown."""
import pathlib
import re

from w2s_jax.errors import ConfigError

Table = list[list[str]]


def columns(table: Table) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return '\n'.join('  '.join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table)


def markdown(table: Table) -> str:
    """The same as Markdown; numbers to the right, the first column to the left."""
    rule = ['---', *('---:' for _ in table[0][1:])]
    return '\n'.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |'
                     for row in [table[0], rule, *table[1:]])


def write(where: str, text: str) -> None:
    """Writes `text` to a file, or in `FILE#NAME` between its lines `<!-- NAME -->` and `<!-- end NAME -->`.

    Raises ConfigError where there are no such lines.
    """
    name, _, block = where.partition('#')
    path = pathlib.Path(name)
    if not block:
        path.write_text(text + '\n')
        return
    whole = path.read_text() if path.exists() else ''
    first, last = f'<!-- {block} -->\n', f'<!-- end {block} -->'
    if not re.search(re.escape(first) + '.*' + re.escape(last), whole, re.DOTALL):
        raise ConfigError(f'--markdown: {where!r}, expected a file with the lines {first.strip()} and {last}')
    head, _, rest = whole.partition(first)
    path.write_text(head + first + text + '\n' + last + rest.partition(last)[2])


def number(x: float) -> str:
    """Three digits that count, no exponent: 0.123, 12.3, 1230."""
    if x == 0 or abs(x) >= 100:
        return f'{x:.0f}'
    return f'{x:.3g}'


def share(x: float | None) -> str:
    """A share in per cent; a dash where there is none."""
    return '-' if x is None else f'{x:.1%}'
