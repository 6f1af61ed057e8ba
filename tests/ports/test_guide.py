"""The guide "Check your port" shows the truth: its exchange, its adapter, its conversions of bits."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import numpy as np
import pytest

from mlx_optimizers.backends.command import Command, request
from mlx_optimizers.conformance import Case
from tests.ports.conftest import FLAGS, PORTS, ROOT, STRICT
from tests.support import program

GUIDE = (ROOT / "docs" / "guides" / "check_your_port.md").read_text(encoding="utf-8")

CASE = Case(
    "sgd/plain/momentum=0.5",
    "SGD",
    "plain",
    "momentum=0.5",
    "float32",
    {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.0, "dampening": 0.0, "nesterov": False},
    np.array([1.0, -2.0], np.float32),
    np.array([[0.5, 0.0], [-0.25, 1.5]], np.float32),
)


def fences(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.norm("check_your_port.run", "check_your_port.steps")
def test_the_request_shown_is_what_the_checker_sends():
    shown, _ = map(json.loads, fences("json"))
    sent = json.loads(json.dumps(request(CASE)))
    assert shown == sent
    assert list(shown) == list(sent)


@pytest.mark.norm("check_your_port.run", "check_your_port.zero", "check_your_port.streams")
def test_the_reply_shown_is_what_each_adapter_answers(adapter):
    asked, shown = map(json.loads, fences("json"))
    lines = [{"op": "start", "protocol": 1, "newest": 2}, asked, {"op": "stop"}]
    run = subprocess.run(
        shlex.split(adapter),
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    start, reply = map(json.loads, run.stdout.splitlines())
    assert set(start) == {"protocol", "name", "version"}
    assert reply == shown


@pytest.mark.norm("check_your_port.lines")
def test_the_reply_shown_keeps_the_protocol(adapter):
    with Command(adapter) as backend:
        outcome = backend.run(CASE)
    # By hand, in float32: v = 0.5·0 + g, then 0.5·v + g.
    assert outcome.state["v"].tolist() == [[0.5, 0.0], [0.0, 1.5]]


def test_the_adapter_shown_is_about_thirty_lines():
    source = (PORTS / "javascript" / "adapter.mjs").read_text(encoding="utf-8")
    code = [line for line in source.splitlines() if line.strip() and not line.startswith("//")]
    assert len(code) <= 35


PATTERNS = ["00000000", "80000000", "00000001", "3dcccccd", "c0490fdb", "7f7fffff", "7f800000"]


def printed(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout.split()


@pytest.fixture
def expected():
    """Each pattern after a way to a float and back, and 0.1 as a pattern."""
    return [*PATTERNS, format(int(np.float32(0.1).view(np.uint32)), "08x")]


def test_the_conversions_in_c_are_right(tmp_path, expected):
    calls = "".join(f'to_bits(from_bits("{x}"), text); puts(text);\n' for x in PATTERNS)
    (source := tmp_path / "bits.c").write_text(
        f"{fences('c')[0]}\nint main(void)\n{{\nchar text[9];\n{calls}to_bits(0.1f, text); puts(text);\nreturn 0;\n}}\n"
    )
    subprocess.run([program("cc"), *FLAGS, *STRICT, "-o", tmp_path / "bits", source], check=True, timeout=100)
    assert printed(tmp_path / "bits") == expected


def test_the_conversions_in_javascript_are_right(node, expected):
    script = f"{fences('javascript')[0]}\nfor (const x of {PATTERNS}) console.log(toBits(fromBits(x)));"
    assert printed(node, "-e", f"{script} console.log(toBits(0.1));") == expected


def test_the_conversions_in_rust_are_right(tmp_path, expected):
    calls = "".join(f'println!("{{}}", to_bits(from_bits("{x}")));\n' for x in PATTERNS)
    (source := tmp_path / "bits.rs").write_text(
        f'{fences("rust")[0]}\nfn main() {{\n{calls}println!("{{}}", to_bits(0.1));\n}}\n'
    )
    subprocess.run([program("rustc"), "-D", "warnings", "-o", tmp_path / "bits", source], check=True, timeout=300)
    assert printed(tmp_path / "bits") == expected
