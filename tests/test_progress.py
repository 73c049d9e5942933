"""Signs of life in a log file: how often a line comes, and what it says."""

import re

from conftest import TINY, ganrun

from ganrun.progress import Pace, time_left, tracked

LINE = re.compile(
    r"step [\d,]+ of 200: discriminator -?[\d.e-]+, generator -?[\d.e-]+; "
    r"[\d,]+ images/s; \d+:\d\d:\d\d left(; \S+ \S+)?"
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_at_most_one_line_in_ten_seconds():
    clock = Clock()
    pace = Pace(clock, first=True)
    due = []
    for clock.now in (0, 1, 9.9, 10, 12, 19.9, 20, 100, 101):
        due.append(pace.is_due())
    assert due == [True, False, False, True, False, False, True, True, False]


def test_time_left():
    assert time_left(25, 100, 50.0) == "0:02:30"
    assert time_left(0, 100, 50.0) == ""


def test_a_long_stage_tells_how_far_it_is_and_a_short_one_nothing(capsys):
    clock = Clock()

    def batches(seconds):
        for _ in range(5):
            clock.now += seconds
            yield [0] * 20

    assert len(list(tracked(batches(1), 100, "decoding", size=len, clock=clock))) == 5
    assert capsys.readouterr().err == ""
    list(tracked(batches(8), 100, "decoding", size=len, clock=clock))
    assert capsys.readouterr().err.splitlines() == [
        "decoding: 40 of 100 images, 2 images/s, 0:00:24 left",
        "decoding: 80 of 100 images, 2 images/s, 0:00:08 left",
    ]


def test_a_run_in_a_log_file_shows_how_far_it_is(tmp_path):
    args = [*TINY, "steps=200", "log_every=20", "evaluate.every=0", "sample_every=0", "run_dir=r", "on_collapse=null"]
    out = ganrun(*args, cwd=tmp_path).stdout.splitlines()
    lines = [line for line in out if line.startswith("step ")]
    assert all(map(LINE.fullmatch, lines)), lines
    assert lines[0].startswith("step 20 of 200") and lines[-1].startswith("step 200 of 200")
    assert "sliced-wasserstein" in lines[-1] and "0:00:00 left" in lines[-1]
    logged = (tmp_path / "r" / "train.log").read_text()
    assert all(line in logged for line in lines)
    assert out[-1].endswith("/r") or out[-1] == "r"
