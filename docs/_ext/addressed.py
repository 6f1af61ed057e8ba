"""What a site with an address of its own needs beyond the extensions for it.

A page shown in place of a missing one may stand at any address, so its links begin at the site's root. And the preview
of a class or function is its summary, where the extension for previews would take the page's list of links.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def from_the_root(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Change the links within the text of the 404 page."""
    prefix = getattr(app.config, "notfound_urls_prefix", None)
    if prefix and page == app.config.notfound_pagename:
        context["body"] = re.sub(r'(<a [^>]*href=")(?![a-z]+:|[/#])', rf"\g<1>{prefix}", context["body"])


def summarized(app: Sphinx, doctree: nodes.document) -> None:
    """Note the summary of what a page describes."""
    for content in doctree.findall(addnodes.desc_content):
        texts = [child.astext() for child in content.children if isinstance(child, nodes.paragraph)]
        if about := next((text for text in texts if not text.startswith("Bases: ")), None):
            app.env.metadata[app.env.docname].setdefault("og:description", " ".join(about.split()))
        return


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("doctree-read", summarized)
    app.connect("html-page-context", from_the_root, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
