"""The programs of the guide load the vectors, in C, JavaScript and Rust, and find a wrong optimizer."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import program

pytestmark = pytest.mark.xdist_group("vectors")

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "vectors.md").read_text("utf-8")

WRONG = {  # ε inside the root
    "c": ("sqrtf(v[i]) + (float)eps", "sqrtf(v[i] + (float)eps)"),
    "javascript": ("fround(sqrt(v[i])) + fround(eps)", "fround(sqrt(v[i] + eps))"),
    "rust": ("v[i].sqrt() + eps as f32", "(v[i] + eps as f32).sqrt()"),
}


def source(language):
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return text


def build(language, text, folder):
    """Build the command that runs a program of the guide."""
    path = folder / {"c": "load.c", "javascript": "load.mjs", "rust": "load.rs"}[language]
    path.write_text(text, "utf-8")
    built = folder / "load"
    if language == "javascript":
        return [program("node"), path]
    if language == "c":
        command = [program("gcc", "cc"), "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", path, "-o", built, "-lm"]
    else:
        command = [program("rustc"), "-D", "warnings", "-O", path, "-o", built]
    subprocess.run(command, check=True)
    return [built]


def run(command, path):
    return subprocess.run([*command, path], capture_output=True, text=True, check=False)


@pytest.mark.norm("vectors.one-file", "vectors.conforms", "vectors.programs", "vectors.swift")
@pytest.mark.parametrize("language", WRONG)
def test_a_program_of_the_guide_conforms_in_every_case_of_float32(language, folder, cases, tmp_path):
    count = sum(case["optimizer"] == "Adam" and case["dtype"] == "float32" for case in cases.values())
    result = run(build(language, source(language), tmp_path), folder / "adam.json")
    assert (result.stdout, result.returncode) == (f"{count} cases, 0 deviate\n", 0), result.stderr


@pytest.mark.norm("vectors.conforms", "vectors.programs")
@pytest.mark.parametrize("language", WRONG)
def test_a_program_with_another_formula_deviates(language, folder, cases, tmp_path):
    """ε inside the root shows where gradients are near ε, and nothing is asked of the informative cases."""
    right, wrong = WRONG[language]
    assert source(language).count(right) == 1
    result = run(build(language, source(language).replace(right, wrong), tmp_path), folder / "adam.json")
    assert result.returncode == 1
    found = set(re.findall(r"^(\S+) deviates$", result.stdout, re.MULTILINE))
    tiny = [case for name, case in cases.items() if name.startswith("adam/tiny/") and case["dtype"] == "float32"]
    told = [case for case in tiny if case["hyperparameters"]["eps"] and case["hyperparameters"]["learning_rate"]]
    assert found >= {case["id"] for case in told if case["level"] == "required"}
    assert not {name for name in found if cases[name]["level"] == "informative"}
    assert result.stdout.endswith(f" cases, {len(found)} deviate\n")


@pytest.mark.norm("vectors.programs")
@pytest.mark.parametrize("language", WRONG)
def test_a_program_reads_every_step_and_element(language, folder, tmp_path):
    """An interval that nothing can meet is put at the ends of a case, and the case deviates."""
    text = (folder / "adam.json").read_text("utf-8")
    command = build(language, source(language), tmp_path)
    case = re.search(r"^  \{\n(?:(?!  \}).*\n)*   \"id\": \"adam/wide/defaults\",\n", text, re.MULTILINE)
    lows = list(re.finditer(r'^      "low": \[.*\]', case[0], re.MULTILINE))
    for step, element in ((0, 0), (0, 23), (7, 0), (7, 23)):
        words = re.findall(r'"([0-9a-f]{8})"', lows[step][0])
        words[element] = "7f800000"  # ∞
        line = '      "low": [' + ", ".join(f'"{word}"' for word in words) + "]"
        start = case.start() + lows[step].start()
        (tmp_path / "adam.json").write_text(text[:start] + line + text[start + len(lows[step][0]) :], "utf-8")
        result = run(command, tmp_path / "adam.json")
        assert result.stdout.startswith("adam/wide/defaults deviates\n"), (step, element)
        assert result.returncode == 1


NAN, ZERO, MINUS_ZERO, ONE = "7fc00000", "00000000", "80000000", "3f800000"
INFINITY, MINUS_INFINITY, MINUS_ONE = "7f800000", "ff800000", "bf800000"
RULES = [  # case, element, low, high, and whether the value passes
    ("adam/zeros/defaults", 0, NAN, NAN, False),  # the value is 0
    ("adam/zeros/defaults", 0, MINUS_INFINITY, INFINITY, True),
    ("adam/zeros/defaults", 0, MINUS_ONE, MINUS_ZERO, True),
    ("adam/zeros/defaults", 0, ZERO, ONE, True),
    ("adam/zeros/defaults", 0, "00000001", ONE, False),
    ("adam/zeros/defaults", 0, MINUS_ONE, "80000001", False),
    ("adam/special/nan", 0, NAN, NAN, True),  # the value is NaN
    ("adam/special/nan", 0, MINUS_INFINITY, INFINITY, True),
    ("adam/special/nan", 0, MINUS_ONE, ONE, False),
    ("adam/special/nan", 0, MINUS_INFINITY, ONE, False),
    ("adam/special/nan", 0, ONE, INFINITY, False),
]


@pytest.mark.norm("vectors.nan", "vectors.anything", "vectors.between")
@pytest.mark.parametrize("language", WRONG)
def test_a_program_accepts_by_the_three_rules(language, folder, tmp_path):
    """The interval of one value is another, and the case deviates where the rules refuse the value."""
    text = (folder / "adam.json").read_text("utf-8")
    command = build(language, source(language), tmp_path)
    for name, element, low, high, passes in RULES:
        case = re.search(rf"^  \{{\n(?:(?!  \}}).*\n)*   \"id\": \"{name}\",\n", text, re.MULTILINE)
        changed = case[0]
        for field, word in (("low", low), ("high", high)):
            line = re.search(rf'^      "{field}": \[.*\]', changed, re.MULTILINE)  # of the parameter, after step 1
            words = re.findall(r'"([0-9a-f]{8})"', line[0])
            words[element] = word
            new = f'      "{field}": [' + ", ".join(f'"{word}"' for word in words) + "]"
            changed = changed[: line.start()] + new + changed[line.end() :]
        (tmp_path / "adam.json").write_text(text[: case.start()] + changed + text[case.end() :], "utf-8")
        result = run(command, tmp_path / "adam.json")
        assert result.stdout.startswith(f"{name} deviates\n") == (not passes), (name, low, high)
        assert result.returncode == (not passes)


@pytest.mark.norm("vectors.swift")
def test_the_guide_says_that_the_swift_program_is_not_compiled():
    before = GUIDE[: GUIDE.index("```swift")]
    assert "**not compiled here**" in before[before.rindex("### ") :]


@pytest.mark.norm("vectors.level")
def test_the_labels_of_the_special_regime_are_those_of_the_files(cases):
    rows = re.findall(r"^\| `(\w+)` \| .* \| (required|informative) \|", GUIDE, re.MULTILINE)
    levels = {case["id"].split("/")[2]: case["level"] for case in cases.values() if case["regime"] == "special"}
    assert dict(rows) == levels
