"""The benchmark runs and reports all three; how fast they are is no test."""

import json
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = ROOT / "scripts" / "benchmark.py"


def test_three_loops_on_a_tiny_row(tmp_path):
    args = ["--rounds", "2", "--steps", "3", "--rows", "mlp-ring-non-saturating", "--json", "found.json"]
    done = subprocess.run([sys.executable, SCRIPT, *args], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"].values()
    for loop in ("ganrun", "plain", "peer"):
        spread = row[loop]
        assert len(spread["rounds"]) == 2 and 0 < spread["min"] <= spread["median"] <= spread["max"]
    assert row["ganrun_over_plain"] > 0 and row["peer_over_ganrun"] > 0
    assert 0 < row["finite_over_ganrun"] < 1 and "noticing NaN and infinity" in done.stdout
    assert 0 < row["outside_training_step"] < row["ganrun"]["max"]
    assert "ganrun/plain" in done.stdout and "Lightning" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


@pytest.mark.parametrize("wrong", [["--rows", "nothing"], ["--steps", "0"]])
def test_refuses_in_one_line(wrong, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *wrong])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert wrong[1] in capsys.readouterr().err.splitlines()[-1]
