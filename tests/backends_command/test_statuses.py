"""No command line, stream, signal or user code ends in status 0 without a verdict; the command as a shell runs it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import hearing

COMMAND = shlex.quote(str(Path(sys.executable).with_name("mlx-optimizers")))  # -m would put the folder on the path
WRONG = "check reference --as 'Adam[eps=inside_sqrt]' --case 'adam/tiny/*'"
RIGHT = "check reference --case 'adam/tiny/defaults'"

UNTOLD = (
    shlex.quote(sys.executable)
    + " -c 'import os, sys; from signal import *; signal(SIGCHLD, SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])'"
)
"""Runs a command that is not told of the end of its children."""

MODULES = {
    "ends_at_import": "import sys\nsys.exit(0)",
    "ends_oddly": "class Odd(BaseException): pass\nraise Odd('odd')",
    "ends_in_getattr": "import sys\ndef __getattr__(name): sys.exit(0)",
    "ends_in_call": "import sys\ndef f(parameter, gradients, **_): sys.exit(0)",
    "exits_at_import": "import os\nos._exit(0)",
    "exits_in_call": "import os\ndef f(parameter, gradients, **_): os._exit(0)",
    "exits_as_another": "import os\ndef f(parameter, gradients, **_): os.execv('/bin/true', ['true'])",
    "exits_at_exit": (
        "import atexit, os\natexit.register(os._exit, 0)\ndef f(parameter, gradients, **_): return gradients"
    ),
    "stays": (
        "import pathlib, time\ndef f(parameter, gradients, **_):\n    pathlib.Path('called').touch()\n"
        "    while True:\n        try: time.sleep(1)\n        except BaseException: pass"
    ),
    "forks": "import os\ndef f(parameter, gradients, **_):\n    os.fork()\n    return gradients",
    "no_stream": (
        "import sys\nclass Null:\n    def write(self, text): pass\n"
        "def f(parameter, gradients, **_):\n    sys.stderr = Null(); sys.stdout.close(); return gradients"
    ),
    "unnamed": "import os\ndef f(parameter, gradients, **_): os.kill(os.getpid(), 35)",
    "worker": (
        "import multiprocessing, time\ndef f(parameter, gradients, **_):\n"
        "    multiprocessing.get_context('fork').Process(target=time.sleep, args=(300,), daemon=True).start()\n"
        "    return gradients"
    ),
    "crashes": "import os\ndef f(parameter, gradients, **_): os.kill(os.getpid(), 11)",
    "interrupts": "def f(parameter, gradients, **_): raise KeyboardInterrupt",
    "prints": (
        "import os\nprint('at import')\ndef f(parameter, gradients, **_):\n"
        "    print('in the call'); os.system('echo from a child'); os.write(1, b'to the descriptor')\n"
        "    raise ValueError('red \\x1b[31m, half \\udcff')"
    ),
    "rich": "raise AssertionError('the wrong rich')",
    "gmpy2": "raise AssertionError('the wrong gmpy2')",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("modules")
    for name, text in MODULES.items():
        (made / f"{name}.py").write_text(text)
    return made


ROOT = str(Path(__file__).parents[2])


def shell(line, folder):
    command, environment = ["bash", "-c", line.replace("MO", COMMAND)], {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        (f"MO {WRONG} | true; exit ${{PIPESTATUS[0]}}", 1, ""),
        (f"MO {RIGHT} | true; exit ${{PIPESTATUS[0]}}", 0, ""),
        (f"MO {WRONG} >&-", 1, ""),
        (f"MO {WRONG} >&- 2>&-", 1, ""),
        (f"MO {WRONG} 2>&-", 1, ""),
        (f"MO {RIGHT} >/dev/full", 2, "No space left"),
        (f"MO {WRONG} >/dev/null 2>/dev/full", 1, ""),
        ("MO check nonesuch 2>/dev/full", 2, ""),
        ("MO check --nonesuch 2>/dev/full", 2, ""),
        ("MO check py:nonesuch:f 2>/dev/full", 3, ""),
        ("MO check py:nonesuch:f 2>&-", 3, ""),
        ("MO --help | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("MO check py:ends_at_import:f", 3, "module 'ends_at_import' cannot be imported: SystemExit: 0"),
        ("MO check py:ends_oddly:f", 3, "Odd: odd"),
        ("MO check py:ends_in_getattr:f", 3, "SystemExit: 0"),
        ("MO check py:ends_in_call:f --case 'sgd/tiny/defaults'", 1, "SystemExit: 0"),
        ("MO check py:exits_at_import:f", 3, "the code of py:exits_at_import:f ended its process, with status 0"),
        (
            "MO check py:exits_in_call:f",
            1,
            "no report: the code of py:exits_in_call:f ended its process, with status 0",
        ),
        ("MO check py:exits_as_another:f", 1, "ended its process, with status 0"),
        ("MO check py:exits_at_exit:f --case 'sgd/tiny/*'", 1, "deviates"),
        ("MO check py:forks:f --case 'sgd/tiny/defaults'", 1, "deviates"),
        ("MO check py:no_stream:f --case 'sgd/tiny/defaults'", 1, "deviates"),
        ("MO check py:worker:f --case 'sgd/tiny/defaults'", 1, "deviates"),  # in time, as the pipe is closed then
        ("MO check py:unnamed:f", 1, "ended its process, with signal 35"),
        (f"{UNTOLD} MO check py:forks:f --case 'sgd/tiny/defaults'", 1, "deviates"),
        (f"{UNTOLD} MO check py:exits_in_call:f", 1, "ended its process, with status unknown"),
        ("MO check py:crashes:f", 1, "ended its process, with signal SIGSEGV"),
        ("MO check py:interrupts:f", 130, "ended by SIGINT"),
        ("MO check cmd:'touch started' --list >/dev/null; test ! -e started", 0, ""),
        ("MO check reference --optimizer Adam --as SGD", 2, "--optimizer Adam has no part in --as SGD, which runs SGD"),
        ("MO check $'cmd:python -c 1 \\xff'", 4, "broke the protocol"),
        ("MO vectors ''", 2, "DIR is empty"),
        (f"MO {RIGHT} -o nowhere/report", 2, "No such file or directory"),
        (f"MO {RIGHT} -o .", 2, "Is a directory"),
    ],
)
def test_the_status_is_that_of_the_verdict(line, status, words, folder):
    done = shell(line, folder)
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    assert words in printed and "Traceback" not in printed
    assert list(folder.glob(".*")) == []


def test_code_that_ends_its_process_leaves_the_old_report(folder, tmp_path):
    (tmp_path / "report").write_text("the old report")
    done = shell(f"MO check py:exits_in_call:f -o {shlex.quote(str(tmp_path / 'report'))}", folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report", "the old report")]


@pytest.mark.parametrize("form", ["json", "human", "markdown", "html", "junit"])
def test_what_user_code_prints_and_says_stays_out_of_the_report(form, folder):
    done = shell(f"MO check py:prints:f --case 'sgd/tiny/defaults' --format {form}", folder)
    assert done.returncode == 1, done.stderr
    for words in ("at import", "in the call", "from a child", "to the descriptor"):
        assert words in done.stderr and words not in done.stdout
    assert "\x1b" not in done.stdout and "\\x1b[31m, half \\udcff" in done.stdout.replace("\\\\", "\\")
    assert "the wrong" not in done.stdout + done.stderr
    if form == "json":
        assert json.loads(done.stdout)["summary"]["failed"] == 1


WAITS = """
import json, os, pathlib, sys, time
for line in sys.stdin:
    if json.loads(line)["op"] == "start":
        print(json.dumps({"protocol": 1, "name": "waits", "version": "1"}), flush=True)
    else:
        pathlib.Path("pid").write_text(str(os.getpid()))
        time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
@pytest.mark.norm("check_your_port.killed")
def test_a_signal_ends_the_adapter_too_and_leaves_the_old_report(name, tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    (tmp_path / "report").write_text("the old report")
    adapter = f"cmd:{shlex.quote(sys.executable)} waits.py"
    command = [sys.executable, "-m", "mlx_optimizers", "check", adapter, "-o", "report"]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    number = getattr(signal, name)
    command = hearing(*command)
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert printed.decode() == f"mlx-optimizers check: ended by {name}\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert (tmp_path / "report").read_text() == "the old report"
    assert {path.name for path in tmp_path.iterdir()} == {"waits.py", "report", "pid"}


SLOW = """
import time
def f(parameter, gradients, **_):
    time.sleep(0.2)
    return gradients
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_signal_ends_a_function_that_does_not_want_to(name, tmp_path):
    (tmp_path / "stays.py").write_text(MODULES["stays"])
    command = [sys.executable, "-m", "mlx_optimizers", "check", "py:stays:f"]
    command = hearing(*command)
    environment = {**os.environ, "PYTHONPATH": ROOT}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "called").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    number = getattr(signal, name)
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)  # until none has the pipe
    killed = name == "SIGKILL"
    assert process.returncode == (-number if killed else 128 + number)
    assert printed.decode() == ("" if killed else f"mlx-optimizers check: ended by {name}\n")
    while _group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("after", [0, 1.5])  # while the others begin, and while they judge
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
@pytest.mark.norm("check_your_port.jobs")
def test_a_signal_ends_the_processes_that_judge_too(name, after, tmp_path):
    """Ctrl-C goes to all processes of a terminal; SIGKILL here to the first alone, which can do nothing then."""
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "mlx_optimizers", "check", "py:slow:f", "--as", "SGD", "-j", "2", "-o", "report"]
    command = hearing(*command)
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(_group(process.pid)) < 4:  # itself, the one for the function, one that judges, one of multiprocessing's
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(after)
    assert process.poll() is None
    if name == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    printed, _ = process.communicate(timeout=60)  # until none has the pipe
    if name == "SIGINT":
        assert (process.returncode, printed.decode()) == (130, "mlx-optimizers check: ended by SIGINT\n")
    while _group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    left = {path.name for path in tmp_path.iterdir()} - {"slow.py", "__pycache__"}
    assert not left or (name == "SIGKILL" and all(path.startswith(".report.") for path in left))


def _group(number):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group, *_ = path.read_text().rpartition(")")[2].split()
            if int(group) == number and state != "Z":
                found.append(path.parent.name)
    return found


ADAPTER = """
import json, sys
from mlx_optimizers.backends import open_backend
from mlx_optimizers.conformance import matching
kind, reference = sys.argv[1], open_backend("reference")
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "start":
        protocol, twice = ("1.0" if kind == "float" else "1"), (', "name": "e"' if kind == "twice" else "")
        print('{"protocol": %s, "name": "d", "version": "1"%s}' % (protocol, twice), flush=True)
    elif request["op"] == "run":
        (case,) = [case for case in matching(["SGD"]) if case.id == request["id"]]
        rows = [case.form.bits(row) for row in reference.run(case).parameters]
        early = "\\n{}" * (kind == "early")  # in one write with the reply, so that it is there when the next request is
        print(json.dumps({"id": case.id, "parameters": rows}) + early, flush=True)
    else:
        print("garbage" * (kind == "garbage"), end="", flush=True)
        sys.exit(3 * (kind == "crash"))
"""


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("fine", 0, ""),
        ("garbage", 4, "text after the program was told to stop"),
        ("crash", 4, "ended with status 3"),
        ("float", 4, "protocol is 1.0"),
        ("twice", 4, "a key stands twice"),
        ("early", 4, "text before the question"),
    ],
)
@pytest.mark.norm("check_your_port.turns", "check_your_port.stop", "check_your_port.broken")
def test_an_adapter_that_strays_from_the_protocol(kind, status, words, tmp_path):
    (tmp_path / "adapter.py").write_text(ADAPTER)
    done = shell(f"MO check 'cmd:{sys.executable} adapter.py {kind}' --case 'sgd/plain/m*'", tmp_path)
    assert done.returncode == status and words in done.stderr, done.stdout + done.stderr
    if kind in ("garbage", "crash"):
        assert "conforms" in done.stdout  # what finished is reported


def test_vectors_are_replaced_together_and_nothing_else_is_read(vectors, tmp_path):
    from mlx_optimizers.conformance.vectors import verify_vectors

    written = shutil.copytree(vectors, tmp_path, dirs_exist_ok=True)  # which tests/vectors finds right as they are
    names = {path.name for path in written.iterdir()}
    (tmp_path / "adam.json").unlink()
    os.mkfifo(tmp_path / "adam.json")
    (tmp_path / "lion.json").unlink()
    (tmp_path / "lion.json").symlink_to("/dev/zero")
    os.truncate(tmp_path / "sgd.json", 3 * 2**30)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "adam.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    assert verify_vectors(tmp_path) == [
        "sgd.json: has 3221225472 bytes, more than twice what is right",
        "adam.json: is no regular file",
        "lion.json: is no regular file",
        "folder/adam.json: no file of the vectors has this name",
        "notes.txt: no file of the vectors has this name",
    ]
    assert names >= {"adam.json", "MANIFEST.json", "CHANGES.txt"}
