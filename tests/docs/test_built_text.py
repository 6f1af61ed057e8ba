"""A built page shows text and set formulas: no markup that was not read, and no sentence set as a formula."""

from __future__ import annotations

import pytest

from tests.docs.faults import faults


def test_every_page_of_the_site_shows_text_and_set_formulas(site):
    pages = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.parts]
    assert len(pages) > 80
    found = [
        f"{page.relative_to(site)}: {fault}" for page in pages for fault in faults(page.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


PAGE = "---\norphan: true\n---\n# Page\n\n{}\n"

THEOREM_7 = r"""
and the rounding that is added grows with $|z|
+ q$. The sum is simpler. For the quotient and the root the ball reaches one end of the image exactly: the outer one,
$(|x| + r)/(|y| - s)$, and the inner one, $\sqrt{x - r}$. The image of a part ends no farther out. Where its centre
moves away from that end by $\delta$, the end moves after it by $2\delta$ or more.
"""
"""From the guide on the interval, as it once was: the line that begins with + became an item of a list."""

FAULTY = {  # a text, and the kinds of what is wrong with it
    THEOREM_7: {"unread formula or role", "words set as a formula", "block in a sentence"},
    "The sum $a + b grows.": {"unread formula or role"},
    "The factor \\beta is below 1.": {"unread formula or role"},
    "The power 2^t grows.": {"unread formula or role"},
    "The name {math} `a`.": {"unread formula or role"},
    "For $a and every other value, b$ grows.": {"words set as a formula"},
    "The product a*b*c grows.": {"emphasis in a formula"},
    "The sum (a)_t + (b)_ grows.": {"emphasis in a formula"},
    "The radius grows with w\n+ q and no more.": {"block in a sentence"},
    "The quotient, where y\n> s, is bounded.": {"block in a sentence"},
    "The bound is a sum:\n\n- r\n- − s\n": {"block in a sentence"},
    "The word is **bold **here.": {"unread Markdown"},
    "The name ` is odd.": {"unread Markdown"},
    "Read [the guide] (index.md).": {"unread Markdown"},
    "A plot: ![plot](a plot.png)": {"unread Markdown"},
    "The sum :math:`a`.": {"unread reStructuredText"},
    ".. note::": {"unread reStructuredText"},
    "| a | b |\n|---|\n| 1 | 2 |": {"unread table"},
    "The order a &amp;lt; b.": {"unread HTML"},
    "The word is \\<em>here\\</em>.": {"unread HTML"},
}

RIGHT = r"""
A formula over two lines, $|x| +
|y| \le \lambda\kappa w$, one with words, $c = \text{the larger one}$, and *a word* in *italics*, or **in bold**:

- `**kwargs`, `$HOME`, `\beta`, `{role}`, `a | b`, `x_1`
- |g| < 1, where 2 > 1 [](index.md)

| a | b |
|---|---|
| ± | – |

$$
\beta_t = \beta^t
$$

```python
w[0] **= 2  # $ \ ^ { } ` <em>
```
"""


@pytest.mark.xdist_group("builds of the site")
def test_each_fault_is_found_on_a_page_that_the_build_lets_through(changed, tmp_path):
    texts = dict(enumerate([RIGHT, *FAULTY]))
    result = changed({f"docs/page_{number}.md": PAGE.format(text) for number, text in texts.items()})
    assert result.returncode == 0, result.stdout + result.stderr
    found = {}
    for number, text in texts.items():
        page = tmp_path / "html" / f"page_{number}.html"
        found[text] = {fault.partition(": ")[0] for fault in faults(page.read_text(encoding="utf-8"))}
    assert found == {RIGHT: set(), **FAULTY}
