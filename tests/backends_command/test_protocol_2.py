"""Protocol 2: what is sent for a tree, a state and gradients in bfloat16, and what may come back."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace

import numpy as np
import pytest

from mlx_optimizers.backends.command import AdapterError, Command, Failed, request
from mlx_optimizers.conformance import Case, Unsupported, cases_of, check, matching, parse
from mlx_optimizers.conformance.frame import FAMILIES, frame_of
from mlx_optimizers.conformance.verdict import judge

NAME = "BiasCorrectedAdam"
"""The optimizer of the tests here: it has a state, and its step counts."""

BESIDE = ("many", "resume", "mixed", "untouched")
"""The families that protocol 1 has no request for."""


def case_of(parameter, gradients, **more):
    h = {"learning_rate": 0.1, "eps": 0.5}
    data = np.array(parameter, np.float32), np.array(gradients, np.float32)
    return Case("adagrad/x/y", "Adagrad", "x", "y", "float32", h, *data, **more)


ONE = case_of([1.0, -2.0], [[0.5, 0.0], [-0.25, 1.5]])
STATE = {"v": np.array([0.25, 4.0], np.float32)}
LEAVES = (ONE, case_of(1.0, [0.5, -0.25]), case_of(np.zeros((0, 3)), np.zeros((2, 0, 3))))
TREE = replace(ONE, leaves=LEAVES)

CASES = {
    "plain": ONE,
    "no axis": LEAVES[1],
    "empty": LEAVES[2],
    "tree": TREE,
    "resume": replace(ONE, step=3000, state=STATE),
    "a step alone": replace(ONE, step=7),
    "a tree that resumes": replace(TREE, step=3000, leaves=(replace(ONE, state=STATE), *LEAVES[1:])),
    "mixed": replace(ONE, gradient_dtype="bfloat16"),
}

HEAD = '{"op": "run", "id": "adagrad/x/y", "optimizer": "Adagrad", "dtype": "float32", '
H = '"hyperparameters": {"learning_rate": 0.1, "eps": 0.5}, '
PARAMETER = '"parameter": ["3f800000", "c0000000"], '
GRADIENTS = '"gradients": [["3f000000", "00000000"], ["be800000", "3fc00000"]]'
GIVEN = ', "state": {"v": ["3e800000", "40800000"]}'
NUMBER = '{"shape": [], "parameter": ["3f800000"], "gradients": [["3f000000"], ["be800000"]]}'
EMPTY = '{"shape": [0, 3], "parameter": [], "gradients": [[], []]}'
LINES = {
    "plain": HEAD + '"shape": [2], ' + H + PARAMETER + GRADIENTS + "}",
    "no axis": HEAD + '"shape": [], ' + H + NUMBER[len('{"shape": [], ') :],
    "empty": HEAD + '"shape": [0, 3], ' + H + EMPTY[len('{"shape": [0, 3], ') :],
    "tree": HEAD + H + '"tree": [{"shape": [2], ' + PARAMETER + GRADIENTS + "}, " + NUMBER + ", " + EMPTY + "]}",
    "resume": HEAD + '"shape": [2], ' + H + '"step": 3000, ' + PARAMETER + GRADIENTS + GIVEN + "}",
    "a step alone": HEAD + '"shape": [2], ' + H + '"step": 7, ' + PARAMETER + GRADIENTS + "}",
    "a tree that resumes": (
        f'{HEAD}{H}"step": 3000, "tree": [{{"shape": [2], {PARAMETER}{GRADIENTS}{GIVEN}}}, {NUMBER}, {EMPTY}]}}'
    ),
    "mixed": (
        f'{HEAD}"shape": [2], {H}"gradient_dtype": "bfloat16", {PARAMETER}'
        '"gradients": [["3f00", "0000"], ["be80", "3fc0"]]}'
    ),
}

RECORDS = """
start(protocol=PROTOCOL)
with open(sys.argv[1] + ".lines", "w") as file:
    while (request := json.loads(line := sys.stdin.readline()))["op"] == "run":
        file.write(line)
        send(json.dumps({"id": request["id"], "unsupported": "no"}) + "\\n")
"""


@pytest.mark.norm(
    "check_your_port.shapes",
    "check_your_port.tree",
    "check_your_port.resume",
    "check_your_port.gradient_dtype",
    "check_your_port.leaf-state",
)
def test_the_requests_of_protocol_2_are_these_bytes(program, tmp_path):
    assert list(CASES) == list(LINES)
    with Command(program(RECORDS.replace("PROTOCOL", "2"))) as backend:
        for case in CASES.values():
            with pytest.raises(Unsupported, match=r"^no$"):
                backend.run(case)
    assert (tmp_path / "pids.lines").read_text().splitlines() == list(LINES.values())


@pytest.mark.norm("check_your_port.spared", "check_your_port.shapes", "check_your_port.both")
def test_an_adapter_of_protocol_1_gets_the_requests_of_protocol_1_alone(program, tmp_path):
    plain = [*cases_of(NAME)[:3], *(case for case in frame_of(NAME) if case.regime not in BESIDE)]
    spared = 0
    with Command(program(RECORDS.replace("PROTOCOL", "1"))) as backend:
        for case in (*cases_of(NAME)[:3], *frame_of(NAME), *CASES.values()):
            with pytest.raises(Unsupported) as raised:
                backend.run(case)
            spared += str(raised.value) == "the adapter speaks protocol 1"
    assert spared == 4 + 5  # two trees, a state and gradients in bfloat16; and those above
    lines = (tmp_path / "pids.lines").read_text().splitlines()
    assert len(lines) == len(plain) + 3
    for case, line in zip(plain, lines, strict=False):
        w, *rows = (
            [format(x, "08x") for x in a.reshape(-1).view(np.uint32)] for a in (case.parameter, *case.gradients)
        )
        more = {"shape": list(case.parameter.shape), "hyperparameters": case.hyperparameters}
        first = {"op": "run", "id": case.id, "optimizer": NAME, "dtype": "float32"}
        assert line == json.dumps({**first, **more, "parameter": w, "gradients": rows})


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.norm("check_your_port.not-asked")
def test_what_a_pipe_cannot_show_or_keep_is_asked_of_nobody(protocol, program):
    with Command(program(f"start(protocol={protocol}); assert receive()['op'] == 'stop'")) as backend:
        for case in frame_of(NAME):
            if case.regime == "untouched":
                with pytest.raises(Unsupported, match=r"^a pipe does not show what a program writes to$"):
                    backend.run(case)
            elif case.saved is not None:
                with pytest.raises(Unsupported, match=r"^an adapter keeps no optimizer between requests"):
                    backend.run(case)
    assert backend.error is None


def test_a_broken_adapter_is_broken_in_the_cases_that_it_would_be_spared(program):
    backend = Command(program("receive(); send('?\\n')"))
    for case in (TREE, *matching(pattern="adam/untouched/*")):
        with pytest.raises(AdapterError, match="not JSON"):
            backend.run(case)


# Replies

PATTERNS = {"parameters": [["3f800000", "c0000000"]] * 2}
RIGHT = [
    {**PATTERNS, "state": {"v": [["00000000", "3f800000"], ["7fc00000", "80000000"]]}},
    {"parameters": [["3f800000"], ["40000000"]]},
    {"parameters": [[], []], "state": {"v": [[], []]}},
]


def replying(reply, protocol=2):
    """A program that answers the request with this, and the id."""
    reply = {"id": ONE.id, **reply} if isinstance(reply, dict) else reply
    return f"start(protocol={protocol}); receive(); send({json.dumps(reply)!r} + '\\n'); receive()"


@pytest.mark.norm("check_your_port.tree", "check_your_port.shapes", "check_your_port.order")
def test_the_numbers_of_a_tree_are_those_of_its_leaves(program):
    with Command(program(replying({"tree": RIGHT}))) as backend:
        run = backend.run(TREE)
    assert [leaf.case for leaf in run.leaves] == list(LEAVES)
    assert [leaf.parameters.shape for leaf in run.leaves] == [(2, 2), (2,), (2, 0, 3)]
    assert [list(leaf.state) for leaf in run.leaves] == [["v"], [], ["v"]]
    assert run.leaves[0].parameters.tolist() == [[1.0, -2.0]] * 2
    assert run.leaves[0].state["v"].view(np.uint32).tolist() == [[0, 0x3F800000], [0x7FC00000, 0x80000000]]
    assert run.leaves[1].parameters.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["tree", "resume", "mixed"])
@pytest.mark.norm("check_your_port.unsupported")
def test_an_adapter_of_protocol_2_may_decline_each_request(kind, program):
    for key, raised in (("unsupported", Unsupported), ("error", Failed)):
        with (
            Command(program(replying({key: "no such thing"}))) as backend,
            pytest.raises(raised, match=r"^no such thing$"),
        ):
            backend.run(CASES[kind])
        assert backend.error is None


def leaf_0(**changed):
    return {"tree": [{**RIGHT[0], **changed}, *RIGHT[1:]]}


PLAIN, KEYS_OF_TREE = {"parameters": PATTERNS["parameters"]}, "the keys id, tree; or id, unsupported; or error, id"
WRONG = {
    "a plain reply": ("tree", PLAIN, "the keys are id, parameters", KEYS_OF_TREE),
    "a tree and parameters": ("tree", {"tree": RIGHT, **PLAIN}, "the keys are id, tree, parameters", KEYS_OF_TREE),
    "a state beside a tree": ("tree", {"tree": RIGHT, "state": {}}, "the keys are id, tree, state", KEYS_OF_TREE),
    "a tree and a reason": ("tree", {"tree": RIGHT, "error": "x"}, "the keys are id, tree, error", KEYS_OF_TREE),
    "a tree that is no list": ("tree", {"tree": RIGHT[0]}, "tree is an object of 2", "tree is a list of 3"),
    "a leaf too few": ("tree", {"tree": RIGHT[:2]}, "tree is a list of 2", "tree is a list of 3"),
    "a leaf too many": ("tree", {"tree": [*RIGHT, RIGHT[2]]}, "tree is a list of 4", "tree is a list of 3"),
    "a leaf that is no object": ("tree", {"tree": [*RIGHT[:2], []]}, "tree[2] is a list of 0", "tree[2] is an object"),
    "leaves in another order": (
        "tree",
        {"tree": RIGHT[::-1]},
        "tree[0]: parameters after step 1: a list of 0",
        "2 lists of 2 strings of 8 digits",
    ),
    "an unknown key": (
        "tree",
        leaf_0(shape=[2]),
        "tree[0]: the keys are parameters, state, shape",
        "the keys parameters, state (optional)",
    ),
    "a leaf with an id": (
        "tree",
        leaf_0(id=ONE.id),
        "tree[0]: the keys are parameters, state, id",
        "parameters, state",
    ),
    "a leaf without parameters": (
        "tree",
        {"tree": [*RIGHT[:2], {"state": {}}]},
        "tree[2]: the keys are state",
        "the keys parameters, state (optional)",
    ),
    "a leaf that is unsupported": (
        "tree",
        {"tree": [*RIGHT[:2], {"unsupported": "empty"}]},
        "tree[2]: the keys are unsupported",
        "the keys parameters, state (optional)",
    ),
    "a step too few": (
        "tree",
        {"tree": [RIGHT[0], {"parameters": [["3f800000"]]}, RIGHT[2]]},
        "tree[1]: parameters: a list of 1",
        "2 lists of 1 strings of 8 digits",
    ),
    "a number for a parameter without axes": (
        "tree",
        {"tree": [RIGHT[0], {"parameters": ["3f800000", "40000000"]}, RIGHT[2]]},
        "tree[1]: parameters after step 1: 3f800000",
        "2 lists of 1",
    ),
    "an element of the empty one": (
        "tree",
        {"tree": [*RIGHT[:2], {"parameters": [[], ["3f800000"]]}]},
        "tree[2]: parameters after step 2: a list of 1",
        "2 lists of 0",
    ),
    "a digit too few": (
        "tree",
        leaf_0(parameters=[["3f800000", "3f80000"]] * 2),
        "tree[0]: parameters after step 1, element 1: 3f80000",
        "8 digits 0-9a-f",
    ),
    "a state that is no object": ("tree", leaf_0(state=[]), "tree[0]: state is a list of 0", "v alone"),
    "an unknown slot": ("tree", leaf_0(state={"m": []}), "tree[0]: the slots of state are m", "v alone"),
    "a slot of the wrong size": (
        "tree",
        {"tree": [*RIGHT[:2], {**RIGHT[2], "state": {"v": [["3f800000"]] * 2}}]},
        "tree[2]: state v after step 1: a list of 1",
        "2 lists of 0",
    ),
    "a tree for one parameter": (
        "plain",
        {"tree": RIGHT[:1]},
        "the keys are id, tree",
        "the keys id, parameters, state",
    ),
    "a tree for one that resumes": (
        "resume",
        {"tree": RIGHT[:1]},
        "the keys are id, tree",
        "the keys id, parameters, state (optional)",
    ),
    "the number of the step": ("resume", {**PLAIN, "step": 3002}, "the keys are id, parameters, step", "the keys id"),
    "a state without steps": (
        "resume",
        {**PLAIN, "state": {"v": ["3e800000", "40800000"]}},
        "state v after step 1: 3e800000",
        "2 lists of 2 strings of 8 digits",
    ),
    "the state that was given too": (
        "resume",
        {**PLAIN, "state": {"v": [["3e800000", "40800000"]] * 3}},
        "state v: a list of 3",
        "2 lists of 2",
    ),
    "parameters in bfloat16": (
        "mixed",
        {"parameters": [["3f80", "c000"]] * 2},
        "parameters after step 1, element 0: 3f80",
        "2 lists of 2 strings of 8 digits",
    ),
    "a state in bfloat16": (
        "mixed",
        {**PLAIN, "state": {"v": [["3f80", "c000"]] * 2}},
        "state v after step 1, element 0: 3f80",
        "2 lists of 2 strings of 8 digits",
    ),
    "a dtype": ("mixed", {**PLAIN, "gradient_dtype": "bfloat16"}, "the keys are id, parameters, grad", "the keys id"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.norm("check_your_port.broken", "check_your_port.tree", "check_your_port.order", "check_your_port.keeps")
def test_a_wrong_reply_breaks_the_protocol_and_its_place_is_told(what, program):
    kind, reply, wrong, expected = WRONG[what]
    backend = Command(program(replying(reply)))
    with pytest.raises(AdapterError) as raised:
        backend.run(CASES[kind])
    text = str(raised.value)
    assert f"in its reply to 'run {ONE.id}': {wrong}" in text
    assert expected in text.partition("\n  expected: ")[2]
    assert program.running() == []


# Whole adapters

ADAPTER = """
import json, sys
import numpy as np

protocol, fault = int(sys.argv[1]), sys.argv[2]

def floats(patterns):
    return np.array([int(pattern.ljust(8, "0"), 16) for pattern in patterns], np.uint32).view(np.float32)

def patterns(values):
    return [format(x, "08x") for x in values.view(np.uint32).tolist()]

def run(request, leaf):
    global t
    h, f, state = request["hyperparameters"], np.float32, leaf.get("state", {})
    w, (b1, b2) = floats(leaf["parameter"]), h["betas"]
    if fault == "no state":
        state = {}
    m, v = (floats(state[name]) if name in state else np.zeros_like(w) for name in "mv")
    rates = np.broadcast_to(h["learning_rate"], len(leaf["gradients"])).tolist()
    if fault != "one counter":
        t = request.get("step", 0)
    if fault == "from 0":
        t = 0
    out = {"parameters": [], "state": {"m": [], "v": []}}
    for rate, row in zip(rates, leaf["gradients"]):
        g = floats(row)
        t += 1
        n = min(t, int(fault[5:])) if fault.startswith("stuck") else t
        part = f(1 - b1) * g
        if fault == "in bfloat16" and "gradient_dtype" in request:
            part = (part.view(np.uint32) & np.uint32(0xffff0000)).view(f)
        m, v = f(b1) * m + part, f(b2) * v + f(1 - b2) * (g * g)
        root = f(1 / np.sqrt(1 - b2**n))
        new = w - f(rate / (1 - b1**n)) * m / (np.sqrt(v) * root + f(h["eps"]))
        if fault == "no tail":
            new[len(w) // 8 * 8 :] = w[len(w) // 8 * 8 :]
        w = new
        for rows, values in zip((out["parameters"], *out["state"].values()), (w, m, v)):
            rows.append(patterns(values))
    return out

for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "stop":
        break
    if request["op"] == "start":
        reply = {"protocol": protocol, "name": "adapter", "version": "1"}
    else:
        t = request.get("step", 0)
        leaves = [run(request, leaf) for leaf in request.get("tree", [request])]
        reply = {"id": request["id"], **({"tree": leaves} if "tree" in request else leaves[0])}
    print(json.dumps(reply), flush=True)
"""


@pytest.fixture
def adapter(tmp_path):
    """Writes the command of an adapter for a protocol, with a fault or none."""
    (path := tmp_path / "adapter.py").write_text(ADAPTER)
    return lambda protocol, fault="none": shlex.join([sys.executable, str(path), str(protocol), fault])


@pytest.mark.norm("check_your_port.protocol", "check_your_port.spared", "check_your_port.not-asked")
def test_adapters_of_both_protocols_are_held_to_every_case(adapter):
    cases = matching([NAME])
    assert {case.regime for case in cases} > set(FAMILIES)
    with Command(adapter(2)) as backend:
        two = check(backend, cases)
    with Command(adapter(1)) as backend:
        one = check(backend, [case for case in cases if case.regime in ("plain", "tiny", *BESIDE)])
    for report, spared in (
        (two, set()),
        (one, {"many/defaults", "many/last=empty", "resume/step=3000", "mixed/bfloat16"}),
    ):
        never = {"untouched/defaults", "resume/saved"}
        unsupported = [result for result in report.results if result.word == "unsupported"]
        told = {result.case.id.removeprefix(f"{NAME.lower()}/") for result in unsupported if not result.informative}
        assert told == never | spared
        assert {result.word for result in report.results} == {"conforms", "unsupported"}
        assert (report.status, report.broken) == (0, None)
        told = [result.to_json() for result in unsupported if result.case.id.partition("/")[2] in spared]
        assert {result["reason"] for result in told} == ({"the adapter speaks protocol 1"} if spared else set())


CAUGHT = {
    "none": set(),
    "no tail": {"sizes/n=27", "long/defaults", "many/defaults"},
    "stuck256": {"long/defaults", "resume/step=3000"},
    "stuck2048": {"resume/step=3000"},
    "from 0": {"resume/step=3000"},
    "no state": {"resume/step=3000"},
    "one counter": {"many/defaults"},
    "in bfloat16": {"mixed/bfloat16"},
}
"""Where each fault shows, of the cases below; none of them shows in a case of the formula."""

LOOKED_AT = (
    "sizes/n=8",
    "sizes/n=27",
    "shapes/6x4",
    "long/defaults",
    "many/defaults",
    "resume/step=3000",
    "mixed/bfloat16",
)


@pytest.mark.parametrize("fault", CAUGHT)
@pytest.mark.norm("check_your_port.several", "check_your_port.given", "check_your_port.counted")
def test_a_fault_is_caught_where_it_should_be_and_nowhere_else(fault, adapter):
    cases = {case.id.partition("/")[2]: case for case in matching([NAME])}
    formula, deviating = parse(NAME), set()
    with Command(adapter(2, fault)) as backend:
        for label in ("plain/defaults", "tiny/defaults", *LOOKED_AT):
            if judge(backend.run(cases[label]), formula, "float32").word != "conforms":
                deviating.add(label)
    assert deviating == CAUGHT[fault]


@pytest.mark.norm("check_your_port.upper-half")
def test_the_digits_of_gradients_need_no_package_for_their_dtype():
    (case,) = matching([NAME], "*/mixed/*")
    sent = request(case)
    assert (sent["dtype"], sent["gradient_dtype"]) == ("float32", "bfloat16")
    for row, gradient in zip(sent["gradients"], case.gradients, strict=True):
        assert [int(pattern + "0000", 16) for pattern in row] == gradient.reshape(-1).view(np.uint32).tolist()
