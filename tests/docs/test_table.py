"""The page "Optimizers" of the built site: its table, row by row, and the page behind each row."""

from __future__ import annotations

import inspect
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup, Tag
from sphinx.util.inventory import InventoryFile

import mlx_optimizers
from tests.expected import EIGHT, EXPECTED, LATER, WHOLE

ROWS = ["OptimizerState", "Optimizer()", *(EXPECTED[name].row for name in EIGHT)]
NAMES = ["OptimizerState", "Optimizer", *EIGHT]


def parse(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def page(site: Path) -> BeautifulSoup:
    return parse(site / "optimizers.html")


@pytest.fixture(scope="module")
def rows(page: BeautifulSoup) -> list[list[Tag]]:
    table, _ = page.select("article table.autosummary")
    return [row.find_all("td") for row in table.find_all("tr")]


def text(cell: Tag) -> str:
    return cell.get_text().replace("\N{NO-BREAK SPACE}", " ").strip()


def test_rows_are_printed_exactly_and_in_order(rows):
    assert [text(cells[0]) for cells in rows] == ROWS


def test_every_row_has_a_summary(rows):
    summaries = [text(cells[1]) for cells in rows]
    assert all(summary.endswith((".", "]")) and len(summary) > 10 for summary in summaries), summaries
    cited = {name for name, summary in zip(NAMES, summaries, strict=True) if "[1]" in summary}
    assert cited & set(EIGHT) == {name for name in EIGHT if EXPECTED[name].cites}


def test_every_row_links_to_a_page_of_its_own(rows, site):
    links = [cells[0].find("a")["href"] for cells in rows]
    assert len({link.partition("#")[0] for link in links}) == len(ROWS)
    for link, name in zip(links, NAMES, strict=True):
        address, _, anchor = link.partition("#")
        target = parse(site / address)
        assert text(target.find("h1")).startswith(name)
        assert target.find(id=anchor).name == "dt"


def test_the_base_class_has_its_later_argument_on_its_own_page_alone(rows, site):
    assert text(rows[1][0]) == "Optimizer()"
    signature = parse(site / "generated" / "mlx_optimizers.Optimizer.html").select_one("dt.sig")
    assert "Optimizer(schedulers=None)" in text(signature)


def test_the_papers_behind_a_summary_are_given_in_full_on_its_page(rows, site):
    for cells, name in zip(rows, NAMES, strict=True):
        if "[1]" in text(cells[1]):
            body = text(parse(site / cells[0].find("a")["href"].partition("#")[0]).find("article"))
            assert body.count("[1]") >= 2, f"the page of {name} cites a paper that it does not list"


def test_what_mlx_added_stands_in_the_second_table_in_order(page):
    _, table = page.select("article table.autosummary")
    names = [text(row.find("td")).partition("(")[0] for row in table.find_all("tr")]
    assert names[: len(LATER) + len(WHOLE)] == [*LATER, *WHOLE]


@pytest.fixture(params=(*EIGHT, *WHOLE))
def optimizer(request) -> type[mlx_optimizers.Optimizer]:
    return getattr(mlx_optimizers, request.param)


def test_the_page_of_an_optimizer_has_every_part(optimizer, site):
    soup = parse(site / "generated" / f"mlx_optimizers.{optimizer.__name__}.html")
    body = soup.select_one("dl.py.class > dd")
    parts = [text(tag).rstrip(":") for tag in body.select(":scope > p.rubric, :scope > dl.field-list > dt")]
    assert parts == ["Parameters", "Example"]
    assert len(body.find_all("div", "math", recursive=False)) == 1
    assert "parameter after step t" in text(body.find("div", "math", recursive=False).find_next_sibling())
    (said,) = (text(tag) for tag in body.find_all("p", recursive=False) if "State: " in text(tag))
    assert "Raises ValueError for " in said
    assert "TypeError for " in said
    for slot in optimizer.slots:
        assert re.findall(r"\w+", said.partition("State: ")[2].partition(".")[0]).count(slot) == 1
    assert soup.select('#references a[href*="references.html#id"]'), "a paper, listed in full"


PARTS = [
    "Try it",
    "In other frameworks",
    "What each hyperparameter does",
    "State",
    "Errors",
    "Overflow, NaN and 16 bits",
    "A float32 result with its bits",
    "Error and bound",
    "Three steps",
    "Path on a test function",
    "History in MLX",
    "References",
    "Source, tests and vectors",
    "For developers",
]


def test_the_parts_of_the_page_of_an_optimizer_are_in_order_and_none_is_empty(optimizer, site):
    article = parse(site / "generated" / f"mlx_optimizers.{optimizer.__name__}.html").find("article")
    whole = optimizer.__name__ in WHOLE  # which no port has, so that there is nothing to try
    assert [text(tag).rstrip("#") for tag in article.find_all("h2")] == PARTS[whole:]
    links = [text(link) for link in article.select(".page-links a")]
    assert ("Try it" in links) is not whole
    below = article.select("#for-developers h3")
    assert [text(tag).rstrip("#") for tag in below] == ["Order of operations", "Methods of the class"]
    for tag in (*article.find_all("h2"), *below):
        assert len(tag.parent.find_all(True, recursive=False)) > 1, text(tag)
    methods = [tag["id"].rpartition(".")[2] for tag in article.select("#methods-of-the-class dt[id]")]
    first = ["apply_single", "exact"] if whole else ["rule", "coefficients", "exact"]
    assert methods == first + [name for name in ("check_together", "slot_shapes") if name in vars(optimizer)]


def test_the_state_of_an_optimizer_is_listed_in_full_on_its_page(optimizer, site):
    state = parse(site / "generated" / f"mlx_optimizers.{optimizer.__name__}.html").select_one("section#state")
    shapes = "Its shape follows from the parameter’s" if optimizer.__name__ in WHOLE else "of the parameter’s shape"
    assert shapes in text(state)
    assert [item.find("code").get_text() for item in state.select("li")] == list(optimizer.slots)


def test_the_examples_of_a_page_print_the_errors_and_limits_that_its_text_names(optimizer, site):
    soup = parse(site / "generated" / f"mlx_optimizers.{optimizer.__name__}.html")
    for part in ("errors", "overflow-nan-and-16-bits", "a-float32-result-with-its-bits", "order-of-operations"):
        assert soup.select_one(f"section#{part}").select("div.highlight-pycon pre"), part


def test_every_hyperparameter_has_an_example_of_its_own(optimizer, site):
    body = parse(site / "generated" / f"mlx_optimizers.{optimizer.__name__}.html")
    called = [
        line for block in body.select("#what-each-hyperparameter-does pre") for line in block.get_text().splitlines()
    ]
    for name in inspect.signature(optimizer).parameters:
        assert any(line.startswith(">>> step(") and f"{name}=" in line for line in called), name


def test_float32_bits_stand_between_the_ends_of_their_interval_on_every_page(optimizer, site):
    body = parse(site / "generated" / f"mlx_optimizers.{optimizer.__name__}.html")
    block, *_ = (tag.get_text() for tag in body.select("#a-float32-result-with-its-bits pre"))
    printed = [line for line in block.splitlines() if line and not line.startswith((">>>", "..."))]
    low, new, high = (np.uint32(int(line.split()[1], 16)).view(np.float32) for line in printed[:3])
    assert [f"{x:.9f}" for x in (low, new, high)] == [line.split()[0] for line in printed[:3]]
    assert low < new < high
    assert Decimal(float(low)) < Decimal(printed[3]) < Decimal(float(high))


def test_title_and_label(site, page):
    assert text(page.find("h1")).rstrip("#") == "Optimizers"
    with (site / "objects.inv").open("rb") as inventory:
        labels = InventoryFile.load(inventory, "", lambda base, path: path)["std:label"]
    assert labels["optimizers"].uri == "optimizers.html#optimizers"
    assert labels["optimizers"].display_name == "Optimizers"


def test_the_page_has_its_three_parts_in_order(page):
    article = page.find("article")
    paragraph, loop, table = (
        article.find(lambda tag: tag.name == "p" and "Optimizer.update" in tag.get_text()),
        article.find(
            lambda tag: tag.name == "pre" and "mx.eval(model.parameters(), optimizer.state)" in tag.get_text()
        ),
        article.select_one("table.autosummary"),
    )
    everything = list(article.descendants)
    positions = [next(i for i, tag in enumerate(everything) if tag is part) for part in (paragraph, loop, table)]
    assert positions == sorted(positions)
    for line in (
        "model = MLP(num_layers, train_images.shape[-1], hidden_dim, num_classes)",
        "loss_and_grad_fn = nn.value_and_grad(model, loss_fn)",
        "optimizer = optim.SGD(learning_rate=learning_rate)",
        "batch_iterate(batch_size, train_images, train_labels)",
        "optimizer.update(model, grads)",
    ):
        assert line in loop.get_text()


def test_the_table_is_the_head_of_the_public_interface():
    assert list(mlx_optimizers.__all__[: len(NAMES)]) == NAMES
