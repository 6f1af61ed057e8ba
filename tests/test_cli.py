"""The command line: its output, its errors and its status; it never ends in a traceback."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import mlx_optimizers
from mlx_optimizers import cli
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import all_cases, check
from mlx_optimizers.conformance.schemas import schema
from tests.expected import NAMES, WHOLE
from tests.programs import formula_cases
from tests.support import require

ONE = ("--case", "adam/plain/defaults")


def _run(*arguments, **environment):
    """Run the command in a process of its own, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "mlx_optimizers", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, **environment},
        timeout=120,
    )


def _usage_error(capsys, *arguments):
    """Read the one line of an error of usage, after the lines that show the usage."""
    try:
        status = main(arguments)
    except SystemExit as error:  # argparse's own errors
        status = error.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    lines = err.rstrip("\n").split("\n")
    assert lines[0].startswith("usage: mlx-optimizers")
    assert [index for index, line in enumerate(lines) if "error:" in line] == [len(lines) - 1]
    return lines[-1].partition("error: ")[2]


# check


def test_check_the_reference(capsys):
    assert main(["check", "reference", "--case", "*/plain/defaults"]) == 0
    out, err = capsys.readouterr()
    names = [*NAMES, *WHOLE]
    assert out.startswith(f"reference {mlx_optimizers.__version__} on cpu: {len(names)} cases, {len(names)} conforms\n")
    assert [line.split()[0] for line in out.split("\n") if line.partition(" ")[0] in names] == names
    assert err == ""  # progress is for a terminal


def test_every_case_of_the_reference_conforms_in_the_double_profile():
    run = _run("check", "reference", "--format", "json", "--scalars", "double")
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    jsonschema.validate(report, schema("report"))
    unsupported = len([result for result in report["results"] if (result["reason"] or "").startswith("informative: ")])
    assert unsupported == 9  # g² overflows for eight optimizers, and a NaN in one step is one in the next of Adafactor
    unsupported += 0 if importlib.util.find_spec("ml_dtypes") else len(NAMES) + len(WHOLE)  # gradients in bfloat16
    assert report["summary"] == {
        "cases": len(all_cases()),
        "conforms": len(all_cases()) - unsupported,
        "deviates": 0,
        "unsupported": unsupported,
        "failed": 0,
    }
    assert [result["case"] for result in report["results"]] == [case.id for case in all_cases()]
    assert {result["scalars"] for result in report["results"]} == {"double"}


@pytest.mark.norm("check_your_port.choose")
def test_optimizers_and_patterns_choose_cases(capsys):
    for arguments, expected in (
        (("--optimizer", "Lion"), [case.id for case in all_cases() if case.optimizer == "Lion"]),
        (("--optimizer", "Lion", "--optimizer", "SGD", "--case", "*/plain/defaults"), 2),
        (("--case", "*/tiny/*eps=0.001*"), 11),
        (("--as", "AdamW[bias_correction=true]", "--case", "*/defaults"), 10),
        (("--case", "*/sizes/n=8"), len(NAMES) + len(WHOLE)),
        ((), [case.id for case in all_cases()]),
    ):
        assert main(["check", "reference", "--list", *arguments]) == 0
        listed = capsys.readouterr().out.split()
        assert listed == expected if isinstance(expected, list) else len(listed) == expected


@pytest.mark.norm("check_your_port.dtypes")
def test_dtypes_choose_cases(capsys):
    ids, formula = [case.id for case in all_cases()], [case.id for case in formula_cases()]
    for arguments, expected in (
        (("--dtype", "float64"), [f"{name}/float64" for name in formula]),
        (("--dtype", "float16", "--dtype", "float32"), [*(f"{name}/float16" for name in formula), *ids]),
        (("--dtype", "float64", "--case", "*/sizes/*"), []),
        (("--dtype", "float32", "--dtype", "float32"), ids),
        (("--dtype", "float16", "--case", "sgd/plain/defaults"), []),
        (("--dtype", "float16", "--case", "sgd/plain/defaults/*"), ["sgd/plain/defaults/float16"]),
        (
            ("--dtype", "float64", "--dtype", "float32", "--optimizer", "Lion", "--case", "*/edge/defaults*"),
            ["lion/edge/defaults/float64", "lion/edge/defaults"],
        ),
    ):
        assert main(["check", "reference", "--list", *arguments]) == 0
        assert capsys.readouterr().out.split() == expected


@pytest.mark.norm("check_your_port.dtypes")
def test_a_dtype_runs_the_cases_that_it_can_decide(capsys):
    require("ml_dtypes")
    for dtype, count, digits in (("float16", 18, 4), ("bfloat16", 29, 4), ("float64", 29, 16)):
        assert main(["check", "reference", "--dtype", dtype, "--optimizer", "Adam", "--format", "json"]) == 0
        report = json.loads(capsys.readouterr().out)
        jsonschema.validate(report, schema("report"))
        assert report["summary"]["conforms"] == len(report["results"]) == count
        assert {result["case"].rpartition("/")[2] for result in report["results"]} == {dtype}
        assert {len(result["worst"]["got"]) for result in report["results"]} == {digits}


def test_a_dtype_whose_package_is_missing_executes_nothing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    for more in ([], ["--list"], ["--dtype", "float32"]):
        assert main(["check", "reference", "--dtype", "bfloat16", *more]) == 3
        assert capsys.readouterr() == (
            "",
            "mlx-optimizers: nothing was executed: dtype bfloat16 needs the package ml_dtypes\n",
        )


@pytest.mark.norm("formulas.as")
def test_held_to_another_formula_that_optimizer_alone_runs_and_deviates(capsys):
    status = main(["check", "reference", "--as", "BiasCorrectedAdam", "--case", "*/plain/defaults", "--format", "json"])
    assert status == 1
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["case"], result["formula"]) == ("adam/plain/defaults", "Adam[bias_correction=true]")
    assert (result["verdict"], result["diagnosis"]) == ("deviates", ["Adam"])


def test_a_report_goes_into_a_file(capsys, tmp_path):
    for form in ("human", "json"):
        path = tmp_path / form
        assert main(["check", "reference", *ONE, "--format", form, "-o", str(path)]) == 0
        assert capsys.readouterr().out == ""
        assert main(["check", "reference", *ONE, "--format", form]) == 0
        assert path.read_text("utf-8") == capsys.readouterr().out
    jsonschema.validate(json.loads((tmp_path / "json").read_text()), schema("report"))


def test_the_schema_is_printed(capsys):
    assert main(["check", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("report")


def test_several_processes_print_the_same(capsys):
    texts = []
    for jobs in ((), ("-j", "2"), ("--jobs=2",)):
        assert main(["check", "reference", "--case", "sgd/plain/*", "--format", "json", *jobs]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]


def test_many_cases_are_judged_on_all_processors_where_the_process_is_ours(monkeypatch):
    seen = []

    def first(backend, cases, *, jobs, **options):
        seen.append((len(cases), jobs))
        return check(backend, cases[:1], **options)

    monkeypatch.setattr(cli, "check", first)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    for ours in (True, False):
        for more in ((), ("-j", "2"), ("--case", "*/plain/*")):
            assert cli._run(["check", "reference", *more], ours=ours) == 0
    several = [cases >= cli.MANY for cases, _ in seen]
    assert several == [True, True, False] * 2
    assert [jobs for _, jobs in seen] == [3, 2, 1, 1, 2, 1]


@pytest.mark.parametrize("scalars", ["double", "float32", "either"])
def test_profiles(capsys, scalars):
    assert main(["check", "reference", *ONE, "--scalars", scalars, "--format", "json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["scalars"] == ("float32" if scalars == "float32" else "double")


OWN = """
import numpy as np

def right(parameter, gradients, *, learning_rate, momentum, weight_decay, dampening, nesterov):
    return parameter - np.float32(learning_rate) * np.cumsum(gradients, axis=0)

def wrong(parameter, gradients, **h):
    return 1.001 * right(parameter, gradients, **h).astype(np.float32)

def raising(parameter, gradients, **h):
    raise FloatingPointError("all is lost")

def wide(parameter, gradients, **h):
    return np.zeros((8, 24))
"""


@pytest.mark.parametrize(
    ("function", "status", "verdict"),
    [("right", 0, "conforms"), ("wrong", 1, "deviates"), ("raising", 1, "failed"), ("wide", 1, "failed")],
)
def test_an_optimizer_of_the_users_own(capsys, tmp_path, monkeypatch, function, status, verdict):
    (tmp_path / "own_step.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_step", raising=False)
    arguments = ["check", f"py:own_step:{function}", "--case", "sgd/plain/defaults", "--format", "json"]
    assert main(arguments) == status
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["verdict"] == verdict
    if function == "raising":
        assert result["reason"] == "FloatingPointError: all is lost"
    del sys.modules["own_step"]


def test_a_backend_without_its_library_executes_nothing(capsys, monkeypatch):
    for name, library in (("mlx", "mlx"), ("torch", "torch"), ("optax", "optax"), ("keras", "keras")):
        monkeypatch.setitem(sys.modules, library, None)
        for loaded in [key for key in sys.modules if key.startswith((f"{library}.", "mlx_optimizers.backends."))]:
            monkeypatch.delitem(sys.modules, loaded)
        assert main(["check", name]) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"mlx-optimizers: nothing was executed: backend '{name}' is not available here")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("reference", "--case", "adam"),
        ("reference", "--optimizer", "Adam", "--case", "sgd/*"),
        ("reference", "--dtype", "float16", "--case", "adam/tiny/defaults*"),
        ("reference", "--dtype", "float16", "--case", "adam/plain/defaults"),
        ("reference", "--device", "gpu"),
        ("py:no_such_module_anywhere:f",),
        ("py:math:no_such_function",),
    ],
)
def test_where_nothing_is_executed_it_exits_with_3_and_a_line(capsys, arguments):
    assert main(["check", *arguments]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mlx-optimizers: nothing was executed: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "nonesuch"), "unknown backend 'nonesuch'; known are reference, mlx, "),
        (("check",), "the following arguments are required: BACKEND"),
        (("check", "reference", "--optimizer", "adam"), "unknown optimizer 'adam'; known are SGD, RMSprop, "),
        (("check", "reference", "--optimizer", "Adan", "--as", "Adam"), "unknown optimizer 'Adan'"),
        (("check", "reference", "--as", "Adan"), "unknown formula 'Adan'"),
        (("check", "reference", "--as", "Adam[eps=within]"), "unknown value 'within' of axis 'eps'"),
        (("check", "reference", "--as", "SGD[eps=inside_sqrt]"), "unknown axis 'eps' of SGD"),
        (("check", "py:math"), "'py:math' does not name a module and an attribute"),
        (("check", "reference", "--scalars", "half"), "argument --scalars: invalid choice: 'half'"),
        (("check", "reference", "--dtype", "int8"), "argument --dtype: invalid choice: 'int8'"),
        (("check", "reference", "--format", "yaml"), "argument --format: invalid choice: 'yaml'"),
        (("check", "reference", "-j", "0"), "argument -j/--jobs: '0' is not a whole number above 0"),
        (("check", "reference", "-j", "two"), "argument -j/--jobs: 'two' is not a whole number above 0"),
        (("check", "reference", "--case"), "argument --case: expected one argument"),
        (("check", "reference", "--frobnicate"), "unrecognized arguments: --frobnicate"),
        ((), "the following arguments are required: COMMAND"),
        (("audit",), "argument COMMAND: invalid choice: 'audit'"),
        (("trace", "Adan", "--gradient=1"), "argument OPTIMIZER: invalid choice: 'Adan'"),
        (("trace", "Adam"), "the following arguments are required: --gradient"),
        (("trace", "Adam", "--gradient="), "argument --gradient: '' is not a number"),
        (("trace", "Adam", "--gradient=1,two"), "argument --gradient: 'two' is not a number"),
        (("trace", "Adam", "--gradient=1", "--betas", "0.9"), "betas must be two numbers"),
        (("trace", "Adam", "--gradient=1", "--betas", "0.9,1"), "betas[1] must be in [0, 1), not 1.0"),
        (("trace", "Adam", "--gradient=1", "--eps", "-1e-8"), "eps must be at least 0, not -1e-08"),
        (("trace", "Adam", "--gradient=1", "--rho", "0.9"), "Adam has no hyperparameter rho"),
        (("trace", "Adam", "--gradient=1", "--learning-rate", "1,2"), "learning_rate has 2 entries for 1 steps"),
        (("trace", "SGD", "--gradient=1", "--nesterov"), "nesterov needs momentum above 0"),
    ],
)
def test_errors_of_usage(capsys, arguments, message):
    assert _usage_error(capsys, *arguments).startswith(message)


def test_a_process_exits_with_these_statuses_and_without_a_traceback():
    for arguments, status in (
        (("check", "reference", *ONE), 0),
        (("check", "reference", "--as", "Adam[eps=inside_sqrt]", "--case", "adam/tiny/defaults"), 1),
        (("check", "nonesuch"), 2),
        (("check", "reference", "--case", "none"), 3),
    ):
        run = _run(*arguments)
        assert run.returncode == status
        assert "Traceback" not in run.stderr
        assert bool(run.stdout) == (status < 2)


def test_version_and_help(capsys):
    for arguments, expected in (
        (["--version"], f"mlx-optimizers {mlx_optimizers.__version__}\n"),
        (["--help"], "usage: mlx-optimizers"),
        (["check", "--help"], "usage: mlx-optimizers check"),
        (["trace", "--help"], "usage: mlx-optimizers trace"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(expected)


# trace


@pytest.mark.parametrize(
    ("arguments", "gradients"),
    [
        (("--gradient=-1,1e-8,0",), ["-1.0", "1e-08", "0.0"]),
        (("--gradient", "-1,1e-8"), ["-1.0", "1e-08"]),
        (("--gradient", "-.5"), ["-0.5"]),
        (("--gradient", "-1e-3,-2"), ["-0.001", "-2.0"]),
        (("--gradient", "-inf"), ["-inf"]),
        (("--gradient", "1", "--parameter", "-3"), ["1.0"]),
    ],
)
def test_negative_numbers_are_numbers(capsys, arguments, gradients):
    assert main(["trace", "Adam", *arguments]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^step \d+, g = (\S+)$", out, re.MULTILINE) == gradients
    assert out.startswith("Adam(learning_rate=0.001, betas=(0.9, 0.999), eps=1e-08), float32, w = ")
    assert ("w = -3.0\n" in out) == ("-3" in arguments)


def test_every_hyperparameter_reaches_the_optimizer(capsys):
    for arguments, shown in (
        (("Adam", "--betas", "0.5,0.75", "--eps", "1"), "Adam(learning_rate=0.001, betas=(0.5, 0.75), eps=1.0)"),
        (("RMSprop", "--alpha", "0.5", "--learning-rate", "1"), "RMSprop(learning_rate=1.0, alpha=0.5, eps=1e-08)"),
        (("AdaDelta", "--rho", "0.5"), "AdaDelta(learning_rate=1.0, rho=0.5, eps=1e-06)"),
        (
            ("SGD", "--momentum", "0.5", "--weight-decay", "0.25", "--dampening", "0.125"),
            "SGD(learning_rate=0.1, momentum=0.5, weight_decay=0.25, dampening=0.125, nesterov=False)",
        ),
        (
            ("SGD", "--momentum", "0.5", "--nesterov"),
            "SGD(learning_rate=0.1, momentum=0.5, weight_decay=0.0, dampening=0.0, nesterov=True)",
        ),
    ):
        assert main(["trace", *arguments, "--gradient=1"]) == 0
        assert " ".join(capsys.readouterr().out.split()).startswith(shown)


def test_a_learning_rate_a_step(capsys):
    assert main(["trace", "SGD", "--gradient=1,1", "--learning-rate", "0.5,0.25"]) == 0
    out = capsys.readouterr().out
    assert "step 2, g = 1.0, learning rate 0.25\n" in out
    assert re.findall(r"^w  (\S+)", out, re.MULTILINE) == ["-0.5", "-0.75"]


# terminals and pipes


def _in_a_terminal(columns, *arguments, **environment):
    """Run the command in a terminal of so many columns, and read its output."""
    pty, fcntl, termios = map(require, ("pty", "fcntl", "termios"))
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    command = [sys.executable, "-m", "mlx_optimizers", *arguments]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env={**kept, "TERM": "xterm", **environment})
    os.close(follower)
    sent = b""
    try:
        while part := os.read(leader, 65536):
            sent += part
    except OSError:  # Linux says so when the other end has been closed
        pass
    os.close(leader)
    return process.wait(60), sent.decode().replace("\r\n", "\n")


DEVIATING = ("check", "reference", "--as", "AdamW[bias_correction=true,eps=before_correction]", "--case", "*/defaults")


def test_no_line_is_wider_than_a_terminal_of_80_columns():
    for arguments in (DEVIATING, ("trace", "AdamW", "--gradient=-1.2345678e-9,1e38", "--parameter=-3.3333e-9")):
        _, sent = _in_a_terminal(80, *arguments)
        plain = re.sub(r"\x1b\[[\d;]*[mK]", "", sent)
        assert "AdamW" in plain
        assert max(map(len, re.split(r"[\n\r]", plain))) <= 80


def test_progress_is_shown_on_a_terminal_and_wiped():
    status, sent = _in_a_terminal(80, "check", "reference", "--case", "sgd/plain/*")
    assert status == 0
    assert "\rreference: 1 of 21 cases" in sent
    assert "\rreference: 21 of 21 cases\r\x1b[K" in sent


def test_colours_are_for_a_terminal_and_no_color_is_honoured():
    require("rich")
    assert "\x1b[32mconforms" in _in_a_terminal(80, "check", "reference", *ONE)[1]
    assert "\x1b[3" not in _in_a_terminal(80, "check", "reference", *ONE, NO_COLOR="1")[1]
    assert "\x1b" not in _run("check", "reference", *ONE).stdout


def test_a_reader_that_has_seen_enough_is_no_error():
    """As ``| head -1`` does: a line is read, then the pipe is closed; the report is longer than a pipe holds."""
    command = [sys.executable, "-m", "mlx_optimizers", "check", "reference", "--optimizer", "SGD", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "{\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


EPSILON_INSIDE = """
import numpy as np

def rmsprop(parameter, gradients, *, learning_rate, alpha, eps):
    w, v, steps = parameter, np.zeros_like(parameter), []
    for g in gradients:
        v = np.float32(alpha) * v + np.float32(1 - alpha) * g * g
        w = w - np.float32(learning_rate) * g / np.sqrt(v + np.float32(eps))
        steps.append(w)
    return np.stack(steps)
"""


def test_output_is_the_same_in_a_locale_of_ascii(tmp_path):
    """The table and the diagnosis have characters beyond ASCII; a file or a pipe gets UTF-8 under any locale."""
    path = tmp_path / "report"
    (tmp_path / "wrong.py").write_text(EPSILON_INSIDE, encoding="utf-8")
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(tmp_path)}
    arguments = ("check", "py:wrong:rmsprop", "--case", "rmsprop/tiny/defaults")
    run = _run(*arguments, "-o", str(path), **ascii_alone)
    assert (run.returncode, run.stderr) == (1, "")
    run = _run(*arguments, **ascii_alone)
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout == path.read_text("utf-8")
    assert "ε inside the square root" in run.stdout


def test_a_terminal_of_ascii_shows_what_it_can():
    _, sent = _in_a_terminal(80, "trace", "SGD", "--gradient=1", PYTHONIOENCODING="ascii")
    assert "bits" in sent
    status, sent = _in_a_terminal(80, "check", "reference", *ONE, PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert status == 0
    assert "conforms" in sent and "Traceback" not in sent


def test_the_state_makes_what_is_missing():
    program = "import mlx_optimizers as o; s=o.OptimizerState(); s['a']['b']; print(s); print(s.get('k', 3)); print(s)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "{'a': {'b': {}}}\n3\n{'a': {'b': {}}, 'k': 3}\n"


def test_the_installed_command_is_this_one():
    command = Path(sys.executable).with_name("mlx-optimizers")
    if command.exists():
        run = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
        assert run.stdout == f"mlx-optimizers {mlx_optimizers.__version__}\n"
