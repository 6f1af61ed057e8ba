"""The files of other dtypes, ``adam.bfloat16.json`` and so on: written beside the others, and verified with them."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest
from jsonschema import Draft202012Validator

from mlx_optimizers.catalog import entry_of
from mlx_optimizers.cli import main
from mlx_optimizers.conformance import decisive, matching, vectors
from mlx_optimizers.conformance.schemas import schema
from mlx_optimizers.conformance.vectors import DTYPES, derive, listed_dtypes, vectors_of, verify_vectors, write_vectors
from tests.programs import Program
from tests.support import require
from tests.vectors.test_derived_twice import verifier  # noqa: F401  a fixture

FOUR = ("SGD", "Adam", "Adafactor", "Muon")


@pytest.fixture
def four(few, monkeypatch):
    """One case of four optimizers, so that a test takes a moment."""
    monkeypatch.setattr(vectors, "CATALOG", [entry_of(name) for name in FOUR])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def verified(folder, capsys, *more):
    status = main(["vectors", "--verify", str(folder), *more])
    return status, capsys.readouterr().out.splitlines()


@pytest.mark.norm("vectors.dtypes", "vectors.dtypes-beside", "vectors.dtypes-verify", "vectors.one-file")
def test_a_dtype_adds_files_and_changes_none(four, tmp_path, capsys):
    plain, more = tmp_path / "plain", tmp_path / "more"
    assert main(["vectors", str(plain)]) == 0
    capsys.readouterr()
    assert main(["vectors", str(more), "--dtype", "float64", "--dtype", "bfloat16", "--dtype", "float64"]) == 0
    written = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    added = [f"{name.lower()}.{dtype}.json" for dtype in ("bfloat16", "float64") for name in FOUR]
    assert sorted(written) == names_in(more) == sorted([*names_in(plain), *added])
    for path in plain.iterdir():
        assert path.name == "MANIFEST.json" or path.read_bytes() == (more / path.name).read_bytes()
    old, new = (json.loads((folder / "MANIFEST.json").read_text("utf-8"))["files"] for folder in (plain, more))
    assert new[: len(old)] == old
    assert [file["name"] for file in new[len(old) :]] == added
    assert [listed_dtypes(folder) for folder in (plain, more)] == [set(), {"bfloat16", "float64"}]
    assert (
        verified(more, capsys) == verified(more, capsys, "--dtype", "bfloat16") == (0, [f"{more}: every byte is right"])
    )


@pytest.fixture
def both(four, tmp_path):
    write_vectors(tmp_path / "both", dtypes=["bfloat16"])
    return tmp_path / "both"


@pytest.mark.norm("vectors.dtypes-verify", "vectors.verify")
def test_a_changed_digit_is_named(both, capsys):
    file = both / "adam.bfloat16.json"
    text = file.read_text("utf-8")
    place = text.index('"nearest": ["') + len('"nearest": ["')
    file.write_text(text[:place] + ("1" if text[place] == "0" else "0") + text[place + 1 :], "utf-8")
    status, (line,) = verified(both, capsys)
    assert status == 1
    assert line.startswith("adam.bfloat16.json: adam/plain/defaults/bfloat16, step 1, parameter, nearest, element 0: ")


@pytest.mark.norm("vectors.dtypes-verify")
def test_what_is_missing_too_many_or_asked_for_is_named(both, capsys):
    (both / "sgd.bfloat16.json").rename(both / "sgd.float16.json")
    assert verified(both, capsys) == (
        1,
        ["sgd.bfloat16.json: No such file or directory", "sgd.float16.json: no file of the vectors has this name"],
    )
    status, lines = verified(both, capsys, "--dtype", "float16")
    missing = [f"{name.lower()}.float16.json: No such file or directory" for name in FOUR if name != "SGD"]
    assert status == 1 and set(missing) < set(lines)
    assert not any("no file of the vectors" in line for line in lines)


def test_a_manifest_that_lists_no_other_dtype_leaves_their_files_without_a_name(both, tmp_path, capsys):
    write_vectors(tmp_path / "plain")
    shutil.copy(tmp_path / "plain" / "MANIFEST.json", both)
    status, lines = verified(both, capsys)
    assert status == 1
    assert sorted(lines) == sorted(
        f"{name.lower()}.bfloat16.json: no file of the vectors has this name" for name in FOUR
    )
    assert any(line.startswith("MANIFEST.json: has ") for line in verified(both, capsys, "--dtype", "bfloat16")[1])


def test_no_manifest_is_waited_for_and_none_is_read_that_is_too_large(tmp_path):
    assert listed_dtypes(tmp_path) == set()
    os.mkfifo(tmp_path / "MANIFEST.json")
    assert listed_dtypes(tmp_path) == set()
    (tmp_path / "MANIFEST.json").unlink()
    (tmp_path / "MANIFEST.json").write_bytes(b'"adam.bfloat16.json"'.rjust(vectors.MANIFEST_SIZE))
    assert listed_dtypes(tmp_path) == {"bfloat16"}
    (tmp_path / "MANIFEST.json").write_bytes(b'"adam.bfloat16.json"'.rjust(vectors.MANIFEST_SIZE + 1))
    assert listed_dtypes(tmp_path) == set()


@pytest.mark.norm("vectors.dtypes", "vectors.dtypes-decided")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_has_the_cases_that_its_dtype_can_decide(dtype):
    require("ml_dtypes")
    claiming = Program(lambda h, t, w, g, *slots: (w, *slots))
    for name in ("RMSprop", "Adam", "Lion"):
        published = vectors_of(name, dtype)
        assert [case.id for case in published] == [
            case.id for case in decisive(claiming, matching([name], None, [dtype]))
        ]
    ids = {case.id for case in vectors_of("Muon", dtype)}
    every = {case.id for case in matching(["Muon"], None, [dtype])}
    assert ids == (every if dtype == "float64" else {name for name in every if "/vector/" in name})


@pytest.mark.norm("vectors.dtypes")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_is_of_the_schema_and_agrees_with_the_one_without_a_dtype(dtype, four, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # nothing of it needs the package
    write_vectors(tmp_path, dtypes=[dtype])
    validator = Draft202012Validator(schema("vectors"))
    validator.validate(json.loads((tmp_path / "MANIFEST.json").read_text("utf-8")))
    for name in FOUR:
        file = json.loads((tmp_path / f"{name.lower()}.{dtype}.json").read_text("utf-8"))
        validator.validate(file)
        (case,) = file["cases"]
        assert (file["optimizer"], case["dtype"]) == (name, dtype)
        if case["id"].endswith(f"/defaults/{dtype}"):
            published = json.loads((folder / f"{name.lower()}.json").read_text("utf-8"))["cases"]
            assert case in published
    assert verify_vectors(tmp_path) == []


@pytest.mark.norm("vectors.libraries")
@pytest.mark.parametrize("dtype", DTYPES)
def test_both_libraries_derive_the_same(dtype, mpfr):
    for name in FOUR:
        case = vectors_of(name, dtype)[-1]
        assert derive(case, "mpmath") == derive(case, "gmpy2")


@pytest.mark.norm("vectors.derived-twice")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_is_confirmed(dtype, four, verifier, tmp_path):  # noqa: F811
    write_vectors(tmp_path, dtypes=[dtype])
    run = verifier(*sorted(tmp_path.glob(f"*.{dtype}.json")))
    assert run.stdout.startswith(f"{len(FOUR)} cases, ") and run.stdout.endswith(" values, 0 problems\n")


@pytest.mark.slow
@pytest.mark.norm("vectors.derived-twice")
def test_every_value_of_every_case_is_confirmed(verifier, tmp_path):  # noqa: F811
    write_vectors(tmp_path, dtypes=DTYPES)
    run = verifier(*sorted(tmp_path.glob("*.*.json")))
    files = json.loads((tmp_path / "MANIFEST.json").read_text("utf-8"))["files"]
    assert run.stdout.startswith(f"{sum(file['cases'] for file in files if file['name'].count('.') > 1)} cases, ")
    assert run.stdout.endswith(" values, 0 problems\n")


def test_a_dtype_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="dtype 'float32' is none of float16, bfloat16, float64"):
        write_vectors(tmp_path, dtypes=["float32"])
    with pytest.raises(SystemExit, match="2"):
        main(["vectors", str(tmp_path), "--dtype", "int8"])
    assert "argument --dtype: invalid choice: 'int8'" in capsys.readouterr().err
