"""The guide "Check your port" shows the truth: its exchange, its adapter, its conversions of bits."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace

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
FIRST = replace(CASE, gradients=CASE.gradients[:1])
NUMBER = replace(CASE, parameter=np.float32(1.0), gradients=np.float32([0.5]))
EMPTY = replace(CASE, parameter=np.float32([]), gradients=np.float32([[]]))
BEGUN = {
    "step": 3000,
    "parameter": np.array([0x3F733333, 0xC0000000], np.uint32).view(np.float32),  # w and v after the first step
    "state": {"v": np.float32([0.5, 0.0])},
}
SHOWN = [
    CASE,
    replace(FIRST, id="sgd/many/momentum=0.5", leaves=(FIRST, NUMBER, EMPTY)),
    replace(CASE, id="sgd/resume/momentum=0.5", gradients=CASE.gradients[1:], **BEGUN),
    replace(FIRST, id="sgd/mixed/momentum=0.5", gradient_dtype="bfloat16"),
]
"""The cases that the guide shows, each as a request and as the reply to it."""


def fences(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.norm("check_your_port.run", "check_your_port.steps", "check_your_port.tree", "check_your_port.shapes")
@pytest.mark.norm("check_your_port.resume", "check_your_port.gradient_dtype", "check_your_port.upper-half")
def test_the_requests_shown_are_what_the_checker_sends():
    shown = [*map(json.loads, fences("json")[::2])]
    sent = [json.loads(json.dumps(request(case))) for case in SHOWN]
    assert shown == sent
    assert [list(one) for one in shown] == [list(one) for one in sent]


@pytest.mark.norm("check_your_port.run", "check_your_port.zero", "check_your_port.streams", "check_your_port.given")
@pytest.mark.norm("check_your_port.several", "check_your_port.order", "check_your_port.keeps")
def test_the_replies_shown_are_what_each_adapter_answers(adapter):
    every = [*map(json.loads, fences("json"))]
    asked, shown = every[::2], every[1::2]
    lines = [{"op": "start", "protocol": 1, "newest": 2}, *asked, {"op": "stop"}]
    run = subprocess.run(
        shlex.split(adapter),
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    start, *replies = map(json.loads, run.stdout.splitlines())
    assert set(start) == {"protocol", "name", "version"}
    assert replies == shown


@pytest.mark.norm("check_your_port.lines")
def test_the_replies_shown_keep_the_protocol(adapter):
    with Command(adapter) as backend:
        one, tree, resumed, mixed = map(backend.run, SHOWN)
    # By hand, in float32: v = 0.5·0 + g, then 0.5·v + g.
    assert one.state["v"].tolist() == [[0.5, 0.0], [0.0, 1.5]]
    assert [leaf.state["v"].tolist() for leaf in tree.leaves] == [[[0.5, 0.0]], [0.5], [[]]]
    assert resumed.state["v"].tolist() == [[0.0, 1.5]]
    assert mixed.state["v"].tolist() == [[0.5, 0.0]]


def test_the_adapter_shown_is_about_forty_lines():
    source = (PORTS / "javascript" / "adapter.mjs").read_text(encoding="utf-8")
    code = [line for line in source.splitlines() if line.strip() and not line.startswith("//")]
    assert len(code) <= 40


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
