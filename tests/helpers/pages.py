"""What a browser would find in a page, and what figures draw."""
import json
import re
from html.parser import HTMLParser

import synthetic_grid
from matplotlib.figure import Figure

from w2s_jax.report import panels, tables

ACTIVE = {'a', 'base', 'embed', 'form', 'iframe', 'link', 'object', 'script', 'template'}
PLACES = {'action', 'data', 'formaction', 'href', 'src', 'srcdoc', 'xlink:href'}
STYLE = re.compile(r'url\((?!#)|expression|position|\\', re.IGNORECASE)
BAIT = '"\'>&lt;<script>alert(1)</script><img src=//x onerror=alert(1)><a href="javascript:alert(1)">--></style></svg>'


class Seen(HTMLParser):
    """Tags and attributes of a page, in its order."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or '') for name, value in attrs]


def harmless(page: str) -> bool:
    """Whether nothing in a page runs, covers the rest, or is asked for."""
    seen = Seen(page)
    return not ACTIVE & {*seen.tags} and not any(
        name.startswith('on') or (name in PLACES and not value.startswith(('#', 'data:image/')))
        or (name == 'style' and STYLE.search(value)) for name, value in seen.attributes)


def baited(tree, keys=False):
    """A tree of JSON whose texts, and the keys below of what users name, end in what a browser would run."""
    if isinstance(tree, dict):
        named = ('config', 'diagnostics', 'versions', 'aux', 'measures', 'settings', 'axes', 'overrides', 'tests')
        return {k + BAIT * keys: v if k in ('kind', 'folder', 'cells') and not keys and isinstance(v, str)
                else baited(v, k in named) for k, v in tree.items()}
    if isinstance(tree, list):
        return [baited(v) for v in tree]
    return tree + BAIT if isinstance(tree, str) else tree


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def figures(workdir, **options):
    grid = tables.load(synthetic_grid.write(workdir, **options))
    table = tables.students(grid)
    return table, {f.name: f for f in panels.figures(grid, table)}


def lines(figure, panel):
    """label -> (x, y) of the lines that a panel draws."""
    ax = Figure().subplots()
    figure.panels[panel](ax)
    return ax, {line.get_label(): line.get_data() for line in ax.get_lines()}
