"""`ganrun ls`: every run below a folder, whatever state it is in."""

import json
import os
import time

import pytest
from conftest import TINY, ganrun

from ganrun.commands.ls.listing import age, bytes_of, size


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, one that was never started, one with a spoilt result, one of half its steps."""
    path = tmp_path_factory.mktemp("ls")
    ganrun(*TINY, "steps=4", "run_dir=outputs/done", cwd=path)
    for name, result in {"new": None, "spoilt": "{", "half": {"status": "running", "steps": 3, "goal": 9}}.items():
        (path / "outputs" / name / ".hydra").mkdir(parents=True)
        (path / "outputs" / name / ".hydra" / "config.yaml").write_text("seed: 0\n")
        if result is not None:
            text = result if isinstance(result, str) else json.dumps(result)
            (path / "outputs" / name / "result.json").write_text(text)
    hour = time.time() - 3700
    os.utime(path / "outputs" / "half" / "result.json", (hour, hour))
    return path


def lines(place, *words):
    return [line.split("│")[1:-1] for line in ganrun("ls", *words, cwd=place).stdout.splitlines() if "│" in line]


def test_each_run_has_a_line(place):
    found = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines(place)}
    score = json.loads((place / "outputs" / "done" / "result.json").read_text())["scores"]["sliced-wasserstein"][
        "final"
    ]
    assert found["outputs/done"][:3] == ["finished", "4", f"sliced-wasserstein {score:.5g}"]
    assert found["outputs/half"][:2] == ["running", "3 of 9"] and found["outputs/half"][3] == "1 h"
    assert found["outputs/new"][0] == found["outputs/spoilt"][0] == "no result" and len(found) == 4


def test_orders(place):
    def names(*words):
        return [cells[0].strip().removeprefix("outputs/") for cells in lines(place, *words)]

    assert names("sort=path") == ["done", "half", "new", "spoilt"]
    assert names("sort=size")[0] == "done" and names("sort=age")[-1] == "half"
    assert names("of=[outputs/half,outputs/done]") == ["done", "half"]


@pytest.mark.parametrize(
    ("word", "told"),
    [("of=nowhere", "no run there"), ("sort=name", "sort=name; "), ("by=fid", "by")],
)
def test_mistakes_are_one_line(word, told, place):
    refused = ganrun("ls", word, cwd=place, check=2)
    assert told in refused.stderr and refused.stderr.count("\n") == 1


def test_a_file_of_two_names_counts_once(tmp_path):
    (tmp_path / "one").write_bytes(bytes(1000))
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "three").write_bytes(bytes(24))
    assert bytes_of(tmp_path) == 1024


def test_units():
    assert [age(s) for s in (0, 59, 60, 3600, 90000)] == ["0 s", "59 s", "1 min", "1 h", "1 d"]
    assert [size(n) for n in (0, 1023, 1536, 5 << 20, 7 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "7168.0 GiB"]
