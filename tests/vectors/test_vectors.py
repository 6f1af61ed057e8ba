"""The published files: their contents, which change only with a line in the list of changes."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import mlx_optimizers
from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import Case, cases_of, check, parse
from mlx_optimizers.conformance.cases import VALUES, recast
from mlx_optimizers.conformance.schemas import schema
from mlx_optimizers.conformance.vectors import (
    DTYPES,
    case_digest,
    changes,
    derive,
    last_changes,
    vectors_of,
)
from mlx_optimizers.oracle import format_of
from tests.expected import EIGHT, EXPECTED, LATER, NAMES, SQUARING, WHOLE, each_name
from tests.programs import Program, formula_cases
from tests.support import require

pytestmark = pytest.mark.xdist_group("vectors")

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "vectors.md").read_text("utf-8")
QUANTITIES = ("exact", "high", "low", "nearest")
DIGITS = {"float16": 4, "bfloat16": 4, "float32": 8, "float64": 16}
"""The digits of a bit pattern."""


def quantities(case):
    """Yield step, name and the four lists of every expected quantity."""
    for step, expected in enumerate(case["expected"]):
        yield step, "parameter", expected["parameter"]
        for name, quantity in expected["state"].items():
            yield step, name, quantity


def values(case, patterns):
    """Read the float64 values of bit patterns, without the package."""
    raw = np.array([int(pattern, 16) for pattern in patterns], np.uint64)
    if case["dtype"] == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    width = {"float16": 2, "float32": 4, "float64": 8}[case["dtype"]]
    return raw.astype(f"u{width}").view(case["dtype"]).astype(np.float64)


def accepted(case, got, quantity):
    """Apply the rule of the guide."""
    low, high = values(case, quantity["low"]), values(case, quantity["high"])
    anything = (low == -np.inf) & (high == np.inf)
    return np.where(np.isnan(low), np.isnan(got), anything | ((low <= got) & (got <= high)))


# The list of changes


@pytest.mark.norm("vectors.bytes", "vectors.changes")
def test_no_case_differs_from_its_last_line_in_the_list_of_changes(cases):
    """On every machine and with every release of the libraries: the digests are committed."""
    now = {name: case_digest({k: v for k, v in case.items() if k != "optimizer"}) for name, case in cases.items()}
    assert now == last_changes(), "run scripts/vectors_changes.py, and read its lines: each may change a verdict"


@pytest.mark.norm("vectors.changes", "vectors.id")
def test_every_line_of_the_list_of_changes_can_be_read():
    seen: dict[str, str] = {}
    lines = [line for line in changes().splitlines() if not line.startswith("#")]
    releases = [[int(number) for number in re.findall(r"\d+", line.split()[0])] for line in lines]
    assert releases == sorted(releases)
    assert releases[-1] <= [int(number) for number in re.findall(r"\d+", mlx_optimizers.__version__)]
    added = [line.split()[2] for line in lines if line.split()[1] == "added"]
    assert len(set(added)) == len(added), "an id comes once, also after it was removed"
    for line in lines:
        match = re.fullmatch(r"\S+ (?:(added|altered) (\S+) ([0-9a-f]{16})|(removed) (\S+))", line)
        assert match, line
        what, name = match[1] or match[4], match[2] or match[5]
        assert (what == "added") == (seen.get(name, "removed") == "removed"), line
        seen[name] = what


@pytest.mark.norm("vectors.changes")
def test_any_change_of_a_case_changes_its_digest(cases):
    case = cases["adam/tiny/defaults"]
    quantity = case["expected"][3]["state"]["v"]
    assert case_digest(case) != case_digest({**case, "level": "informative"})
    for name in QUANTITIES:
        changed = json.loads(json.dumps(case))
        changed["expected"][3]["state"]["v"][name][7] = quantity[name][8]
        assert case_digest(changed) != case_digest(case)


# Files


@pytest.mark.norm("vectors.one-file", "vectors.installed", "vectors.file", "vectors.changes")
def test_a_file_for_each_optimizer_a_manifest_and_the_list_of_changes(folder, cases):
    names = {f"{name.lower()}.json" for name in (*NAMES, *WHOLE)}
    assert {path.name for path in folder.iterdir()} == {*names, "MANIFEST.json", "CHANGES.txt"}
    assert sum(path.stat().st_size for path in folder.iterdir()) > 10e6  # the guide's reason not to install them
    manifest = json.loads((folder / "MANIFEST.json").read_text("utf-8"))
    assert manifest["format"] == "mlx-optimizers-manifest/1"
    counted = Counter(case["optimizer"] for case in cases.values())
    assert manifest["files"] == [
        {
            "name": f"{name.lower()}.json",
            "sha256": hashlib.sha256((folder / f"{name.lower()}.json").read_bytes()).hexdigest(),
            "bytes": (folder / f"{name.lower()}.json").stat().st_size,
            "cases": counted[name],
        }
        for name in (*NAMES, *WHOLE)
    ]


@pytest.mark.norm("vectors.published")
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])  # all of them take a minute
@pytest.mark.parametrize("name", [*(name.lower() for name in (*NAMES, *WHOLE)), "MANIFEST"])
def test_a_file_is_what_the_schema_says(name, every, folder):
    file = json.loads((folder / f"{name}.json").read_text("utf-8"))
    if name != "MANIFEST":
        file["cases"] = file["cases"][len(name) % every :: every]
    Draft202012Validator(schema("vectors")).validate(file)


@pytest.mark.norm("vectors.keys")
def test_the_schema_refuses_what_it_does_not_name(folder):
    Draft202012Validator.check_schema(schema("vectors"))
    validator = Draft202012Validator(schema("vectors"))
    file = json.loads((folder / "sgd.json").read_text("utf-8"))
    file["cases"] = file["cases"][:1]
    case = file["cases"][0]
    step = case["expected"][0]
    objects = [file, case, case["hyperparameters"], step, step["parameter"], step["state"], step["state"]["v"]]
    for thing in objects:
        thing["more"] = 1
        assert not validator.is_valid(file)
        del thing["more"]
        assert validator.is_valid(file)
    manifest = json.loads((folder / "MANIFEST.json").read_text("utf-8"))
    for thing in (manifest, manifest["files"][0]):
        thing["more"] = 1
        assert not validator.is_valid(manifest)
        del thing["more"]
    case["dtype"] = "float16"  # with patterns of 8 digits
    assert not validator.is_valid(file)


@pytest.mark.norm("vectors.hyperparameters")
@pytest.mark.parametrize(("steps", "valid"), [(5, True), (0, True), (-1, False), (2.5, False), ("5", False)])
def test_the_schema_takes_whole_numbers_of_steps_alone(steps, valid, folder):
    file = json.loads((folder / "muon.json").read_text("utf-8"))
    file["cases"] = file["cases"][:1]
    file["cases"][0]["hyperparameters"]["ns_steps"] = steps
    assert Draft202012Validator(schema("vectors")).is_valid(file) == valid


@pytest.mark.norm("vectors.layout", "vectors.lines")
@each_name
def test_the_layout_lets_a_file_be_read_by_lines(name, folder):
    data = (folder / f"{name.lower()}.json").read_bytes()
    assert data.isascii() and b"\r" not in data and data.endswith(b"}\n")
    lines = data.decode().splitlines()
    assert {line for line in lines if '"formula"' in line} == {f'   "formula": "{parse(name).name}",'}
    lines = [line.replace(parse(name).name, "") if '"formula"' in line else line for line in lines]
    assert all(line.count("[") == line.count("]") for line in lines if '["' in line)
    assert all(re.fullmatch(r' *("[a-z0-9_]+": )?(\[[^][]*\]|[^][]+|\[|\])?,?', line) for line in lines)
    starts = [i for i, line in enumerate(lines) if line == "  {"]
    assert all(lines[i + 1].startswith('   "dtype": ') for i in starts)

    def check_order(pairs):
        assert [key for key, _ in pairs] == sorted(key for key, _ in pairs)
        return dict(pairs)

    file = json.loads(data, object_pairs_hook=check_order)
    assert len(starts) == len(file["cases"])
    for case in file["cases"]:
        case["formula"] = ""
    spread = json.dumps(file, indent=1)  # every number and string on a line of its own
    right = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda array: f"[{' '.join(array[1].split())}]", spread).splitlines()
    assert [pair for pair in zip(lines, right, strict=True) if pair[0] != pair[1]] == []
    steps = sum(len(case["expected"]) for case in file["cases"])
    for field in QUANTITIES:  # six spaces are the parameter's, seven the state's
        assert sum(line.startswith(f'      "{field}": [') for line in lines) == steps
        slots = sum(len(_slots(case)) * len(case["expected"]) for case in file["cases"])
        assert sum(line.startswith(f'       "{field}": [') for line in lines) == slots


# Cases


def _slots(case):
    """Name the slots of a case of any optimizer with the numbers of their elements."""
    shape, size = case["shape"], math.prod(case["shape"])
    optimizer = case["id"].partition("/")[0]
    if optimizer != "adafactor":
        slots = {"muon": ("v",), **{name.lower(): EXPECTED[name].slots for name in NAMES}}[optimizer]
        return dict.fromkeys(slots, size)
    rows = {"exp_avg_sq_row": size // shape[-1], "exp_avg_sq_col": size // shape[-2]} if len(shape) > 1 else {}
    mean = {} if case["hyperparameters"]["beta_1"] is None else {"exp_avg": size}
    return {**(rows or {"exp_avg_sq": size}), **mean}


@pytest.mark.norm(
    "vectors.id", "vectors.formula", "vectors.data", "vectors.bits", "vectors.hyperparameters", "vectors.blind"
)
def test_every_case_of_the_suite_is_published(cases):
    for case in formula_cases():
        published = cases[case.id]
        assert published["hyperparameters"] == json.loads(json.dumps(case.hyperparameters))
        assert published["parameter"] == [f"{x:08x}" for x in case.parameter.reshape(-1).view(np.uint32)]
        rows = case.gradients.reshape(len(case.gradients), -1).view(np.uint32)
        assert published["gradients"] == [[f"{x:08x}" for x in row] for row in rows]
        assert (published["level"], published["dtype"]) == (case.level, "float32")
        assert published["shape"] == list(case.parameter.shape) and math.prod(published["shape"]) == 24
        assert (published["formula"], published["optimizer"]) == (parse(case.optimizer).name, case.optimizer)
    float32 = {name for name, case in cases.items() if case["dtype"] == "float32" and case["regime"] != "special"}
    assert float32 == {case.id for case in formula_cases()}


@pytest.mark.norm("vectors.file", "vectors.keys")
def test_a_case_has_the_keys_that_the_guide_names_and_a_file_three(folder, cases):
    rows = re.findall(r"^\| (`.+?`) \|", GUIDE.split("## What a file holds")[1].split("\n## ")[0], re.MULTILINE)
    keys = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert len(keys) == 11
    for case in cases.values():
        assert set(case) - {"optimizer"} == keys
    for name in (*NAMES, *WHOLE):
        file = json.loads((folder / f"{name.lower()}.json").read_text("utf-8"))
        assert {key: value for key, value in file.items() if key != "cases"} == {
            "format": "mlx-optimizers-vectors/1",
            "optimizer": name,
        }
        assert list(file) == ["cases", "format", "optimizer"]


@pytest.mark.norm("vectors.id")
def test_an_id_is_optimizer_regime_label_and_another_dtype_than_float32(cases):
    for name, case in cases.items():
        optimizer, regime, label, *dtype = name.split("/")
        assert (optimizer, regime) == (case["optimizer"].lower(), case["regime"]), name
        assert label and dtype == ([] if case["dtype"] == "float32" else [case["dtype"]]), name


@pytest.mark.norm("vectors.regime")
def test_the_regimes_are_eight_and_those_of_one_or_two_optimizers(cases):
    every = {"plain", "tiny", "wide", "zeros", "still", "small", "large", "special"}
    for name in NAMES:
        regimes = {case["regime"] for case in cases.values() if case["optimizer"] == name}
        assert regimes == {*every, *(["edge"] if name == "Lion" else [])}
    for name, shaped in {"Adafactor": {"vector", "batch"}, "Muon": {"vector", "tall", "stack"}}.items():
        regimes = {case["regime"] for case in cases.values() if case["optimizer"] == name}
        assert regimes == {*every, *shaped}


@pytest.mark.norm("vectors.formula")
def test_every_formula_is_that_of_the_page_of_the_optimizer(cases):
    meant = {name: name for name in (*EIGHT, *WHOLE)}
    meant |= {name: f"{name.removeprefix('BiasCorrected')}[bias_correction=true]" for name in LATER}
    assert all(case["formula"] == meant[case["optimizer"]] for case in cases.values())


@pytest.mark.norm("vectors.hyperparameters")
def test_every_hyperparameter_is_there_as_a_number_and_a_switch_as_a_boolean(cases):
    for case in cases.values():
        h = case["hyperparameters"]
        assert set(h) == set(inspect.signature(getattr(mlx_optimizers, case["optimizer"])).parameters)
        lists = {name: value for name, value in h.items() if isinstance(value, list)}
        for name, value in h.items():
            numbers = value if name in lists else [value]
            flag = name in ("nesterov", "scale_parameter", "relative_step", "warmup_init")
            missing = value is None and name in ("beta_1", "learning_rate")
            kind = bool if flag else type(None) if missing else int if name == "ns_steps" else float
            assert {type(x) for x in numbers} == {kind}, case["id"]
        sizes = {"betas": 2, "eps": 2, "learning_rate": len(case["gradients"])}
        assert all(len(value) == sizes[name] for name, value in lists.items()), case["id"]
    assert any(isinstance(case["hyperparameters"]["learning_rate"], list) for case in cases.values())


@pytest.mark.norm("vectors.shape", "vectors.data", "vectors.bits")
def test_the_shape_is_that_of_parameter_and_gradients_and_a_pattern_has_the_digits_of_its_dtype(cases):
    assert {case["dtype"] for case in cases.values()} == set(DIGITS)
    for case in cases.values():
        pattern = re.compile(f"[0-9a-f]{{{DIGITS[case['dtype']]}}}")
        rows = [case["parameter"], *case["gradients"]]
        assert {len(row) for row in rows} == {math.prod(case["shape"])}
        rows += [quantity[name] for _, _, quantity in quantities(case) for name in ("nearest", "low", "high")]
        assert all(pattern.fullmatch(word) for row in rows for word in row), case["id"]


@pytest.mark.norm("vectors.exact")
def test_exact_is_decimal_text_of_thirty_digits_at_most_nan_or_an_infinity(cases):
    for case in cases.values():
        for text in (text for _, _, quantity in quantities(case) for text in quantity["exact"]):
            assert re.fullmatch(r"nan|-?inf|-?\d+(\.\d+)?(E[+-]?\d+)?", text), (case["id"], text)
            assert len(re.sub(r"E.*|\D", "", text).lstrip("0")) <= 30, (case["id"], text)


@pytest.mark.norm("vectors.id", "vectors.bits")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_defaults_are_published_in_the_other_dtypes(dtype, cases):
    """The data are those of the suite in that dtype; for bfloat16 it needs a package, and the vectors do not."""
    if dtype == "bfloat16":
        require("ml_dtypes")
    defaults = [case for case in formula_cases() if case.label == "defaults" and case.regime not in VALUES]
    assert len(defaults) == sum(len(expected.regimes) for expected in EXPECTED.values()) + 6 + 7
    for case in defaults:
        wanted, published = recast(case, dtype), cases[f"{case.id}/{dtype}"]
        assert np.array_equal(values(published, published["parameter"]), wanted.parameter.reshape(-1).astype(float))
        for row, gradient in zip(published["gradients"], wanted.gradients, strict=True):
            assert np.array_equal(values(published, row), gradient.reshape(-1).astype(float))
    assert sum(case["dtype"] == dtype for case in cases.values()) == len(defaults)


@pytest.mark.norm("vectors.sha256")
def test_the_digest_of_an_input_is_what_the_guide_says(cases):
    keys = ("dtype", "gradients", "hyperparameters", "optimizer", "parameter", "shape")
    for case in cases.values():
        text = json.dumps({key: case[key] for key in keys}, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == case["sha256"]
    assert len({case["sha256"] for case in cases.values()}) == len(cases)


@pytest.mark.norm("vectors.contents", "vectors.shape", "vectors.expected")
def test_expected_has_every_slot_every_step_and_every_element(cases):
    for case in cases.values():
        assert len(case["expected"]) == len(case["gradients"])
        for expected in case["expected"]:
            assert set(expected["state"]) == set(_slots(case))
        sizes = {"parameter": math.prod(case["shape"]), **_slots(case)}
        assert all(
            len(quantity[field]) == sizes[name] for _, name, quantity in quantities(case) for field in QUANTITIES
        )


@pytest.mark.norm("vectors.level", "vectors.informative")
def test_a_required_case_tests_something_and_an_informative_one_nothing(cases):
    for case in cases.values():
        tested = 0
        for _, _, quantity in quantities(case):
            low, high = values(case, quantity["low"]), values(case, quantity["high"])
            tested += int((~((low == -np.inf) & (high == np.inf))).sum())
        assert (tested > 0) == (case["level"] == "required"), case["id"]


@pytest.mark.norm("vectors.contents", "vectors.exact")
def test_exact_has_thirty_digits_at_most_and_nearest_is_next_to_it(cases):
    """Read as fractions: no other number of the dtype lies nearer than `nearest`."""
    for case in [cases["adam/wide/defaults"], cases["adadelta/tiny/defaults/float16"], cases["sgd/plain/defaults"]]:
        form = {"float32": (24, -126), "float16": (11, -14)}[case["dtype"]]
        for _, _, quantity in quantities(case):
            for text, near in zip(quantity["exact"], values(case, quantity["nearest"]).tolist(), strict=True):
                assert len(re.sub(r"E.*|\D", "", text).lstrip("0")) <= 30
                exponent = max(math.frexp(near)[1] - 1, form[1]) if near else form[1]
                half = Fraction(2) ** (exponent - form[0])
                assert abs(Fraction(text) - Fraction(near)) <= half


# Backends against the files, by the rule of the guide


def deviating(backend, cases):
    out = []
    for case in cases:
        form = format_of(case["dtype"])
        w, *g = (form.from_bits(row).reshape(case["shape"]) for row in (case["parameter"], *case["gradients"]))
        run = backend.run(
            Case(
                case["id"],
                case["optimizer"],
                case["regime"],
                "",
                case["dtype"],
                case["hyperparameters"],
                w,
                np.stack(g),
            )
        )
        for step, name, quantity in quantities(case):
            got = run.parameters[step] if name == "parameter" else run.state[name][step]
            if not accepted(case, got.reshape(-1).astype(np.float64), quantity).all():
                out.append(f"{case['id']}, step {step + 1}, {name}")
    return out


@pytest.mark.norm("vectors.between")
@pytest.mark.parametrize("dtype", ["float32", *DTYPES])
def test_the_fast_path_passes(dtype, cases):
    if dtype == "bfloat16":
        require("ml_dtypes")
    assert deviating(open_backend("reference"), [case for case in cases.values() if case["dtype"] == dtype]) == []


def test_mlx_passes(cases):
    require("mlx.core")
    float32 = [case for case in cases.values() if case["dtype"] == "float32"]
    assert deviating(open_backend("mlx"), [case for case in float32 if case["optimizer"] in EIGHT]) == []


@pytest.mark.norm("vectors.scalars")
def test_mlx_forms_the_coefficients_of_a_bias_correction_in_float32_and_is_outside(cases):
    require("mlx.core")
    corrected = [case for case in cases.values() if case["dtype"] == "float32" and case["optimizer"] in LATER]
    assert len(deviating(open_backend("mlx"), corrected)) >= 100


@pytest.mark.norm("vectors.scalars")
def test_a_port_that_forms_its_coefficients_in_float32_is_outside_and_passes_the_check_of_that_profile(cases):
    def step(h, t, w, g, m, v):
        b1, b2 = map(np.float32, h.betas)
        one = np.float32(1)
        m, v = b1 * m + (one - b1) * g, b2 * v + (one - b2) * g * g
        return w - h.learning_rate * m / (np.sqrt(v) + h.eps), m, v

    program, suite = Program(step), [case for case in cases_of("Adam") if case.label == "defaults"]
    outside = deviating(program, [cases[case.id] for case in suite])
    assert {line.split(",")[0] for line in outside} == {case.id for case in suite}
    assert check(program, suite, scalars="float32").counts()["conforms"] == len(suite)


@pytest.mark.norm("vectors.nan")
@pytest.mark.parametrize("name", ["adam/special/nan", "adam/special/infinity", "sgd/special/infinity"])
def test_a_special_value_that_is_missed_does_not_pass(name, cases):
    case = cases[name]
    for _, _, quantity in quantities(case):
        near = values(case, quantity["nearest"])
        missed = ~np.isfinite(near)
        assert accepted(case, near, quantity).all()
        assert not accepted(case, np.where(missed, 0.0, near), quantity)[missed].any()


# The regime `special`, by hand

MUON_AT_INFINITY = {"parameter": ("-inf", "inf"), "v": ("inf", "-inf")}
"""Of one axis, it takes a step along its momentum."""


def expected(cases, name, step, quantity):
    found = {name: value for index, name, value in quantities(cases[name]) if index == step - 1}
    return found[quantity]


@pytest.mark.norm("vectors.special-nan")
def test_a_nan_stays_in_its_element(cases):
    """It comes in steps 1, 3 and 4 for the elements 0, 1 and 2; Muon has one axis here."""
    first = {0: 1, 1: 3, 2: 4}
    for optimizer in (*NAMES, "Muon"):
        case = cases[f"{optimizer.lower()}/special/nan"]
        for step, name, quantity in quantities(case):
            nan = {index for index, text in enumerate(quantity["exact"]) if text == "nan"}
            reached = {index for index, at in first.items() if step + 1 >= at}
            free = optimizer in NAMES and name in EXPECTED[optimizer].idle
            assert nan == (set() if free else reached), (optimizer, step, name)
            assert nan == set(np.flatnonzero(np.isnan(values(case, quantity["nearest"]))))


@pytest.mark.norm("vectors.special-nan", "vectors.special-infinity")
@pytest.mark.parametrize(("kind", "since"), [("nan", 1), ("infinity", 4)])
def test_in_adafactor_a_nan_or_an_infinity_reaches_the_whole_parameter(kind, since, cases):
    for step, name, quantity in quantities(cases[f"adafactor/special/{kind}"]):
        if name == "parameter":
            assert {text == "nan" for text in quantity["exact"]} == {step + 1 >= since}


@pytest.mark.norm("vectors.special-infinity")
@pytest.mark.parametrize("optimizer", [*NAMES, "Muon"])
def test_an_infinite_gradient(optimizer, cases):
    """The first two elements meet +∞ and −∞ in the last gradient."""
    rows = list(quantities(cases[f"{optimizer.lower()}/special/infinity"]))
    infinity = MUON_AT_INFINITY if optimizer == "Muon" else EXPECTED[optimizer].infinity
    for step, name, quantity in rows:
        if step < 3:
            assert not {"nan", "inf", "-inf"} & set(quantity["exact"])
        elif name in infinity:
            assert tuple(quantity["exact"][:2]) == infinity[name]
            assert not {"nan", "inf", "-inf"} & set(quantity["exact"][2:])


@pytest.mark.norm("vectors.special-infinity", "vectors.after-nan")
def test_what_a_required_special_case_leaves_untested(cases):
    """A NaN comes in steps 1, 3 and 4 for the elements 0, 1 and 2, an infinity in the last step for 0 and 1."""
    after_nan = {(1, 0), (2, 0), (3, 0), (4, 0), (3, 1), (4, 1), (4, 2)}
    wanted = {
        "adafactor/special/nan": {("parameter", *place) for place in np.ndindex(5, 6) if place[0]},
        "adafactor/special/infinity": {("parameter", 4, index) for index in range(6)},
        "adamax/special/nan": {("v", *place) for place in after_nan},
        "lion/special/nan": {("parameter", *place) for place in after_nan},
        "lion/special/infinity": {("parameter", 4, 0), ("parameter", 4, 1)},
    }
    untested = {}
    for case in cases.values():
        if case["regime"] == "special" and case["level"] == "required":
            for step, name, quantity in quantities(case):
                low, high = values(case, quantity["low"]), values(case, quantity["high"])
                for index in np.flatnonzero((low == -np.inf) & (high == np.inf)).tolist():
                    untested.setdefault(case["id"], set()).add((name, step + 1, index))
    assert untested == wanted


@pytest.mark.norm("vectors.after-nan")
def test_a_maximum_may_pass_over_a_nan_and_the_sign_of_one_is_0_in_mlx():
    mx = require("mlx.core")
    one, nan = np.float32([1]), np.float32([np.nan])
    assert np.fmax(one, nan) == 1 and np.isnan(np.maximum(one, nan))
    assert mx.sign(mx.array(nan)).tolist() == [0]


@pytest.mark.norm("vectors.infinity-last")
def test_after_an_infinity_two_right_orders_of_a_running_mean_differ():
    m, g, beta, rest = np.float32([np.inf, 1, 0.9, 0.1])
    with np.errstate(invalid="ignore"):
        assert beta * m + rest * g == np.inf and np.isnan(m + rest * (g - m))


@pytest.mark.norm("vectors.special-nan", "vectors.special-infinity", "vectors.infinity-last")
def test_a_nan_comes_in_three_gradients_and_an_infinity_in_the_last_alone(cases):
    for optimizer in (*NAMES, *WHOLE):
        for name, places in {"nan": [(0, 0), (2, 1), (3, 2)], "infinity": [(3, 0), (3, 1)]}.items():
            case = cases[f"{optimizer.lower()}/special/{name}"]
            g = np.array([values(case, row) for row in case["gradients"]])
            assert list(zip(*map(np.ndarray.tolist, np.nonzero(~np.isfinite(g))), strict=True)) == places
            assert len(g) == 4


@pytest.mark.norm("vectors.outside-domain", "interval.domain")
def test_all_special_cases_but_negative_zero_lie_outside_the_domain(cases):
    for case in cases.values():
        data = np.array([values(case, row) for row in (case["parameter"], *case["gradients"])])
        rates = np.ravel(case["hyperparameters"]["learning_rate"] or 0.0)
        eps = np.ravel(case["hyperparameters"].get("eps", 0.0))[-1]  # Adafactor's ε₁ may be as small as it likes
        sizes = np.abs([*data.ravel(), *rates, eps])
        inside = bool(np.all((sizes == 0) | ((sizes >= 2.0**-40) & (sizes <= 2.0**40))))
        assert inside == (case["regime"] != "special" or case["id"].endswith("/negative_zero")), case["id"]


@pytest.mark.norm("vectors.special-negative-zero")
def test_the_sign_of_a_zero_is_not_compared(cases):
    for optimizer in (*NAMES, *WHOLE):
        case, zeros = cases[f"{optimizer.lower()}/special/negative_zero"], 0
        for _, _, quantity in quantities(case):
            near = values(case, quantity["nearest"])
            zeros += int((near == 0).sum())
            for zero in (0.0, -0.0):
                assert accepted(case, np.where(near == 0, zero, near), quantity).all()
        assert zeros > 0


@pytest.mark.norm("vectors.special-subnormal")
def test_the_subnormal_cases_underflow_gradually(cases):
    """Each exact result is a fraction, and what is nearest to it is a multiple of 2⁻¹⁴⁹ and no zero."""
    for name, quantity_name in (("sgd", "parameter"), ("adam", "m"), ("lion", "m")):
        case = cases[f"{name}/special/subnormal"]
        for quantity in (quantity for _, what, quantity in quantities(case) if what == quantity_name):
            for text, near in zip(quantity["exact"], values(case, quantity["nearest"]).tolist(), strict=True):
                assert 0 < abs(near) < 2.0**-126 and (near * 2.0**149).is_integer()
                assert abs(Fraction(text) - Fraction(near)) <= Fraction(1, 2**150)


@pytest.mark.norm("vectors.special-overflow")
@pytest.mark.parametrize("optimizer", NAMES)
def test_where_a_square_overflows_v_is_infinite_and_the_parameter_stays(optimizer, cases):
    case = cases[f"{optimizer.lower()}/special/overflow"]
    squares = EXPECTED[optimizer].squares
    rate = Fraction(case["hyperparameters"]["learning_rate"])
    kept = 1 - rate * Fraction(EXPECTED[optimizer].decay)  # weight decay needs no gradient
    for step, name, quantity in quantities(case):
        if name == "v":
            assert (set(quantity["exact"]) == {"inf"}) == squares
        if name == "parameter" and squares:
            for w, text in zip(values(case, case["parameter"]).tolist(), quantity["exact"], strict=True):
                assert abs(Fraction(text) - Fraction(w) * kept ** (step + 1)) < Fraction(1, 10**28)


@pytest.mark.norm("vectors.special-underflow")
@pytest.mark.parametrize("optimizer", SQUARING)
def test_where_a_square_underflows_its_mean_stays_zero(optimizer, cases):
    for _, name, quantity in quantities(cases[f"{optimizer.lower()}/special/underflow"]):
        assert (set(quantity["exact"]) == {"0"}) == (name in ("u", "v"))


@pytest.mark.norm("vectors.special-underflow")
@pytest.mark.parametrize("optimizer", SQUARING)
def test_where_a_square_underflows_eps_alone_divides(optimizer, cases):
    case = cases[f"{optimizer.lower()}/special/underflow"]
    rate, eps = (Fraction(case["hyperparameters"][name]) for name in ("learning_rate", "eps"))
    beta = Fraction(case["hyperparameters"]["betas"][0]) if "betas" in case["hyperparameters"] else 0
    kept = 1 - rate * Fraction(EXPECTED[optimizer].decay)
    divisor = 1 if optimizer == "AdaDelta" else eps  # of √ε·g/√ε, ε is gone
    w = [Fraction(x) for x in values(case, case["parameter"]).tolist()]
    m = [Fraction(0)] * len(w)
    for t, (row, step) in enumerate(zip(case["gradients"], case["expected"], strict=True), start=1):
        correction = 1 - beta**t if optimizer in LATER else 1
        m = [beta * x + (1 - beta) * Fraction(g) for x, g in zip(m, values(case, row).tolist(), strict=True)]
        w = [kept * x - rate * y / correction / divisor for x, y in zip(w, m, strict=True)]
        for x, text in zip(w, step["parameter"]["exact"], strict=True):
            assert abs(Fraction(text) - x) <= abs(x) * Fraction(1, 10**28)


@pytest.mark.norm(
    "vectors.level",
    "vectors.special-nan",
    "vectors.special-infinity",
    "vectors.special-negative-zero",
    "vectors.special-overflow",
    "vectors.special-underflow",
    "vectors.special-subnormal",
)
def test_the_data_of_the_special_regime_are_what_their_names_say(cases):
    tiny = 2.0**-126
    for name, holds in {
        "subnormal": lambda x: (np.abs(x) < tiny).all() and (x != 0).all(),
        "overflow": lambda x: (np.float32(2.0**127) / np.abs(x) < np.abs(x)).all(),
        "underflow": lambda x: (np.abs(x) > tiny).all() and (np.abs(x) < 2.0**-75.5).all(),
        "negative_zero": lambda x: (np.signbit(x) & (x == 0)).any(),
        "nan": lambda x: np.isnan(x).any(),
        "infinity": lambda x: (x == np.inf).any() and (x == -np.inf).any(),
    }.items():
        for optimizer in (*NAMES, *WHOLE):
            case = cases[f"{optimizer.lower()}/special/{name}"]
            assert holds(np.array([values(case, row) for row in case["gradients"]]))
            assert case["level"] == ("required" if name in ("nan", "infinity", "negative_zero") else "informative")


@pytest.mark.norm("vectors.special")
@pytest.mark.parametrize("optimizer", [*NAMES, "Muon"])
def test_the_fast_path_has_zeros_infinities_and_nan_where_the_special_regime_has(optimizer, cases):
    """In the informative cases too, where nothing is required of anyone."""

    def kind(x):
        return np.where(np.isnan(x), 2, np.where(np.isinf(x), 3, x != 0)) * np.where(x < 0, -1, 1)

    for name, case in cases.items():
        if case["regime"] == "special" and case["optimizer"] == optimizer:
            w = values(case, case["parameter"]).astype(np.float32)
            g = np.array([values(case, row) for row in case["gradients"]], np.float32)
            run = open_backend("reference").run(
                Case(name, optimizer, "special", "", "float32", case["hyperparameters"], w, g)
            )
            for step, quantity_name, quantity in quantities(case):
                got = run.parameters[step] if quantity_name == "parameter" else run.state[quantity_name][step]
                assert np.array_equal(kind(got), kind(values(case, quantity["nearest"]))), (name, step, quantity_name)


# Libraries


@pytest.mark.norm("vectors.bytes", "vectors.libraries")
@pytest.mark.parametrize("library", ["mpmath", "gmpy2"])
def test_mpmath_and_mpfr_give_the_committed_digests(library):
    if library == "gmpy2":
        require("gmpy2")
    committed = last_changes()
    subset = ("wide/defaults", "edge/defaults", "zeros/defaults/bfloat16", "plain/defaults/float64")
    for vector in (vector for name in (*NAMES, *WHOLE) for vector in vectors_of(name)):
        if vector.regime == "special" or vector.id.endswith(subset):
            assert case_digest(derive(vector, library)) == committed[vector.id]
