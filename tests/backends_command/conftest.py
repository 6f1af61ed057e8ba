"""Programs for the tests of adapters: a fixture writes them, and knows which processes they were."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import pytest

PRELUDE = """
import json, os, signal, sys, time

def note():
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n")

def receive():
    return json.loads(sys.stdin.readline())

def send(text):
    sys.stdout.write(text)
    sys.stdout.flush()

def start(**more):
    assert receive() == {"op": "start", "protocol": 1, "newest": 2}
    send(json.dumps({"protocol": 1, "name": "program", "version": "7", **more}) + "\\n")

def reply(request, **changed):
    return json.dumps({"id": request["id"], "parameters": request["gradients"], **changed}) + "\\n"

def patterns(request, change):
    rows = json.loads(json.dumps(request["gradients"]))
    change(rows)
    return reply(request, parameters=rows)

def serve():
    while (request := receive())["op"] == "run":
        send(reply(request))

note()
"""
"""``note`` records the process; ``reply`` answers with the gradients, in the right shape."""


@pytest.fixture
def program(tmp_path):
    """Writes programs, and knows which processes they were."""

    class Programs:
        pids = tmp_path / "pids"

        def __call__(self, body):
            path = tmp_path / "program.py"
            path.write_text(PRELUDE + body, encoding="utf-8")
            return shlex.join([sys.executable, "-I", "-S", str(path), str(self.pids)])

        def running(self):
            return [pid for pid in map(int, self.pids.read_text().split()) if is_running(pid)]

    return Programs()


def is_running(pid):
    """Tell whether there is such a process; one that has ended but was not waited for by its parent does not count."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def ends(pid):
    """Tell whether a process that was killed is gone; the kernel may take a moment for it."""
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)
