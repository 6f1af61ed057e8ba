"""What is proved, from the table of orders and from the record of the proofs while the site is built.

Directives: ``orders``, the table of orders that the guide on the interval prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from docutils import nodes
from docutils.utils import unescape
from orders import STATEMENTS
from sphinx.application import Sphinx
from tables import Cell, Table
