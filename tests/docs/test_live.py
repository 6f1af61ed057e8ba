"""The stepper: its script is the JavaScript port, its fields are the hyperparameters, and only its pages load it."""

from __future__ import annotations

import importlib.util
import inspect

import pytest

from mlx_optimizers.conformance.case import default_rate
from tests.docs.copies import ROOT
from tests.expected import CLASSES, NAMES
from tests.support import require

EXTENSION = ROOT / "docs" / "_ext" / "live.py"


@pytest.fixture(scope="module")
def live():
    require("sphinx")
    specification = importlib.util.spec_from_file_location("live", EXTENSION)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_script_of_the_site_is_the_port_without_its_exports(site):
    script = (site / "_static" / "optimizers.js").read_text("utf-8").splitlines()
    port = (ROOT / "docs" / "ports" / "javascript" / "optimizers.mjs").read_text("utf-8").splitlines()
    start = script.index(port[0])
    assert script[start : start + len(port)] == [line.removeprefix("export ") for line in port]


def test_a_classic_script_has_what_the_module_exports(live):
    script = live.classic("const a = 1;\nexport const b = 2;\nexport function c() {}\n")
    assert "return { b, c };" in script
    assert "export" not in script


@pytest.mark.parametrize(
    "module",
    [
        "const a = 1;\n",
        'import a from "a";\nexport const b = a;\n',
        "const a = 1;\nexport { a };\n",
        "export default 1;",
    ],
)
def test_a_module_that_is_no_classic_script_is_refused(live, module):
    with pytest.raises(ValueError, match="classic script"):
        live.classic(module)


@pytest.mark.parametrize("optimizer", CLASSES, ids=NAMES)
def test_a_stepper_has_a_field_for_each_hyperparameter_with_its_default(live, optimizer):
    fields = {field["name"]: field["value"] for field in live.fields(optimizer)}
    parameters = inspect.signature(optimizer).parameters
    assert list(fields) == list(parameters)
    assert float(fields.pop("learning_rate")) == default_rate(optimizer.__name__)
    for name, text in fields.items():
        default = parameters[name].default
        if isinstance(default, bool):
            assert text == str(default).lower()
        else:
            numbers = tuple(map(float, text.split(",")))
            assert numbers == (default if isinstance(default, tuple) else (default,))


@pytest.mark.parametrize("optimizer", CLASSES, ids=NAMES)
def test_a_field_takes_what_the_class_takes(live, optimizer):
    (required, *others) = live.fields(optimizer)
    for field in [field for field in (required, *others) if not field.get("switch")]:
        for value in (-1.0, 0.0, 0.5, 1.0, 2.0):
            inside = (
                field.get("low", value) <= value <= field.get("high", value)
                and value > field.get("above", -2)
                and value < field.get("below", 3)
            )
            given = {"learning_rate": 0.1, field["name"]: (value, value) if field.get("count") == 2 else value}
            if inside:
                optimizer(**given)
            else:
                with pytest.raises(ValueError, match=field["name"]):
                    optimizer(**given)


def test_the_pages_of_the_optimizers_have_a_stepper_and_no_other_page_loads_its_scripts(site):
    steppers = {f"mlx_optimizers.{name}.html" for name in NAMES}
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        expected = page.name in steppers and page.parent.name == "generated"
        for mark in ('class="live"', "/live.js", "/optimizers.js"):
            assert (mark in text) is expected, page
