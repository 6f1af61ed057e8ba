"""The ports in C and JavaScript: they conform in every case, and are the fast path bit for bit."""

from __future__ import annotations

import importlib
import json
import random
import resource
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlx_optimizers.backends.command import Command, Failed
from mlx_optimizers.backends.reference import Reference
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import Case, Unsupported, cases_of, check, matching
from mlx_optimizers.conformance.frame import frame_of
from mlx_optimizers.oracle import format_of
from tests.expected import ABOVE_0, AT_LEAST_0, CLASSES, EXPECTED, FLAG, NAMES, PAIR_BELOW_1, UP_TO_1

CHECKER = importlib.import_module("mlx_optimizers.conformance.check")  # beside it stands the function of that name
PORTS = Path(__file__).parents[2] / "docs" / "ports"
STEPS, ELEMENTS, SETTINGS = 20, 120, 25


@pytest.fixture
def port(adapter):
    with Command(adapter, timeout=20) as backend:
        yield backend


def _arrays(run):
    """List what a run computed: for each parameter its numbers, then its slots by name."""
    return [array for one in run.each for array in (one.parameters, *(one.state[name] for name in sorted(one.state)))]


@pytest.fixture(scope="module")
def judged_once():
    """Judge equal numbers of a case once: the ports give the same bits, and an interval takes longer than they do."""
    judge, verdicts = CHECKER.judge_widening, {}

    def judged(run, formula, profiles):
        key = (run.case.id, formula.name, tuple(profiles), *(array.tobytes() for array in _arrays(run)))
        if key not in verdicts:
            verdicts[key] = judge(run, formula, profiles)
        return verdicts[key]

    return judged


NEVER = ("resume/saved", "untouched/")
"""How the identifiers begin, after the optimizer's name, of the cases that no adapter is asked."""


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.norm("check_your_port.ports", "check_your_port.adapter", "check_your_port.not-asked")
def test_a_port_conforms_in_every_case(optimizer, port, judged_once, monkeypatch):
    monkeypatch.setattr(CHECKER, "judge_widening", judged_once)
    cases = matching([optimizer])
    report = check(port, cases)
    assert (port.protocol, report.broken, len(report.results)) == (2, None, len(cases))
    for result in report.results:
        never = result.case.id.partition("/")[2].startswith(NEVER)
        if result.informative:
            assert result.case.label == "overflow"
            continue
        assert (result.word, result.scalars) == ("unsupported" if never else "conforms", "double"), result.case.id


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.norm("check_your_port.ports", "check_your_port.both")
def test_a_port_has_the_bits_of_the_fast_path_in_every_case_of_the_frame(optimizer, port):
    for case in frame_of(optimizer):
        if not case.id.partition("/")[2].startswith(NEVER):
            theirs, ours = port.run(case), _reference(case)
            for given, rows in zip(_arrays(theirs), _arrays(ours), strict=True):
                np.testing.assert_array_equal(_bits(given), _bits(rows), case.id)


def _reference(case):
    """Compute a case by the classes. Gradients in bfloat16 come as float32: equal numbers, which need no package."""
    return Reference().run(replace(case, gradient_dtype=None))


@pytest.mark.norm("check_your_port.leaf-state", "check_your_port.given", "check_your_port.counted")
def test_a_port_resumes_a_tree_with_the_state_of_each_leaf(port):
    (whole,) = matching(["BiasCorrectedAdamW"], "*/long/defaults")
    one = replace(whole, parameter=whole.parameter + np.float32(1), gradients=whole.gradients[:6])
    two = replace(one, parameter=-one.parameter[:1], gradients=one.gradients[:, 1:])
    ended, begun = [port.run(leaf) for leaf in (one, two)], []
    for leaf, run in zip((one, two), ended, strict=True):
        state = {name: rows[3] for name, rows in run.state.items()}
        begun.append(replace(leaf, parameter=run.parameters[3], gradients=leaf.gradients[4:], state=state))
    resumed = port.run(replace(begun[0], step=4, state={}, leaves=tuple(begun)))
    for leaf, run in zip(resumed.leaves, ended, strict=True):
        for given, rows in zip(_arrays(leaf), _arrays(run), strict=True):
            np.testing.assert_array_equal(given.view(np.uint32), rows[4:].view(np.uint32))


def _uniform(draw, low, high):
    """Draw a number between two powers of ten."""
    return 10 ** draw.uniform(low, high)


def _hyperparameters(optimizer, draw):
    """Draw hyperparameters from everything that the classes accept, the ends included."""
    small = [1e-8, _uniform(draw, -12, 0)]
    drawn = {
        # 1e-60 is 0 in float32
        AT_LEAST_0: lambda: draw.choice([0.0, 1e-60, draw.random(), 2 * draw.random(), *small]),
        ABOVE_0: lambda: draw.choice(small),
        UP_TO_1: lambda: draw.choice([0.0, 1.0, draw.random(), 1 - _uniform(draw, -6, -1)]),
        PAIR_BELOW_1: lambda: [draw.choice([0.0, draw.random(), 1 - _uniform(draw, -6, -1)]) for _ in range(2)],
        FLAG: lambda: draw.random() < 0.5,
    }
    rate = draw.choice([0.0, _uniform(draw, -5, 1), [_uniform(draw, -5, 1) for _ in range(STEPS)]])
    h = {name: drawn[kind]() for name, kind in EXPECTED[optimizer].ranges.items()}
    return EXPECTED[optimizer].allowed({**h, "learning_rate": rate})


def _data(seed):
    """Draw ordinary numbers, and every bit pattern at random: subnormal, huge, infinite, ±0, NaN."""
    rng = np.random.default_rng(seed)
    ordinary = rng.standard_normal((STEPS + 1, ELEMENTS)).astype(np.float32)
    patterns = rng.integers(0, 2**32, (STEPS + 1, ELEMENTS), np.uint32).view(np.float32)
    special = rng.choice(np.array([0.0, -0.0, np.inf, 1e-40, -1e-45, 3e38], np.float32), (STEPS + 1, ELEMENTS))
    kinds = np.arange(ELEMENTS) % 6
    return np.select([kinds < 3, kinds == 3, kinds == 4], [ordinary, patterns, special], np.float32(0))


def _bits(array):
    """Read the bit patterns, every NaN as the same one: which NaN an operation gives is the processor's choice."""
    return np.where(np.isnan(array), np.float32(np.nan), array).view(np.uint32)


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.norm(
    "check_your_port.ports", "check_your_port.contracted", "check_your_port.slots", "check_your_port.state"
)
def test_a_port_is_the_fast_path_bit_for_bit_parameters_and_state(optimizer, port):
    draw = random.Random(optimizer)
    for setting in range(SETTINGS):
        data = _data(setting)
        h = _hyperparameters(optimizer, draw)
        case = Case(f"{optimizer}/{setting}", optimizer, "any", "any", "float32", h, data[0], data[1:])
        theirs, ours = port.run(case), Reference().run(case)
        assert set(theirs.state) == set(EXPECTED[optimizer].slots)
        for name, rows in {"parameter": ours.parameters, **ours.state}.items():
            given = theirs.parameters if name == "parameter" else theirs.state[name]
            np.testing.assert_array_equal(_bits(given), _bits(rows), f"{name}, {h}")


def test_a_port_takes_the_sign_of_minus_zero_for_plus_zero(port):
    # In the second step c = 0.5·m + 0.5·g = −0, as half of the smallest subnormal number rounds to 0; w stays −0.
    zero, tiny = np.float32(-0.0), np.float32(-(2.0**-149))
    h = {"learning_rate": 0.1, "betas": (0.5, 0.2), "weight_decay": 0.0}
    case = Case("x", "Lion", "any", "any", "float32", h, np.array([zero]), np.array([[tiny], [zero]]))
    assert _bits(port.run(case).parameters).tolist() == [[0x80000000], [0x80000000]]


def test_a_port_takes_an_array_of_no_element(port):
    empty = np.zeros((2, 0), np.float32)
    h = {"learning_rate": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
    outcome = port.run(Case("x", "Adam", "any", "any", "float32", h, empty[0], empty))
    assert outcome.parameters.shape == (2, 0)


def test_an_identifier_comes_back_whatever_it_holds(port):
    one = np.ones((1, 1), np.float32)
    for identifier in ('"}], \\" {[', "\\", "ü\u2028\0\n", "", '"optimizer": "Lion"'):
        case = Case(identifier, "Adagrad", "any", "any", "float32", {"learning_rate": 0.1, "eps": 1e-8}, one[0], one)
        assert port.run(case).parameters.shape == (1, 1)


def test_what_a_port_has_not_is_unsupported(port):
    for name, dtype, given in (("Adam", "float64", None), ("Muon", "float32", None), ("Adam", "float32", "float16")):
        array = np.ones((1, 1), format_of(dtype).dtype)
        h = {"learning_rate": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
        with pytest.raises(Unsupported):
            port.run(Case("x", name, "any", "any", dtype, h, array[0], array, gradient_dtype=given))


@pytest.mark.norm("check_your_port.dtypes")
def test_a_port_of_float32_conforms_there_and_says_so_of_other_dtypes(adapter, capsys):
    dtypes = ["--dtype", "float64", "--dtype", "float32"]
    assert main(["check", f"cmd:{adapter}", "--case", "adam/plain/defaults*", *dtypes, "--format", "json"]) == 0
    words = {result["case"]: result["verdict"] for result in json.loads(capsys.readouterr().out)["results"]}
    assert words == {"adam/plain/defaults/float64": "unsupported", "adam/plain/defaults": "conforms"}


RUN = {
    "op": "run",
    "id": "a/b/c",
    "optimizer": "Adam",
    "dtype": "float32",
    "shape": [1],
    "hyperparameters": {"learning_rate": 0.5, "betas": [0.5, 0.75], "eps": 0},
    "parameter": ["3f800000"],
    "gradients": [["40000000"]],
}


def _answers(command, text):
    """Run a program on lines that are written by hand: its lines, and its exit status."""
    run = subprocess.run(
        shlex.split(command), input=text, capture_output=True, text=True, encoding="utf-8", check=False, timeout=60
    )
    return [json.loads(line) for line in run.stdout.splitlines()], run.returncode


def test_an_adapter_reads_keys_in_any_order_with_any_space_and_ends_with_its_input(adapter):
    reversed_keys = json.dumps(dict(reversed(RUN.items())), indent=1).replace("\n", "\t ")
    compact = json.dumps(RUN, separators=(",", ":"))
    answers, status = _answers(adapter, f"{compact}\n{reversed_keys}\n  {compact}")
    # By hand: g = 2, m = 0.5·2 = 1, v = 0.25·4 = 1, w = 1 − 0.5·1/√1 = 0.5.
    expected = {"id": "a/b/c", "parameters": [["3f000000"]], "state": {"m": [["3f800000"]], "v": [["3f800000"]]}}
    assert answers == [expected] * 3
    assert status == 0


@pytest.mark.parametrize(("more", "protocol"), [({}, 1), ({"newest": 1}, 1), ({"newest": 2}, 2), ({"newest": 3}, 2)])
@pytest.mark.norm("check_your_port.newest", "check_your_port.protocol")
def test_an_adapter_speaks_the_newest_protocol_that_both_know(more, protocol, adapter):
    answers, _ = _answers(adapter, json.dumps({"op": "start", "protocol": 1, **more}))
    assert [answer["protocol"] for answer in answers] == [protocol]


BROKEN = {
    "cut off": json.dumps(RUN)[:-30],
    "a string that does not end": '{"op": "run',
    "no object": "[1]",
    "nothing": "",
    "a key without a value": '{"op" "run"}',
    "no gradients": json.dumps({key: value for key, value in RUN.items() if key != "gradients"}),
    "a short gradient": json.dumps({**RUN, "gradients": [[]]}),
    "a short pattern": json.dumps({**RUN, "parameter": ["3f8"]}),
    "a pattern of another dtype": json.dumps({**RUN, "gradient_dtype": "bfloat16"}),
    "a tree that is none": json.dumps({**RUN, "tree": 5}),
    "a leaf without a parameter": json.dumps({**RUN, "tree": [{"gradients": []}]}),
    "a state without a slot": json.dumps({**RUN, "state": {"m": ["3f800000"]}}),
    "too few learning rates": json.dumps(
        {**RUN, "hyperparameters": {"learning_rate": [], "betas": [0.5, 0.5], "eps": 0}}
    ),
    "one beta": json.dumps({**RUN, "hyperparameters": {"learning_rate": 1, "betas": [0.5], "eps": 0}}),
    "a word for a number": json.dumps(
        {**RUN, "hyperparameters": {"learning_rate": "x", "betas": [0.5, 0.5], "eps": 0}}
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_c_adapter_ends_on_a_request_that_is_none_and_says_why(what, c_adapter):
    run = subprocess.run(
        shlex.split(c_adapter), input=BROKEN[what] + "\n", capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 1
    assert run.stderr.startswith("adapter: ")


def test_the_javascript_adapter_answers_an_error_where_a_case_fails(javascript_adapter):
    one = np.ones((1, 1), np.float32)
    with Command(javascript_adapter) as backend:
        with pytest.raises(Failed, match="TypeError"):
            backend.run(Case("x", "Adam", "any", "any", "float32", {"learning_rate": 0.1}, one[0], one))
        h = {"learning_rate": 0.1, "eps": 1e-8}
        assert backend.run(Case("x", "Adagrad", "any", "any", "float32", h, one[0], one)).parameters.shape == (1, 1)


BITS = """
import { fromBits, init, optimizers, step, toBits } from "PATH";
const patterns = ["00000000", "80000000", "00000001", "3f800000", "ff7fffff", "7f800000", "ff800000"];
console.log(JSON.stringify({
  back: patterns.map((pattern) => toBits(fromBits(pattern))),
  numbers: [fromBits("3dcccccd"), fromBits("c0490fdb")],
  nan: Number.isNaN(fromBits("7fc00000")),
  defaults: Object.fromEntries(Object.entries(optimizers).map(([name, x]) => [name, [x.defaults, x.slots]])),
  twice: [1, 2].reduce((state) => step("SGD", { ...optimizers.SGD.defaults, learning_rate: 0.5, momentum: 0.5 },
    state.w, 1, state), { w: 1, ...init("SGD") }),
}));
"""


def test_the_javascript_module_has_bits_defaults_and_pure_steps(node):
    script = BITS.replace("PATH", (PORTS / "javascript" / "optimizers.mjs").as_uri())
    run = subprocess.run(
        [node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True, timeout=60
    )
    told = json.loads(run.stdout)
    assert told["back"] == ["00000000", "80000000", "00000001", "3f800000", "ff7fffff", "7f800000", "ff800000"]
    assert told["numbers"] == [float(np.float32(0.1)), float(np.float32(-np.pi))]
    assert told["nan"]
    assert told["twice"] == {"w": 1 - 0.5 * 1 - 0.5 * 1.5, "v": 1.5}
    for optimizer in CLASSES:
        defaults, slots = told["defaults"][optimizer.__name__]
        made = optimizer(learning_rate=0.1)
        assert slots == list(EXPECTED[optimizer.__name__].slots)
        for name, value in defaults.items():
            ours = getattr(made, name)
            assert value == (list(ours) if isinstance(ours, tuple) else ours)
    assert list(told["defaults"]) == list(NAMES)


def test_the_javascript_module_needs_nothing_of_node():
    source = (PORTS / "javascript" / "optimizers.mjs").read_text(encoding="utf-8")
    assert "import" not in source
    assert "process" not in source
    assert "require" not in source


def _seconds_of_processors():
    """Add up those of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.mark.slow
def test_a_thousand_cases_a_second_go_through_the_javascript_adapter(javascript_adapter):
    """Counted are the processors' seconds on both sides, the start of node included: one side waits for the other, and
    a loaded machine changes them least. The oracle takes no part."""
    cases, rates = [case for optimizer in NAMES for case in cases_of(optimizer)], []
    for _ in range(8):
        begun = _seconds_of_processors()
        with Command(javascript_adapter) as backend:
            for case in cases * 6:
                backend.run(case)
        rates.append(6 * len(cases) / (_seconds_of_processors() - begun))
        if rates[-1] >= 1000:
            break
    assert max(rates) >= 1000
