"""The command ``mlx-optimizers vectors``."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from mlx_optimizers.cli import main
from mlx_optimizers.conformance.schemas import schema
from tests.expected import NAMES, WHOLE


@pytest.mark.norm("vectors.verify")
def test_what_is_written_is_verified(few, tmp_path, capsys):
    assert main(["vectors", str(tmp_path / "new" / "folder")]) == 0
    written = capsys.readouterr().out.splitlines()
    assert sorted(Path(line).name for line in written) == sorted(
        [*(f"{name.lower()}.json" for name in (*NAMES, *WHOLE)), "CHANGES.txt", "MANIFEST.json"]
    )
    assert all(Path(line).is_file() for line in written)
    assert main(["vectors", "--verify", str(tmp_path / "new" / "folder")]) == 0
    assert "every byte is right" in capsys.readouterr().out


@pytest.mark.norm("vectors.verify")
def test_a_changed_digit_is_named_and_ends_in_status_1(few, tmp_path, capsys):
    main(["vectors", str(tmp_path)])
    file = tmp_path / "sgd.json"
    file.write_text(file.read_text("utf-8").replace('"0.1', '"0.2', 1), "utf-8")
    capsys.readouterr()
    assert main(["vectors", "--verify", str(tmp_path)]) == 1
    line, *_ = capsys.readouterr().out.splitlines()
    assert line.startswith("sgd.json: sgd/") and "step" in line and "element" in line


def test_a_folder_without_vectors_is_wrong(few, tmp_path, capsys):
    assert main(["vectors", "--verify", str(tmp_path / "nothing")]) == 1
    assert "sgd.json: No such file" in capsys.readouterr().out


def test_the_schema_is_printed(capsys):
    assert main(["vectors", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema("vectors")
    jsonschema.Draft202012Validator.check_schema(printed)


@pytest.mark.parametrize("arguments", [[], ["a", "--verify", "b"], ["--schema", "a"]])
def test_one_thing_is_asked_for(arguments, capsys):
    assert main(["vectors", *arguments]) == 2
    assert "one of DIR, --verify DIR and --schema" in capsys.readouterr().err


def test_where_nothing_can_be_written_is_said_without_a_traceback(few, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["vectors", str(tmp_path / "file" / "below")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
