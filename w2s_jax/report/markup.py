"""HTML that others made, cut down to what a page can show without harm.

A task draws its examples as HTML, and a report finds them in a file that anybody may have written. So what a page shows
is written anew: tags, attributes and styles that are listed here, all text escaped, every tag closed.
"""
import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser

from markupsafe import Markup

TAGS = frozenset((
    'b', 'blockquote', 'br', 'caption', 'code', 'dd', 'div', 'dl', 'dt', 'em', 'figcaption', 'figure', 'h3',
    'h4', 'hr', 'i', 'img', 'kbd', 'li', 'mark', 'ol', 'p', 'pre', 's', 'small', 'span', 'strong', 'sub', 'sup',
    'table', 'tbody', 'td', 'tfoot', 'th', 'thead', 'tr', 'u', 'ul'))
EMPTY = frozenset(('br', 'hr', 'img'))
UNSEEN = frozenset(('script', 'style'))  # the parser takes what is in them for text
ATTRIBUTES = frozenset((
    'alt', 'aria-hidden', 'aria-label', 'class', 'colspan', 'data-square', 'height', 'rowspan', 'scope',
    'title', 'width'))
STYLES = frozenset((
    'background', 'background-color', 'border', 'box-shadow', 'color', 'font-style', 'font-weight',
    'text-align', 'white-space', 'width'))
STYLE = re.compile(r'(?:[\w#%., -]|(?:rgb|hsl)a?\([\d., %]+\))+', re.ASCII)
PICTURE = re.compile(r'data:image/(?:gif|jpeg|png|webp);base64,[A-Za-z0-9+/=]+')


def cleaned(given: str) -> Markup:
    """The same HTML without anything that runs, loads or covers the page."""
    writer = _Writer()
    writer.feed(given)
    writer.close()
    return Markup(''.join([*writer.written, *(f'</{tag}>' for tag in reversed(writer.open))]))


class _Writer(HTMLParser):
    """written: pieces of HTML.  open: the tags that are to be closed, the outermost first."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.written: list[str] = []
        self.open: list[str] = []
        self.unseen = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unseen = tag in UNSEEN
        if tag in TAGS:
            kept = ''.join(f' {name}="{html.escape(value)}"' for name, value in _attributes(tag, attrs))
            self.written.append(f'<{tag}{kept}>')
            self.open += [tag] * (tag not in EMPTY)

    def handle_endtag(self, tag: str) -> None:
        self.unseen = False
        while tag in self.open:
            last = self.open.pop()
            self.written.append(f'</{last}>')
            if last == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self.written.append(html.escape(data))


def _attributes(tag: str, attrs: list[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    """(name, value) of those that are allowed, each once."""
    first: dict[str, str] = {}
    for name, value in attrs:
        first.setdefault(name, value or '')
    for name, value in first.items():
        if name == 'style' and (styles := '; '.join(_styles(value))):
            yield name, styles
        elif name in ATTRIBUTES or ((tag, name) == ('img', 'src') and PICTURE.fullmatch(value)):
            yield name, value


def _styles(style: str) -> Iterator[str]:
    """The declarations of a style that are allowed."""
    for part in style.split(';'):
        name, _, value = part.partition(':')
        if name.strip().lower() in STYLES and STYLE.fullmatch(value):
            yield f'{name.strip()}: {value.strip()}'
