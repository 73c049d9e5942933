"""The benchmark runs and reports all three; how fast they are is no test."""

import json
import runpy
import sys
import time
from functools import partial

import forked
import pytest
from conftest import ROOT

SCRIPT = ROOT / "scripts" / "benchmark.py"


def test_three_loops_on_a_tiny_row(tmp_path):
    args = ["--rounds", "2", "--steps", "3", "--rows", "mlp-ring-non-saturating", "--json", "found.json"]
    args += ["--precision", "32-true", "--precision", "bf16-mixed", "--plot", "plot.png", "--side", "256"]
    done = forked.run(*args, cwd=tmp_path, script=SCRIPT)
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert list(rows) == ["mlp-ring-non-saturating fp32", "mlp-ring-non-saturating bf16"]
    for row in rows.values():
        for loop in ("ganrun", "plain", "peer"):
            spread = row[loop]
            assert len(spread["rounds"]) == 2 and 0 < spread["min"] <= spread["median"] <= spread["max"]
        assert row["ganrun_over_plain"] > 0 and row["peer_over_ganrun"] > 0
        assert 0 < row["finite_over_ganrun"] < 1
        assert 0 < row["outside_training_step"] < row["ganrun"]["max"]
        # 64 samples: the generator once forward, twice backward; the discriminator three times forward, with the
        # weights' gradients of two passes and the input's of three, but not at the first layer of those on the data
        layers = [(16, 128), (128, 128), (128, 2)], [(2, 128), (128, 128), (128, 1)]
        generator, discriminator = (sum(2 * 64 * a * b for a, b in sizes) for sizes in layers)
        first = {"generator": 2 * 64 * 16 * 128, "discriminator": 2 * 64 * 2 * 128}
        expected = 3 * generator - first["generator"] + (3 + 2 + 3) * discriminator - 2 * first["discriminator"]
        assert row["gigaflop"] == pytest.approx(expected / 1e9) and row["share_of_peak"] > 0
    assert "ganrun/plain" in done.out and "Lightning" in done.out and "noticing NaN" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "plot.png"]


def test_costs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import costs

    monkeypatch.setattr(costs, "SIZES", (100, 200))
    assert costs.sizes(steps=25, rounds=1)["ratio"] > 0
    assert costs.sampling(num=20)["images_per_second"] > 0
    assert sorted(costs.memory(steps=8)) == [1, 2, 4, 6, 8]
    assert all(seconds > 0 for seconds in costs.command("--help"))
    monkeypatch.setattr(costs, "command", partial(started_in_a_moment, tmp_path))  # the real one takes seconds
    assert all(seconds > 0 for seconds in costs.start(rounds=1).values())
    monkeypatch.setattr(costs, "JOBS", 2)
    monkeypatch.setattr(costs, "STEPS", 2)
    found = costs.sweep()  # differences of times, which a busy machine may turn around
    assert found["seconds"] > 0 and found["a_job"] == (found["seconds"] - found["single"]) / 1


def started_in_a_moment(folder, *args):
    began = time.perf_counter()
    place = folder / str(time.monotonic_ns())
    place.mkdir()
    forked.run(*args, cwd=place)
    seconds = time.perf_counter() - began
    return seconds, seconds


@pytest.mark.parametrize("wrong", [["--rows", "nothing"], ["--steps", "0"], ["--costs", "no"], ["--peer", "/"]])
def test_refuses_in_one_line(wrong, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *wrong])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert wrong[1] in capsys.readouterr().err.splitlines()[-1]
