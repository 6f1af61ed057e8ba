"""The vectors hold what a second program derives, which shares nothing with the package: verify.c, in __float128."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import program

pytestmark = pytest.mark.xdist_group("vectors")

SOURCE = Path(__file__).with_name("verify.c")


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    built = tmp_path_factory.mktemp("verifier") / "verify"
    header = subprocess.run(
        [program("gcc"), "-E", "-"], input="#include <quadmath.h>", text=True, capture_output=True, check=False
    )
    if "quadmath.h" in header.stderr:
        pytest.skip("no gcc with __float128 is installed")
    command = [program("gcc"), "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", SOURCE, "-o", built]
    subprocess.run([*command, "-lquadmath", "-lm"], check=True)

    def run(*paths):
        return subprocess.run([built, *paths], capture_output=True, text=True, check=False)

    return run


@pytest.mark.norm("vectors.contents", "vectors.expected", "vectors.special", "vectors.derived-twice")
def test_every_value_of_every_file_is_confirmed(verifier, folder, cases):
    run = verifier(*sorted(folder.glob("[a-z]*.json")))
    values = sum(
        len(quantity["exact"])
        for case in cases.values()
        for expected in case["expected"]
        for quantity in (expected["parameter"], *expected["state"].values())
    )
    assert run.stdout == f"{len(cases)} cases, {values} values, 0 problems\n"
    assert run.returncode == 0


def next_pattern(word, places):
    return format(int(word, 16) + places, f"0{len(word)}x")


def another_digit(text):
    """Change the 26th significant digit: 1e-28 of the largest operand is some digits below it."""
    places = [match.start() for match in re.finditer(r"\d", text.partition("E")[0])]
    first = next(i for i, place in enumerate(places) if text[place] != "0")
    place = places[first + 25]
    return text[:place] + str((int(text[place]) + 5) % 10) + text[place + 1 :]


DAMAGE = {
    "nearest one up": ("nearest", lambda q, i: next_pattern(q["nearest"][i], 1), "`nearest` is wrong"),
    "nearest one down": ("nearest", lambda q, i: next_pattern(q["nearest"][i], -1), "`nearest` is wrong"),
    "exact": ("exact", lambda q, i: another_digit(q["exact"][i]), "`exact` is wrong"),
    "no interval": ("low", lambda q, i: "7fc00000", "`low` and `high` are wrong"),
}


@pytest.mark.norm("vectors.derived-twice")
@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize(
    ("optimizer", "slot"),
    [
        ("adam", "m"),
        ("adadelta", "u"),
        ("sgd", None),
        ("lion", None),
        ("adafactor", "exp_avg_sq_row"),
        ("muon", "v"),
        ("muon", None),
    ],
)
def test_a_wrong_value_is_not_confirmed(kind, optimizer, slot, verifier, folder, tmp_path):
    field, change, words = DAMAGE[kind]
    text = (folder / f"{optimizer}.json").read_text("utf-8")
    case = json.loads(text)["cases"][1]
    expected = case["expected"][5]
    quantity = expected["state"][slot] if slot else expected["parameter"]
    index = next(i for i, exact in enumerate(quantity["exact"]) if len(re.sub(r"E.*|\D", "", exact).lstrip("0")) == 30)
    old = json.dumps(quantity[field])
    changed = list(quantity[field])
    changed[index] = change(quantity, index)
    assert text.count(old) == 1
    damaged = tmp_path / f"{optimizer}.json"
    damaged.write_text(text.replace(old, json.dumps(changed)), "utf-8", newline="\n")
    run = verifier(damaged)
    assert run.returncode == 1
    letter = {"exp_avg_sq_row": "R", None: "w"}.get(slot, slot)
    assert run.stdout.splitlines()[0] == (f"{damaged}: {case['id']}, step 6, {letter}, element {index}: {words}")
    assert run.stdout.endswith("1 problems\n")
