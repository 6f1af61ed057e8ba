"""Sphinx configuration. With ``SITE_URL`` set, the site has a sitemap, preview tags, and a 404 page for any address."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sphinxcontrib import katex

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext")]

from katex_files import NODE, katex_files, start_server  # noqa: E402  (found on the path only after the line above)
from pieces import require_every_piece  # noqa: E402  (the same)
from vector_files import vector_files  # noqa: E402  (the same)

import mlx_optimizers  # noqa: E402  (stays below, with the other imports of our own)
from mlx_optimizers.catalog import CATALOG  # noqa: E402  (the same)
from mlx_optimizers.optimizer import Whole  # noqa: E402  (the same)

require_every_piece()

project = "mlx-optimizers"
author = "The mlx-optimizers developers"
copyright = f"2026, {author}"
version = release = mlx_optimizers.__version__

extensions = [
    "accessible",
    "addressed",
    "documented",
    "live",
    "llms",
    "myst_parser",
    "norms",
    "optimizer_page",
    "performance",
    "proved",
    "schedule_plots",
    "site_checks",
    "source_pages",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxcontrib.katex",
    "tables",
]
exclude_patterns = ["_static", "_templates", "optimizers"]  # the last is included by the pages of the optimizers
templates_path = ["_templates"]
default_role = "literal"
nitpicky = True
nitpick_ignore_regex = [
    # Names of the standard library, NumPy and the backends. To link to them takes an inventory from the network.
    (
        r"py:.*",
        r"(collections|typing|types|fractions|pathlib|io|numpy|np|mpmath|gmpy2|mlx|torch|optax|jax|keras)(\..*)?",
    ),
    (r"py:(class|exc|obj)", r"(Any|Callable|Iterable|Iterator|Mapping|Sequence|Fraction|Path|ModuleType|Self)"),
    (r"py:(class|obj)", r"(optional|array|bool|bytes|dict|float|int|list|object|set|str|tuple|type)"),
    (r"py:exc", r"\w+(Error|Exit|Warning|Exception)"),
]

# Docstrings
add_module_names = False
autoclass_content = "class"
autodoc_class_signature = "mixed"
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "none"
autosummary_context = {
    "optimizers": [entry.name for entry in CATALOG],
    "bits_of_mlx": [optimizer.__name__ for optimizer in mlx_optimizers.OPTIMIZERS],
    "whole": [entry.name for entry in CATALOG if issubclass(entry.optimizer, Whole)],
    "without_rate": [entry.name for entry in CATALOG if entry.rate is None],
    "developers": [  # methods that stand last on such a page
        *("rule", "coefficients", "apply_single", "exact", "check_together", "slot_shapes"),
    ],
}
autosummary_generate = True
toc_object_entries_show_parents = "hide"  # the page names the class already
autosummary_ignore_module_all = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["State"]
documented_modules = [
    "mlx_optimizers",
    "mlx_optimizers.oracle",
    "mlx_optimizers.conformance",
    "mlx_optimizers.backends",
    "mlx_optimizers.testing",
]

# Every page as Markdown, and a list of them
llms_summary = (
    "The MLX optimizers, exactly: a formula, a float32 class and an arbitrary-precision oracle for each, "
    "and a checker that tells whether another program computes the same, and if not, what it computes instead."
)

# Markdown
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist", "substitution"]
myst_heading_anchors = 3

# References
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "alpha"

# Formulas are set while the site is built. A page holds the finished formula and needs no script for it.
KATEX = katex_files(DOCS.parent / "build" / "katex")
katex.NODEJS_BINARY = str(NODE)
katex.STARTUP_TIMEOUT = 60.0  # seconds: a busy machine takes more than 5
katex.KaTeXServer.start_server_process = staticmethod(start_server)
katex_prerender = True
katex_css_path = f"{KATEX.name}/katex.min.css"
katex_js_path = str(KATEX / "katex.min.js")

# Pages
html_theme = "pydata_sphinx_theme"
html_title = f"mlx-optimizers {version}"
html_extra_path = [str(vector_files(DOCS.parent / "build" / "vectors"))]
html_static_path = ["_static", str(KATEX.parent)]
html_sidebars = {  # nothing to list there
    key: [] for key in ("index", "results", "performance", "references", "changelog", "404")
}
html_favicon = "_static/logo.svg"
html_css_files = ["site.css"]
html_last_updated_fmt = None  # the same source gives the same pages
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # summaries are fetched, which a page opened from disk may not do
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {
        "text": "mlx-optimizers",
        "alt_text": "",  # the name stands beside it
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo-dark.svg",
    },
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

if SITE_URL := os.environ.get("SITE_URL"):
    html_baseurl = SITE_URL.rstrip("/") + "/"
    extensions += ["notfound.extension", "sphinx_sitemap", "sphinxext.opengraph"]
    ogp_site_url = html_baseurl
    ogp_social_cards = {"enable": False}
    sitemap_url_scheme = "{link}"
    sitemap_excludes = ["404.html", "genindex.html", "py-modindex.html", "search.html"]
    notfound_urls_prefix = "/" + "/".join(html_baseurl.split("/")[3:])
