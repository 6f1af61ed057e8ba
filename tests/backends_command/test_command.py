"""Adapters that keep the protocol, and every way of breaking it: each is a real program that does so."""

from __future__ import annotations

import gc
import json
import math
import shlex
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mlx_optimizers.backends import Unavailable, command, open_backend
from mlx_optimizers.backends.command import LIMIT, AdapterError, Command, Failed, request
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import Case, Unsupported, check, matching
from tests.backends_command.conftest import ends
from tests.support import hearing, require

CASE = matching(pattern="adam/plain/defaults")[0]

# What keeps the protocol.


@pytest.mark.norm("check_your_port.run")
def test_the_numbers_of_a_reply_are_those_of_the_outcome(program):
    with Command(program("start(); serve()")) as backend:
        outcome = backend.run(CASE)
    assert (backend.name, backend.version, backend.error) == ("program", "7", None)
    assert outcome.parameters.tobytes() == CASE.gradients.tobytes()
    assert outcome.parameters.dtype == np.float32
    assert outcome.state == {}
    assert program.running() == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.norm("check_your_port.bits")
def test_every_format_comes_back_bit_for_bit(dtype, program):
    if dtype == "bfloat16":
        require("ml_dtypes")
    case = Case("adam/plain/x", "Adam", "plain", "x", dtype, CASE.hyperparameters, CASE.parameter, CASE.gradients)
    real = case.form.dtype
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, case.form.tiny / 2], real)
    case = Case(case.id, "Adam", "plain", "x", dtype, CASE.hyperparameters, special, np.stack([special, special[::-1]]))
    with Command(program("start(); serve()")) as backend:
        outcome = backend.run(case)
    assert outcome.parameters.dtype == real
    assert outcome.parameters.tobytes() == case.gradients.tobytes()


@pytest.mark.norm(
    "check_your_port.lines",
    "check_your_port.steps",
    "check_your_port.bits",
    "check_your_port.arrays",
    "check_your_port.rates",
)
def test_a_request_is_what_the_protocol_says():
    small = Case(
        "sgd/plain/x",
        "SGD",
        "plain",
        "x",
        "float32",
        {"learning_rate": [0.1, 0.2], "momentum": 0.0, "nesterov": False},
        np.array([1.0, -2.0], np.float32),
        np.array([[0.5, 0.0], [-0.0, 1.5]], np.float32),
    )
    assert json.loads(json.dumps(request(small))) == {
        "op": "run",
        "id": "sgd/plain/x",
        "optimizer": "SGD",
        "dtype": "float32",
        "shape": [2],
        "hyperparameters": {"learning_rate": [0.1, 0.2], "momentum": 0.0, "nesterov": False},
        "parameter": ["3f800000", "c0000000"],
        "gradients": [["3f000000", "00000000"], ["80000000", "3fc00000"]],
    }


@pytest.mark.norm("check_your_port.arrays")
def test_arrays_of_any_shape_are_flat_in_row_major_order():
    rows = np.float32([[1, 2, 3], [4, 5, 6]])
    patterns = ["3f800000", "40000000", "40400000", "40800000", "40a00000", "40c00000"]
    for array in (rows, np.asfortranarray(rows)):
        sent = request(Case("x", "SGD", "plain", "x", "float32", {}, array, array[None]))
        assert (sent["shape"], sent["parameter"], sent["gradients"]) == ([2, 3], patterns, [patterns])


@pytest.mark.norm("check_your_port.turns")
def test_a_request_comes_when_the_one_before_it_is_answered(program):
    body = """
import select
start()
for _ in range(2):
    line = b""
    while not line.endswith(b"\\n"):
        line += os.read(0, 2**20)
    assert line.count(b"\\n") == 1 and not select.select([0], [], [], 0.2)[0]
    send(reply(json.loads(line)))
receive()
"""
    with Command(program(body)) as backend:
        report = check(backend, matching(pattern="adam/plain/*")[:2])
    assert (len(report.results), report.broken, backend.error) == (2, None, None)


@pytest.mark.norm("check_your_port.run", "check_your_port.state")
def test_state_slots_are_read_as_far_as_they_are_given(program):
    body = 'start(); r = receive(); send(reply(r, state={"v": r["gradients"]})); receive()'
    with Command(program(body)) as backend:
        outcome = backend.run(CASE)
    assert list(outcome.state) == ["v"]
    assert outcome.state["v"].tobytes() == CASE.gradients.tobytes()


@pytest.mark.norm("check_your_port.start", "check_your_port.formulas")
def test_an_adapter_claims_formulas_under_their_canonical_names(program):
    claims = '{"Adam": "BiasCorrectedAdam", "SGD": "SGD[dampening=not_first]"}'
    with Command(program(f"start(formulas={claims}); receive()")) as backend:
        assert backend.claim("Adam") == "Adam[bias_correction=true]"
        assert backend.claim("SGD") == "SGD[dampening=not_first]"
        assert backend.claim("Lion") == "Lion"


@pytest.mark.norm("check_your_port.two-names")
def test_adam_with_bias_correction_is_claimed_under_the_name_of_a_class(program):
    claims = '{"Adam": "Adam[bias_correction=true]", "BiasCorrectedAdam": "Adam[bias_correction=true,eps=inside_sqrt]"}'
    with Command(program(f"start(formulas={claims}); receive()")) as backend:
        assert backend.claim("Adam") == "Adam[bias_correction=true]"
        assert backend.claim("BiasCorrectedAdam") == "Adam[bias_correction=true,eps=inside_sqrt]"
        assert backend.claim("BiasCorrectedAdamW") == "BiasCorrectedAdamW"


@pytest.mark.norm("check_your_port.unsupported")
def test_what_an_adapter_does_not_support_is_unsupported_for_its_reason(program):
    body = (
        'start(); r = receive(); send(json.dumps({"id": r["id"], "unsupported": "no \\x1b[31mAdam"}) + "\\n"); serve()'
    )
    with Command(program(body)) as backend:
        with pytest.raises(Unsupported, match=r"^no \\x1b\[31mAdam$"):
            backend.run(CASE)
        assert backend.run(CASE).parameters.shape == CASE.gradients.shape


@pytest.mark.norm("check_your_port.unsupported")
def test_an_error_fails_the_case_and_no_other(program):
    body = 'start(); r = receive(); send(json.dumps({"id": r["id"], "error": "overflow"}) + "\\n"); serve()'
    with Command(program(body)) as backend:
        with pytest.raises(Failed, match=r"^overflow$"):
            backend.run(CASE)
        assert backend.run(CASE).parameters.shape == CASE.gradients.shape


RIGHT = {
    "in pieces": """
start()
for piece in (text := reply(receive()))[:40], text[40:-1], text[-1:]:
    send(piece)
    time.sleep(0.05)
""",
    "late": "start(); r = receive(); time.sleep(0.5); send(reply(r))",
    "with the line end of Windows": "start(); send(reply(receive())[:-1] + '\\r\\n')",
    "with more on standard error than a pipe holds": """
start()
r = receive()
sys.stderr.write("noise\\n" * 100_000)
send(reply(r))
""",
    "with standard error closed": "os.close(2); start(); send(reply(receive()))",
    "as long as is allowed": f"start(); t = reply(receive()); send(t[:-1] + ' ' * ({LIMIT} + 1 - len(t)) + '\\n')",
}


@pytest.mark.parametrize("how", RIGHT)
def test_a_right_reply_is_accepted(how, program):
    with Command(program(RIGHT[how])) as backend:
        assert backend.run(CASE).parameters.tobytes() == CASE.gradients.tobytes()
    assert program.running() == []


def test_requests_and_replies_may_be_larger_than_a_pipe(program):
    gradients = np.linspace(0, 1, 8 * 20_000, dtype=np.float32).reshape(8, -1)
    case = Case("x", "SGD", "plain", "x", "float32", {}, gradients[0], gradients)
    with Command(program("start(); serve()")) as backend:
        assert backend.run(case).parameters.tobytes() == gradients.tobytes()


@pytest.mark.norm("check_your_port.group")
def test_arguments_are_split_as_a_shell_does_and_nothing_is_expanded():
    code = (
        'import sys, json; print(json.dumps({"protocol": 1, "name": "|".join(sys.argv[1:]), "version": "1"}), '
        "flush=True); input()"
    )
    with Command(f"{shlex.join([sys.executable, '-c', code])} '$HOME x' * ;") as backend:
        assert backend.name == "$HOME x|*|;"


def test_a_program_beside_the_running_python_needs_no_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code = 'print(\'{"protocol": 1, "name": "found", "version": "1"}\', flush=True); input()'
    with Command(shlex.join([Path(sys.executable).name, "-c", code])) as backend:
        assert backend.name == "found"


def test_open_backend_passes_the_time_on(program):
    backend = open_backend(f"cmd:{program('start(); receive(); time.sleep(1000)')}", timeout=0.3)
    with backend, pytest.raises(AdapterError, match=r"no end of the line after 0\.3 s"):
        backend.run(CASE)


# What cannot be started.


@pytest.mark.parametrize("text", ["", "  ", "'unclosed"])
def test_what_is_no_command_is_a_usage_error(text):
    with pytest.raises(ValueError, match=r"cmd: needs a command|No closing quotation"):
        open_backend(f"cmd:{text}")


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_time_must_be_above_0(timeout):
    with pytest.raises(ValueError, match="timeout must be above 0 seconds"):
        Command("cat", timeout=timeout)


def test_a_program_that_does_not_exist_is_unavailable():
    with pytest.raises(Unavailable, match="there is no program 'no-such-program'"):
        Command("no-such-program --flag")


def test_a_file_that_cannot_be_run_is_unavailable(tmp_path):
    path = tmp_path / "program"
    path.write_bytes(b"\x00\x01 neither a script nor a binary")
    with pytest.raises(Unavailable, match="there is no program"):
        Command(str(path))
    path.chmod(0o755)
    with pytest.raises(Unavailable, match="cannot be started"):
        Command(str(path))


# What breaks the protocol: a program; what the message says is wrong; what it says came; what it says was expected.

AT_START = {
    "no JSON": ("receive(); send('hello\\n')", "not JSON", "hello", "one JSON object"),
    "an empty line": ("receive(); send('\\n')", "not JSON", "nothing", "one JSON object"),
    "no object": ("receive(); send('[1]\\n')", "not an object", "[1]", "one JSON object"),
    "no UTF-8": ("receive(); os.write(1, b'\\xff\\xfe\\n')", "not JSON", "\ufffd\ufffd", "one JSON object"),
    "deep nesting": ("receive(); send('[' * 10**6 + '\\n')", "not JSON", "(1000000 bytes)", "one JSON object"),
    "no version": (
        'receive(); send(\'{"protocol": 1, "name": "x"}\\n\')',
        "the keys are protocol, name",
        '{"protocol"',
        "the keys name, protocol, version, formulas (optional)",
    ),
    "an unknown key": ("start(author='me')", "the keys are protocol, name, version, author", "me", "the keys name"),
    "another protocol": ("start(protocol=3)", "protocol is 3", '"protocol": 3', '"protocol": 1, or as much as 2'),
    "protocol 0": ("start(protocol=0)", "protocol is 0", '"protocol": 0', '"protocol": 1'),
    "true for 1": ("start(protocol=True)", "protocol is True", "true", '"protocol": 1'),
    "a name that is no text": ("start(name=3)", "name is 3", '"name": 3', "name is a string"),
    "formulas that are no object": ("start(formulas=[])", "formulas is a list of 0", "[]", "formulas is an object"),
    "an unknown optimizer": ("start(formulas={'Adan': 'Adam'})", "'Adan'", "Adan", "formulas by optimizer"),
    "an unknown formula": (
        "start(formulas={'Adam': 'Adam[eps=x]'})",
        "unknown value 'x' of axis 'eps'",
        "[eps=x]",
        "formulas by optimizer",
    ),
    "a formula of another optimizer": (
        "start(formulas={'Adam': 'Lion'})",
        "'Lion' is no formula of Adam",
        "Lion",
        "formulas by optimizer",
    ),
    "a formula for an optimizer": (
        "start(formulas={'Adam[bias_correction=true]': 'Adam'})",
        "'Adam[bias_correction=true]' is no optimizer",
        "",
        "formulas by optimizer",
    ),
    "another optimizer's formula for a corrected one": (
        "start(formulas={'BiasCorrectedAdam': 'AdamW'})",
        "'AdamW' is no formula of BiasCorrectedAdam",
        "",
        "formulas by optimizer",
    ),
    "a formula that is no text": ("start(formulas={'Adam': 1})", "1 is no formula of Adam", "", "formulas by"),
    "the end": ("pass", "the program ended", "nothing", "one line, and a program that waits for the next"),
    "an error": ("sys.exit('no GPU')", "the program ended with status 1", "nothing", "no GPU"),
    "a closed standard output": (
        "os.close(1); time.sleep(1000)",
        "the program closed its standard output",
        "nothing",
        "a program that waits",
    ),
    "an endless line": (
        "while True: send('x' * 2**16)",
        f"more than {LIMIT} bytes",
        "xxx",
        f"one line of at most {LIMIT} bytes",
    ),
}

AT_RUN = {
    "no JSON": ("send('Adam? sure\\n')", "not JSON", "Adam? sure", "one JSON object"),
    "another id": ("send(reply(r, id='adam/tiny/x'))", "id is adam/tiny/x", "adam/tiny/x", "id is 'adam/plain"),
    "no id": ("send(json.dumps({'parameters': []}) + '\\n')", "the keys are parameters", "", "id, parameters, state"),
    "an unknown key": ("send(reply(r, states={}))", "the keys are id, parameters, states", "", "state (optional)"),
    "two answers": ("send(reply(r, error='x'))", "the keys are id, parameters, error", "", "or error, id"),
    "a reason that is no text": (
        "send(json.dumps({'id': r['id'], 'unsupported': None}) + '\\n')",
        "unsupported is None",
        "null",
        "unsupported is a string",
    ),
    "parameters that are no list": ("send(reply(r, parameters='00'))", "parameters: 00", "", "8 lists of 24 strings"),
    "a step too few": ("send(patterns(r, lambda x: x.pop()))", "parameters: a list of 7", "", "8 lists of 24"),
    "a step too many": ("send(patterns(r, lambda x: x.append(x[0])))", "parameters: a list of 9", "", "8 lists of 24"),
    "an element too few": (
        "send(patterns(r, lambda x: x[2].pop()))",
        "after step 3: a list of 23",
        "",
        "8 lists of 24",
    ),
    "a step that is no list": (
        "send(patterns(r, lambda x: x.insert(0, x.pop() and 5)))",
        "after step 1: 5",
        "",
        "8 lists",
    ),
    "a digit too few": (
        "def change(x): x[1][3] = '3f80000'\nsend(patterns(r, change))",
        "parameters after step 2, element 3: 3f80000",
        "adam/plain",
        "8 digits 0-9a-f",
    ),
    "a digit too many": (
        "def change(x): x[1][3] = '3f8000000'\nsend(patterns(r, change))",
        "parameters after step 2, element 3: 3f8000000",
        "",
        "8 digits 0-9a-f",
    ),
    "a capital digit": (
        "def change(x): x[7][23] = '3F800000'\nsend(patterns(r, change))",
        "parameters after step 8, element 23: 3F800000",
        "",
        "8 digits 0-9a-f",
    ),
    "a digit that is none": (
        "def change(x): x[0][0] = '3f80000\\u0663'\nsend(patterns(r, change))",
        "parameters after step 1, element 0",
        "",
        "8 digits 0-9a-f",
    ),
    "two patterns in one": (
        "def change(x): x[0][:2] = ['3f800000,3f800000', '']\nsend(patterns(r, change))",
        "parameters after step 1, element 0",
        "",
        "8 digits 0-9a-f",
    ),
    "a number for a pattern": (
        "def change(x): x[0][0] = 12345678\nsend(patterns(r, change))",
        "parameters after step 1, element 0: 12345678",
        "",
        "8 digits 0-9a-f",
    ),
    "an unknown slot": ("send(reply(r, state={'m': [], 'b': []}))", "the slots of state are m, b", "", "m, v alone"),
    "a state that is no object": ("send(reply(r, state=[]))", "state is a list of 0", "", "m, v alone"),
    "a wrong slot": ("send(reply(r, state={'m': []}))", "state m: a list of 0", "", "8 lists of 24"),
    "a crash": ("os.kill(os.getpid(), signal.SIGSEGV)", "the program was ended by signal 11", "nothing", "one line"),
    "an exception": ("raise KeyError('betas')", "the program ended with status 1", "nothing", "KeyError: 'betas'"),
    "half a line, then the end": ("send(reply(r)[:50])", "the program ended", '{"id": "adam/plain', "one line"),
    "a line too long by one byte": (
        f"t = reply(r); send(t[:-1] + ' ' * ({LIMIT} + 2 - len(t)) + '\\n')",
        f"more than {LIMIT} bytes",
        '{"id"',
        f"at most {LIMIT} bytes",
    ),
}

HANGS = {
    "nothing": ("time.sleep(1000)", "nothing"),
    "half a line": ("send('{\"id\": '); time.sleep(1000)", '{"id": '),
    "endless standard error": ("while True: sys.stderr.write('noise\\n')", "nothing"),
    "a child, and ends": ("if os.fork(): os._exit(0)\nnote(); time.sleep(1000)", "nothing"),
    "a child, and hangs": ("os.fork(); note(); time.sleep(1000)", "nothing"),
    "a child that ignores signals": (
        "for x in (1, 2, 15): signal.signal(x, signal.SIG_IGN)\nos.fork(); note(); time.sleep(1000)",
        "nothing",
    ),
}


def breach(backend, fragments):
    """The message of a broken protocol holds these."""
    text = str(backend.error)
    for fragment in fragments:
        assert fragment in text
    assert len(text) < 5000
    return text


@pytest.mark.parametrize("what", AT_START)
@pytest.mark.norm("check_your_port.start", "check_your_port.broken")
def test_a_broken_protocol_at_the_start_is_told(what, program):
    body, *fragments = AT_START[what]
    begun = time.monotonic()
    backend = Command(program(body))
    assert time.monotonic() - begun < command.TIMEOUT / 2
    assert "in its reply to 'start'" in breach(backend, fragments)
    assert backend.claim("Adam") == "Adam"
    with pytest.raises(AdapterError) as raised:
        backend.run(CASE)
    assert str(raised.value) == str(backend.error)
    assert program.running() == []


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.norm("check_your_port.start", "check_your_port.protocol")
def test_an_adapter_says_which_protocol_it_speaks(program, protocol):
    with Command(program(f"start(protocol={protocol}); serve()")) as backend:
        assert backend.protocol == protocol
        assert backend.run(CASE).parameters.shape == CASE.gradients.shape


@pytest.mark.norm("check_your_port.slots", "check_your_port.arrays")
@pytest.mark.parametrize("shape", ["plain", "batch", "vector"])
def test_a_slot_of_another_shape_is_flat_in_row_major_order(program, shape):
    """The program answers with the first elements of the gradients, as many as the slot has."""
    (case,) = matching(["Adafactor"], f"*/{shape}/beta_1=0.6,*")
    sizes = {name: math.prod(shape) for name, shape in case.slots.items()}
    body = (
        f"start(); r = receive(); sizes = {sizes}\n"
        "state = {name: [row[:size] for row in r['gradients']] for name, size in sizes.items()}\n"
        "send(reply(r, state=state)); serve()"
    )
    run = Command(program(body)).run(case)
    flat = case.gradients.reshape(len(case.gradients), -1)
    assert {name: found.shape[1:] for name, found in run.state.items()} == case.slots
    for name, size in sizes.items():
        assert np.array_equal(run.state[name].reshape(len(flat), -1), flat[:, :size])
    assert run.parameters.shape == case.gradients.shape


@pytest.mark.parametrize("what", AT_RUN)
@pytest.mark.norm("check_your_port.slots", "check_your_port.broken")
def test_a_broken_protocol_at_a_case_is_told(what, program):
    body, *fragments = AT_RUN[what]
    backend = Command(program(f"start()\nr = receive()\n{body}"))
    begun = time.monotonic()
    with pytest.raises(AdapterError) as raised:
        backend.run(CASE)
    assert time.monotonic() - begun < command.TIMEOUT / 2
    assert "in its reply to 'run adam/plain/defaults'" in breach(backend, fragments)
    assert str(raised.value) == str(backend.error)
    assert program.running() == []


@pytest.mark.norm("check_your_port.broken", "check_your_port.killed")
def test_the_limits_are_those_that_the_guide_names(capsys):
    assert (LIMIT, command.TIMEOUT, command.GRACE) == (16 * 2**20, 60, 2)
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    assert "for each reply of an adapter; default 60" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("what", HANGS)
@pytest.mark.norm("check_your_port.broken")
def test_a_program_that_does_not_answer_is_ended_when_the_time_is_over_with_its_children(what, program):
    body, came = HANGS[what]
    backend = Command(program(f"start()\nr = receive()\n{body}"), timeout=1)
    with pytest.raises(AdapterError):
        backend.run(CASE)
    breach(backend, ["no end of the line after 1 s", f"came:     {came}", "expected: one line within 1 s"])
    assert all(ends(pid) for pid in program.running())


def test_yes_ends_at_once():
    begun = time.monotonic()
    backend = Command("yes")
    assert time.monotonic() - begun < command.TIMEOUT / 2
    breach(backend, ["the adapter 'yes' broke the protocol in its reply to 'start': not JSON", "came:     y\n"])


def test_a_program_that_prints_1_ends_at_once():
    begun = time.monotonic()
    backend = Command(f"{shlex.quote(sys.executable)} -c 'print(1)'")
    assert time.monotonic() - begun < command.TIMEOUT / 2
    breach(backend, ["in its reply to 'start': not an object", "came:     1\n", "expected: one JSON object"])


def test_a_line_too_many_breaks_the_protocol(program):
    backend = Command(program("start(); r = receive(); send(reply(r) * 2); serve()"))
    assert backend.run(CASE).parameters.shape == CASE.gradients.shape
    other = matching(pattern="adam/tiny/defaults")[0]
    with pytest.raises(AdapterError, match=r"(?s)run adam/tiny/defaults.*text before the question"):
        backend.run(other)
    assert program.running() == []


@pytest.mark.norm("check_your_port.standard-error")
def test_a_message_shows_the_end_of_standard_error_without_control_characters(program):
    body = "start(); receive(); sys.stderr.write('first\\n' + 'x' * 10**6 + '\\n\\x1b[31mlast words'); sys.exit(5)"
    backend = Command(program(body))
    with pytest.raises(AdapterError):
        backend.run(CASE)
    text = breach(backend, ["ended with status 5", "its standard error ends with:", "\n    \\x1b[31mlast words"])
    assert "first" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("stream", ["sys.stdout", "sys.stderr"])
def test_an_endless_stream_takes_bounded_memory(stream, program):
    backend = Command(program(f"start(); receive()\nwhile True: {stream}.write('x' * 2**16)"), timeout=2)
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError):
            backend.run(CASE)
        # The buffer holds the limit and one read, and while it grows a second one, of 9/8 of it, is there.
        assert tracemalloc.get_traced_memory()[1] < 3 * LIMIT
    finally:
        tracemalloc.stop()
    assert program.running() == []


# Nothing is left running.


@pytest.mark.norm("check_your_port.group")
def test_a_child_that_stays_is_ended_with_a_right_adapter(program, monkeypatch):
    monkeypatch.setattr(command, "GRACE", 0.2)
    body = "if os.fork() == 0: note(); time.sleep(1000)\nstart(); serve()"
    with Command(program(body)) as backend:
        assert backend.run(CASE).parameters.shape == CASE.gradients.shape
        while len(program.pids.read_text().split()) < 2:
            time.sleep(0.01)
    assert all(ends(pid) for pid in program.running())


@pytest.mark.parametrize("end", ["time.sleep(1000)", "send('x\\n' * 10**9)"])
@pytest.mark.norm("check_your_port.killed")
def test_an_adapter_that_does_not_stop_is_stopped(end, program, monkeypatch):
    monkeypatch.setattr(command, "GRACE", 0.2)
    with Command(program(f"start(); receive(); {end}")) as backend:
        pass
    assert backend.error is None
    assert program.running() == []


@pytest.mark.norm("check_your_port.stop")
def test_an_adapter_has_the_time_to_end(program, tmp_path):
    with Command(program("start(); receive(); time.sleep(0.3); open(sys.argv[1] + '.end', 'w').close()")):
        pass
    assert (tmp_path / "pids.end").exists()


def test_nothing_is_left_running_when_the_caller_raises(program):
    with pytest.raises(ZeroDivisionError), Command(program("start(); serve()")):
        raise ZeroDivisionError
    assert program.running() == []


def test_nothing_is_left_running_when_a_backend_is_forgotten(program):
    backend = Command(program("start(); serve()"))
    assert len(program.running()) == 1
    del backend
    gc.collect()
    assert program.running() == []


def test_a_closed_backend_may_be_closed_again(program):
    backend = Command(program("start(); serve()"))
    backend.close()
    backend.close()
    assert program.running() == []


PARENT = """
import sys
from mlx_optimizers.backends.command import Command
from mlx_optimizers.conformance import matching
backend = Command(sys.argv[1])
backend.run(matching(pattern="adam/plain/defaults")[0])
"""


@pytest.mark.parametrize(
    ("ending", "status"), [("", 0), ("raise KeyError", 1), ("sys.exit(9)", 9)], ids=["end", "exception", "exit"]
)
def test_nothing_is_left_running_when_the_interpreter_ends_without_close(ending, status, program):
    parent = [sys.executable, "-c", PARENT + ending, program("start(); serve()\ntime.sleep(1000)")]
    assert subprocess.run(parent, capture_output=True, check=False).returncode == status
    assert all(ends(pid) for pid in program.running())


def test_nothing_is_left_running_after_a_keyboard_interrupt(program):
    adapter = program("start()\nreceive()\nos.fork()\nnote()\ntime.sleep(1000)")
    parent = subprocess.Popen(hearing(sys.executable, "-c", PARENT, adapter), stderr=subprocess.PIPE)
    while not program.pids.exists() or len(program.pids.read_text().split()) < 3:  # itself, and both after the fork
        assert parent.poll() is None
        time.sleep(0.01)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=command.TIMEOUT / 2)
    assert b"KeyboardInterrupt" in errors
    assert all(ends(pid) for pid in program.running())


@pytest.mark.parametrize("body", ["time.sleep(1000)", "start()\nreceive()\ntime.sleep(1000)"])
@pytest.mark.norm("check_your_port.killed")
def test_nothing_is_left_running_when_the_command_is_terminated(body, program):
    adapter = program(body)
    parent = subprocess.Popen(hearing(sys.executable, "-m", "mlx_optimizers", "check", f"cmd:{adapter}"))
    while not program.pids.exists() or not program.pids.read_text():
        assert parent.poll() is None
        time.sleep(0.01)
    parent.terminate()
    assert parent.wait(timeout=command.TIMEOUT / 2) == 128 + signal.SIGTERM
    assert all(ends(pid) for pid in program.running())


@pytest.mark.norm("check_your_port.sigkill")
def test_an_adapter_of_a_command_that_is_killed_runs_to_the_end_of_its_input(program, tmp_path):
    body = """
start(); receive(); open(sys.argv[1] + ".asked", "w").close()
while not os.path.exists(sys.argv[1] + ".go"): time.sleep(0.01)
assert not sys.stdin.read()
open(sys.argv[1] + ".end", "w").close()
"""
    (report := tmp_path / "report").write_text("the old report")
    arguments = ["check", f"cmd:{program(body)}", "-o", str(report)]
    parent = subprocess.Popen([sys.executable, "-m", "mlx_optimizers", *arguments])
    while not (tmp_path / "pids.asked").exists():
        assert parent.poll() is None
        time.sleep(0.01)
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    (adapter,) = program.running()
    (tmp_path / "pids.go").touch()
    assert ends(adapter)
    assert (tmp_path / "pids.end").exists() and report.read_text() == "the old report"
    assert len(list(tmp_path.glob(".report.*"))) == 1


# A report of what finished.


@pytest.mark.norm("check_your_port.finished")
def test_what_finished_before_the_protocol_broke_is_reported(program):
    backend = Command(program("start()\nfor _ in range(2): send(reply(receive()))\nreceive(); send('?\\n')"))
    report = check(backend, matching(pattern="lion/plain/*"))
    assert [result.word for result in report.results] == ["deviates", "deviates"]
    assert report.broken == str(backend.error)
    assert report.status == 4


# The command line.


def command_line(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mlx_optimizers", "check", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=command.TIMEOUT / 2,
    )


@pytest.mark.parametrize("text", ["yes", f"{shlex.quote(sys.executable)} -c 'print(1)'"])
@pytest.mark.norm("check_your_port.status")
def test_the_command_ends_at_once_with_status_4_on_programs_that_are_no_adapters(text):
    run = command_line(f"cmd:{text}")
    assert run.returncode == 4
    assert "broke the protocol in its reply to 'start'" in run.stderr


def test_the_command_ends_with_status_3_when_there_is_no_such_program():
    assert command_line("cmd:no-such-program").returncode == 3


def test_the_command_ends_with_status_2_when_there_is_no_command():
    assert command_line("cmd:").returncode == 2


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.norm("check_your_port.finished")
def test_the_command_still_writes_the_report_of_what_finished(jobs, program):
    adapter = program("start(); send(reply(receive())); receive(); time.sleep(1000)")
    run = command_line(f"cmd:{adapter}", "--timeout", "1", "--format", "json", "-j", jobs, "--case", "lion/plain/*")
    assert run.returncode == 4
    assert "no end of the line after 1 s" in run.stderr
    assert json.loads(run.stdout)["summary"]["cases"] == 1
    assert all(ends(pid) for pid in program.running())
