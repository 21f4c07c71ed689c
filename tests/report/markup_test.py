"""HTML of others: what is shown of it, and that nothing in it runs, loads or covers the page."""
import numpy as np
import pytest
from pages import Seen, harmless

from w2s_jax.report import markup
from w2s_jax.tasks.chess import puzzles
from w2s_jax.tasks.text import statements

HOSTILE = [
    '<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '<svg/onload=alert(1)>', '<b onclick="alert(1)">b</b>',
    '<a href="javascript:alert(1)">a</a>', '<scr<script>ipt>alert(1)</script>', '<SCRIPT SRC=//x></SCRIPT>',
    '<iframe srcdoc="<script>alert(1)</script>">', '<object data=x>', '<embed src=x>', '<base href=//x>',
    '<meta http-equiv=refresh content="0;url=//x">', '<link rel=stylesheet href=//x>', '<style>*{display:none}</style>',
    '<form action=//x><input><button>', '<math><mi><style><img src=x onerror=alert(1)>', '<!--><script>alert(1)//-->',
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">', '<?x <script>alert(1)</script>?>',
    '<textarea><script>alert(1)</script>', '<plaintext><script>alert(1)', '<script', '<b title=\'"><script>\'>b</b>',
    '<b title="&quot;><script>alert(1)</script>">b</b>', '<b/onclick=alert(1)>b', '<img src="data:text/html,x">',
    '<div style="position:fixed;inset:0;z-index:9">over</div>', '<p style="background:url(//x)">', '<template><script>',
    '<p style="color:red;background:expression(alert(1))">', '<p style="background: \\75rl(//x)">',
]


@pytest.mark.parametrize('given', HOSTILE)
def test_nothing_runs_loads_or_covers_the_page(given):
    for text in (given, f'<div><b>{given}', f'<table><tr><td>{given}</td></tr></table>', f'</div></main>{given}'):
        found = markup.cleaned(text)
        assert harmless(found), found
        assert markup.cleaned(found) == found
        assert not {*Seen(found).tags} - markup.TAGS


def test_the_check_of_these_tests_sees_harm():
    assert not harmless('<script>') and not harmless('<b onclick=x>') and not harmless('<img src=//x>')
    assert not harmless('<p style="background: url(x)">') and harmless('<p title="onclick=x">&lt;script&gt;</p>')


@pytest.mark.parametrize(('given', 'shown'), [
    ('<b class="mine" title="a &lt; b">as it is</b>', '<b class="mine" title="a &lt; b">as it is</b>'),
    ('1 < 2 & "three"', '1 &lt; 2 &amp; &quot;three&quot;'), ('&lt;b&gt;', '&lt;b&gt;'), ('x<br>y', 'x<br>y'),
    ('<p><b>unclosed', '<p><b>unclosed</b></p>'), ('a</div></main>b', 'ab'), ('<i><b>x</i>y', '<i><b>x</b></i>y'),
    ('<article>kept text</article>', 'kept text'), ('<script>gone</script>after', 'after'),
    ('<img alt="x" src="data:image/png;base64,QUJD">', '<img alt="x" src="data:image/png;base64,QUJD">'),
    ('<p style="color: rgb(1, 2, 3); position: fixed">x</p>', '<p style="color: rgb(1, 2, 3)">x</p>'),
])
def test_what_does_no_harm_is_shown(given, shown):
    assert markup.cleaned(given) == shown


def test_examples_of_our_tasks_lose_nothing():
    board = puzzles.render({'tokens': np.arange(64).reshape(1, 64) % 13}, {'truth': 5, '<weak> & "co"': 77})
    texts = statements.render({'text': np.array(['<b>one</b>\n& two', 'three'], object)}, {'truth': 1}, ('no', 'a < b'))
    for example in (board, texts):
        found = markup.cleaned(example)
        assert Seen(found).tags == Seen(example).tags
        mine, theirs = ([(name, value.replace(': ', ':')) for name, value in Seen(page).attributes]
                        for page in (found, example))
        assert mine == theirs
