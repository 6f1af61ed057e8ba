"""A digit that is changed anywhere in any file is found, and its place is named."""

from __future__ import annotations

import random
import re
import shutil

import pytest

from mlx_optimizers.conformance.vectors import changes, last_changes, verify_vectors
from tests.expected import NAMES

pytestmark = pytest.mark.xdist_group("vectors")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "vectors")


def test_what_was_written_is_right_and_progress_is_told(folder):
    seen = []
    assert verify_vectors(folder, progress=seen.append) == []
    assert seen == list(range(1, len(last_changes()) + 1))


def place(name, lines, number, column):
    """Say which words a problem must have for a digit: file, case, step and element, read from the text alone."""
    if name in ("MANIFEST.json", "CHANGES.txt"):
        return [f"{name}: "]
    start = max((i for i in range(number + 1) if lines[i] == "  {"), default=None)
    end = next((i for i in range(number, len(lines)) if lines[i].startswith("  }")), None)
    if start is None or end is None:
        return [f"{name}: "]
    (case,) = (re.fullmatch(r'   "id": "(.*)",', line)[1] for line in lines[start:end] if line.startswith('   "id"'))
    words = [f"{name}: {case}, "]
    line = lines[number]
    if re.match(r" {4}\[", line):
        words.append(f"step {sum(text.startswith('    [') for text in lines[start : number + 1])}, ")
    if re.match(r' {6,7}"', line):
        words.append(f"step {sum(text == '    {' for text in lines[start : number + 1])}, ")
        words.append(re.match(r' *"(\w+)"', line)[1] + ", ")
    if re.search(r'\["', line):
        before = line[:column].partition("[")[2]
        words.append(f"element {before.count(chr(34)) // 2}: ")
    return words


def change_digit(line, column, rng):
    other = rng.choice([digit for digit in "0123456789" if digit != line[column]])
    return line[:column] + other + line[column + 1 :]


@pytest.mark.norm("vectors.verify")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_a_changed_digit_is_named_by_file_case_step_and_element(seed, copy):
    """Some fifty digits in each file: half in arrays, half in other lines, such as ids and settings."""
    rng = random.Random(seed)
    wanted = []
    for path in sorted(copy.iterdir()):
        lines = path.read_text("utf-8").split("\n")
        numbered = [i for i, line in enumerate(lines) if re.search(r"\d", line)]
        plain, arrays = ([i for i in numbered if ("[" in lines[i]) == array] for array in (False, True))
        changed = list(lines)
        for number in rng.sample(plain, min(25, len(plain))) + rng.sample(arrays, min(25, len(arrays))):
            line = lines[number]
            column = rng.choice([match.start() for match in re.finditer(r"\d", line)])
            changed[number] = change_digit(line, column, rng)
            wanted.append(place(path.name, lines, number, column))
            if '["' in line:  # the digits there and the right ones
                start, end = line.rindex('"', 0, column), line.index('"', column) + 1
                wanted[-1].append(f"found {changed[number][start:end]}, and {line[start:end]} is right")
        path.write_bytes("\n".join(changed).encode())
    problems = verify_vectors(copy)
    assert len(problems) == len(wanted) >= len(NAMES) * 50
    for words in wanted:
        assert any(all(word in problem for word in words) for problem in problems), words


def damage_of_every_kind(folder):
    """Do damage, and say how its message must begin."""
    newline = b"\n"
    (folder / "sgd.json").unlink()
    yield "sgd.json: No such file"
    lines = (folder / "adam.json").read_bytes().split(b"\n")
    (folder / "adam.json").write_bytes(b"\n".join(lines[:900] + lines[901:]))
    yield f"adam.json: has {len(lines) - 2} lines, and {len(lines) - 1} are right"
    yield "adam.json: adam/"  # and where the first difference is
    data = (folder / "lion.json").read_bytes()
    (folder / "lion.json").write_bytes(data.replace(b"\n", b"\r\n"))
    yield f"lion.json: {data.count(newline) - 50} more lines differ"
    (folder / "adamw.json").write_bytes((folder / "adamw.json").read_bytes()[:-1])
    yield "adamw.json: the last line has no end"
    data = (folder / "adamax.json").read_bytes()
    (folder / "adamax.json").write_bytes(data.replace(b'", "', b'" ,"', 1))
    yield "adamax.json: adamax/plain/defaults, step 1, parameter, exact, found "
    data = (folder / "rmsprop.json").read_bytes()
    (folder / "rmsprop.json").write_bytes(data.replace(b'"level": "required"', b'"level": "informative"', 1))
    yield 'rmsprop.json: rmsprop/plain/defaults, level, found "informative", and "required" is right'
    (folder / "adagrad.json").write_bytes(b"")
    yield "adagrad.json: has 0 lines"
    (folder / "adadelta.json").write_bytes(b"\xff" + (folder / "adadelta.json").read_bytes()[1:])
    yield "adadelta.json: found "
    (folder / "shampoo.json").write_text("{}\n")
    yield "shampoo.json: no file of the vectors has this name"
    (folder / "CHANGES.txt").write_text(changes().replace("added", "altered", 1))
    yield "CHANGES.txt: "


@pytest.mark.norm("vectors.verify")
def test_other_damage_is_found_too(copy):
    wanted = list(damage_of_every_kind(copy))
    problems = verify_vectors(copy)
    for words in wanted:
        assert any(problem.startswith(words) for problem in problems), (words, problems)
