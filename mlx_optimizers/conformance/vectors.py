"""The published vectors: inputs, correctly rounded results and accepted intervals, as files for any language.

One JSON file an optimizer, and one more for each further dtype that is asked for, a manifest, and the list of changes,
which has the first files' cases. The text is laid out so that every array stands on
one line, by itself or after its key: a language without JSON reads the files line by line, and `verify_vectors`
names the element that a wrong line holds. Nothing here depends on the libraries' versions, on gmpy2 or on ml_dtypes:
the same release writes the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mlx_optimizers.catalog import CATALOG, entry_of
from mlx_optimizers.conformance.cases import Case, cases_of, recast
from mlx_optimizers.conformance.special import REGIME, special_ball, special_of
from mlx_optimizers.conformance.verdict import can_decide
from mlx_optimizers.files import replacing
from mlx_optimizers.oracle import Array, Ball, Exact, Format, Rounded
from mlx_optimizers.oracle.exact import Library, Ranged
from mlx_optimizers.oracle.formulas import parse
from mlx_optimizers.oracle.trajectory import ends, walk

__all__ = [
    "DTYPES",
    "case_digest",
    "changes",
    "derive",
    "last_changes",
    "listed_dtypes",
    "vectors_of",
    "verify_vectors",
    "write_vectors",
]

FORMAT = "mlx-optimizers-vectors/1"
MANIFEST = "mlx-optimizers-manifest/1"
DTYPES = ("float16", "bfloat16", "float64")
"""The dtypes in which the defaults are published, besides float32, and every case where it is asked for."""

MANIFEST_SIZE = 2**20
"""Bytes of a manifest that are read at most, to see which files it lists."""

SHOWN = 50
"""Differences that `verify_vectors` names in one file; it counts the rest."""

Place = tuple[str | int, ...]
"""Keys and indices that lead to a line of a file."""


def vectors_of(optimizer: str, dtype: str = "float32") -> list[Case]:
    """List the published cases of one optimizer: those of the suite, the defaults in `DTYPES`, the special ones.

    In one of `DTYPES` they are those of the suite in which it lets something of the parameter be tested. The numbers
    of cases in `DTYPES` are float64, which holds them without a package for bfloat16.
    """
    suite, regimes = cases_of(optimizer), entry_of(optimizer).regimes
    if dtype != "float32":
        inside = (recast(case, dtype, wide=True) for case in suite)
        return [case for case in inside if can_decide(case, parse(optimizer))]
    defaults = [case for case in suite if case.label == "defaults" and case.regime in regimes]
    others = [recast(case, dtype, wide=True) for dtype in DTYPES for case in defaults]
    return [*suite, *others, *special_of(optimizer)]


def derive(case: Case, library: Library | None = None) -> dict[str, Any]:
    """Derive a published case: its input, and the expected values after each step.

    Args:
        case: Its input, one of `vectors_of`.
        library: ``"mpmath"`` or ``"gmpy2"``; by default gmpy2 where installed. Both give the same.
    """
    request = case.to_json()
    vector = {
        "expected": _expected(case, library),
        "formula": entry_of(case.optimizer).formula,
        "id": case.id,
        "level": case.level,
        "regime": case.regime,
        "sha256": _digest(request),
        **request,
    }
    del vector["optimizer"]  # the file has it
    return vector


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _expected(case: Case, library: Library | None) -> list[dict[str, Any]]:
    """Derive the exact values and the ends of the ball after each step, of the parameter and of every slot.

    The values are no centres of balls: where Lion's sign is uncertain, the ball [−1, 1] has the centre 0.
    """
    n, formula, special = Exact(library=library), parse(case.optimizer), case.regime == REGIME
    data = case.parameter, list(case.gradients), case.hyperparameters
    steps = []
    with n.active():
        values = walk(formula, Ranged(case.form, library=n.library) if special else n, *data)
        for numbers, balls in zip(values, walk(formula, Rounded(case.form, n), *data), strict=True):
            parameter, *state = (
                _quantity(n, case.form, x, _published(case, name, x, ball))
                for name, x, ball in zip(("parameter", *case.slots), numbers, balls, strict=True)
            )
            steps.append({"parameter": parameter, "state": dict(zip(case.slots, state, strict=True))})
    return steps


def _published(case: Case, name: str, x: Array, ball: Ball) -> Ball:
    """Choose the ball that is published: all numbers where nothing is required."""
    if case.level == "informative":
        return Ball(ball.context, x, np.full(x.values.shape, np.inf))
    return special_ball(case, name, x, ball) if case.regime == REGIME else ball


def _quantity(n: Exact, form: Format, x: Array, ball: Ball) -> dict[str, list[str]]:
    low, high = ends(n, form, ball.centre.values, ball.radius)
    return {
        "exact": [n.text(value) for value in x.values.reshape(-1)],
        "high": form.bits(high),
        "low": form.bits(low),
        "nearest": form.bits(n.rounded(x.values, form)),
    }


def case_digest(case: dict[str, Any]) -> str:
    """Digest everything in a case into sixteen digits; `changes` keeps them."""
    return _digest(case)[:16]


def changes() -> str:
    """Read the list of case ids added, altered or removed, release by release, each with the case's digest."""
    return files("mlx_optimizers").joinpath("vectors", "CHANGES.txt").read_text("utf-8")


def last_changes() -> dict[str, str]:
    """Map the id of every case in `changes` to its digest, without those removed since."""
    digests: dict[str, str] = {}
    for line in changes().splitlines():
        if line.startswith("#"):
            continue
        _, what, name, *digest = line.split()
        if what == "removed":
            del digests[name]
        else:
            (digests[name],) = digest
    return digests


Lines = list[tuple[Place, str]]


def _lines(value: Any, place: Place = (), end: str = "") -> Iterator[tuple[Place, str]]:
    """Write JSON text by lines, each with its place: sorted keys, a space a level, an array of scalars on one line."""
    opening = " " * len(place) + (f"{json.dumps(place[-1])}: " if place and isinstance(place[-1], str) else "")
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(x, dict | list) for x in value))
    if not nested:
        yield place, opening + json.dumps(value, allow_nan=False) + end
        return
    items: list[tuple[str | int, Any]] = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value))
    brackets = "{}" if isinstance(value, dict) else "[]"
    yield place, opening + brackets[0]
    for key, item in items:
        yield from _lines(item, (*place, key), "" if key == items[-1][0] else ",")
    yield place, " " * len(place) + brackets[1] + end


def _files(
    progress: Callable[[int], None] | None, library: Library | None, dtypes: Iterable[str]
) -> Iterator[tuple[str, Lines, list[str]]]:
    """Derive every file: its name, its lines, and the ids of its cases."""
    entries, done, asked = [], 0, set(dtypes)
    if unknown := asked - {*DTYPES}:
        raise ValueError(f"dtype {min(unknown)!r} is none of {', '.join(DTYPES)}")
    for dtype, entry in product(("float32", *(dtype for dtype in DTYPES if dtype in asked)), CATALOG):
        cases = []
        for case in vectors_of(entry.name, dtype):
            cases.append(derive(case, library))
            done += 1
            if progress is not None:
                progress(done)
        name = f"{entry.name.lower()}.json" if dtype == "float32" else f"{entry.name.lower()}.{dtype}.json"
        lines = list(_lines({"format": FORMAT, "optimizer": entry.name, "cases": cases}))
        data = _text(lines).encode()
        entries.append(
            {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "cases": len(cases)}
        )
        yield name, lines, [vector["id"] for vector in cases]
    yield "MANIFEST.json", list(_lines({"format": MANIFEST, "files": entries})), []
    yield "CHANGES.txt", [((), line) for line in changes().splitlines()], []


def _text(lines: Lines) -> str:
    return "".join(f"{line}\n" for _, line in lines)


def write_vectors(
    folder: str | Path,
    progress: Callable[[int], None] | None = None,
    library: Library | None = None,
    dtypes: Iterable[str] = (),
) -> list[Path]:
    """Write the published vectors.

    Args:
        folder: Where to; created if missing. Files of the same names are replaced.
        progress: Called with the number of cases derived so far.
        library: ``"mpmath"`` or ``"gmpy2"``; by default gmpy2 where installed. Both give the same bytes.
        dtypes: Those of `DTYPES` in which every case is written too, ``adam.bfloat16.json`` and so on.

    Returns:
        The files written.
    """
    target, texts = Path(folder), {name: _text(lines) for name, lines, _ in _files(progress, library, dtypes)}
    target.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:  # which ends in the reverse order: the manifest takes its place last
        for name in sorted(texts, key="MANIFEST.json".__ne__):
            file = stack.enter_context(replacing(target / name))
            file.write(texts[name].encode())
            file.flush()
    return [target / name for name in texts]


def listed_dtypes(folder: str | Path) -> set[str]:
    """Find the dtypes of which the manifest of a folder lists a file; what is right about it `verify_vectors` says."""
    try:
        manifest = _read(Path(folder) / "MANIFEST.json", MANIFEST_SIZE)
    except OSError:
        return set()
    return {dtype for dtype in DTYPES if f'.{dtype}.json"'.encode() in manifest}


def verify_vectors(
    folder: str | Path,
    progress: Callable[[int], None] | None = None,
    library: Library | None = None,
    dtypes: Iterable[str] | None = None,
) -> list[str]:
    """Derive every vector again and compare it with what a folder holds.

    Args:
        folder: Where the files are.
        progress: Called with the number of cases derived so far.
        library: As for `write_vectors`.
        dtypes: As for `write_vectors`; by default those of which the manifest lists a file.

    Returns:
        What is wrong, a sentence each, naming file, case, step and element; empty if every byte is right.
    """
    source, known, problems = Path(folder), set(), []
    for name, lines, ids in _files(progress, library, listed_dtypes(source) if dtypes is None else dtypes):
        known.add(name)
        right = _text(lines).encode()
        try:
            data = _read(source / name, 2 * len(right))
        except OSError as error:
            problems.append(f"{name}: {error.strerror or error}")
            continue
        if data != right:
            problems += [f"{name}: {problem}" for problem in _differences(data, lines, ids)]
    present = [path for path in source.rglob("*") if path.is_symlink() or not path.is_dir()]
    extra = sorted({str(path.relative_to(source)) for path in present} - known)
    return problems + [f"{name}: no file of the vectors has this name" for name in extra]


def _read(path: Path, most: int) -> bytes:
    """Read a regular file of at most so many bytes; a pipe or a device is never waited for.

    Raises:
        OSError: for anything else.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("is no regular file")
        if status.st_size > most:
            raise OSError(f"has {status.st_size} bytes, more than twice what is right")
        return file.read(most)


def _differences(data: bytes, lines: Lines, ids: list[str]) -> Iterator[str]:
    """Describe how a file's bytes differ from the right lines, in at least one sentence."""
    *theirs, rest = data.decode("utf-8", "replace").split("\n")
    if rest:
        theirs.append(rest)
        yield "the last line has no end"
    same_number = len(theirs) == len(lines)
    if not same_number:
        yield f"has {len(theirs)} lines, and {len(lines)} are right"
    wrong = [(got, place, right) for got, (place, right) in zip(theirs, lines, strict=False) if got != right]
    # Where lines are missing, all that follow differ: only the first says something.
    shown = wrong[: SHOWN if same_number else 1]
    for got, place, right in shown:
        for what in _items(got, right):
            yield f"{_words(place, ids)}{what}"
    if same_number and len(wrong) > len(shown):
        yield f"{len(wrong) - len(shown)} more lines differ"


def _words(place: Place, ids: list[str]) -> str:
    """Name a line's place: the case, the step, the quantity."""
    case = []
    if place[:1] == ("cases",) and len(place) > 1:
        case, place = [ids[int(place[1])]], place[2:]
    words = [f"step {key + 1}" if isinstance(key, int) and ids else str(key) for key in place if key != "expected"]
    return "".join(f"{word}, " for word in case + words)


def _items(got: str, right: str) -> Iterator[str]:
    """Name the elements in which two lines differ, or the lines where more than elements differ."""
    ours, theirs = ([item[0] for item in re.finditer(r'"[^"]*"|[^][ ,:"]+', line)] for line in (right, got))
    changed = [index for index, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]]
    keyed = right.lstrip().startswith('"')  # the first item is the key
    if len(ours) != len(theirs) or not changed or (keyed and changed[0] == 0) or not right.startswith(" "):
        yield f"found {_cut(got.strip())}, and {_cut(right.strip())} is right"
        return
    array = right.rstrip(",").endswith("]")
    for index in changed:
        element = f"element {index - keyed}: " if array else ""
        yield f"{element}found {_cut(theirs[index])}, and {_cut(ours[index])} is right"


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
