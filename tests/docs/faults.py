"""What a page shows that is neither text nor a set formula: markup that was not read, a sentence set as a formula."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bs4 import BeautifulSoup

__all__ = ["faults"]

UNSEEN = "head, script, style, template, .katex-mathml"
"""What is not on the screen. KaTeX writes each formula twice: as MathML for screen readers, and as what is seen."""
VERBATIM = "pre, code, .sig, .field-list strong, .autosummary td:first-child, .genindex-jumpbox"
"""Code, names of parameters, signatures, and the bars between the letters of the index."""

MARKS = {  # of each language, those that prose never has
    "formula or role": re.compile(r"[$\\^{}]"),
    "Markdown": re.compile(r"[*`]|__|!\[|\] ?\(|\]\["),
    "reStructuredText": re.compile(r"::|:[a-z][a-z:+-]*:|^\.\. ", re.MULTILINE),
    "table": re.compile(r"(?<!\S)\|(?!\S)|\|:?-"),
    "HTML": re.compile(r"&#?\w+;|<[/!]?[a-z][^<>]*>", re.IGNORECASE),
}
WORDS = re.compile(r"[\w\s.,:;!?()’'–-]*")
JOINED = r"[\w+−×÷=/^|<>]"
"""A letter or an operator: emphasis that touches one is a part of a formula."""
STOPS = (".", ":", ";", ",", "?", "!", "…")


def faults(html: str) -> list[str]:
    """Find what is neither text nor a set formula on a page: the kind of each fault, and the text around it."""
    page = BeautifulSoup(html, "html.parser")
    for tag in page.select(UNSEEN):
        tag.decompose()
    found = [f"words set as a formula: {words}" for words in _words_in_formulas(page)]
    for tag in page.select(f"{VERBATIM}, .katex"):
        tag.replace_with("x")
    page.smooth()
    text = page.get_text()
    for kind, mark in MARKS.items():
        for match in mark.finditer(text):
            around = text[max(0, match.start() - 30) : match.end() + 30]
            found.append(f"unread {kind}: {' '.join(around.split())}")
    found += [f"emphasis in a formula: {words}" for words in _emphasis_in_formulas(page)]
    found += [f"block in a sentence: {words}" for words in _blocks_in_sentences(page)]
    return found


def _words_in_formulas(page: BeautifulSoup) -> Iterator[str]:
    """Find four italic letters in a row. KaTeX sets a sentence as a product of its letters; products are shorter."""
    for formula in page.select(".katex-html"):
        letters = [tag.get_text() if "mathnormal" in tag["class"] else " " for tag in formula.select("[class]")]
        yield from re.findall(r"\S{4,}", "".join(letters))


def _emphasis_in_formulas(page: BeautifulSoup) -> Iterator[str]:
    """Find emphasis that is not of whole words: its marks were operators."""
    for tag in page.select("em, strong"):
        before, after = (text.get_text() if text else "" for text in (tag.previous_sibling, tag.next_sibling))
        if not WORDS.fullmatch(tag.get_text()) or re.search(rf"{JOINED}\Z", before) or re.match(JOINED, after):
            yield f"{before[-20:]}[{tag.get_text()}]{after[:20]}"


def _blocks_in_sentences(page: BeautifulSoup) -> Iterator[str]:
    """Find lists and quotations whose marks were operators: the sentence before goes on, or an item begins with one."""
    for tag in page.select("p + ul, p + ol, p + blockquote"):
        before = tag.find_previous_sibling("p")
        words = before.get_text().strip()
        titled = before.find(string=True, recursive=False) is None  # by a line in bold, and not by a sentence
        if not titled and not words.endswith(STOPS):
            yield f"{words[-30:]} • {tag.get_text().strip()[:30]}"
    for tag in page.select("li"):
        if re.match(r"\s*[+−×÷=≤≥<>/·-]", tag.get_text()):
            yield f"• {tag.get_text().strip()[:60]}"
