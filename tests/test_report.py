"""`ganrun report`: what the page says of runs in any state, and what it does in a browser."""

import json
import math
import os
import re
import shlex
import time
from pathlib import Path

import browser as browsers
import pytest
import torch
import yaml
from conftest import TINY, ganrun
from forked import Run
from PIL import Image
from sklearn.datasets import load_digits

from ganrun.commands.report.curves import POINTS, thinned
from ganrun.commands.report.pictures import fitted, spaced
from ganrun.commands.report.request import Request
from ganrun.commands.report.writing import report
from ganrun.commands.train.jobs import write_lines
from ganrun.files.storage import hold
from ganrun.pictures import grid

HOSTILE = "<script>alert('x')</script>&\"]]>"
PROTOCOL = {"metric": "FID", "features": "none", "num_fake": 64, "num_real": 64, "split": "training data"}


def fake_run(path: Path, *words: str, result: dict | str | None = None, lines: list[dict] = (), grids=()) -> Path:
    """The files of a run, without a training. grids: the pictures to link to, one for each 10 steps."""
    (path / ".hydra").mkdir(parents=True)
    (path / "samples").mkdir()
    (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(words), allow_unicode=True))
    (path / ".hydra" / "config.yaml").write_text("dataset: {name: digits}\non_collapse: warn\n")
    if result is not None:
        (path / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for i, picture in enumerate(grids, 1):
        os.link(picture, path / "samples" / f"step-{10 * i:06d}.png")
    return path


def ended(score: float, status: str = "finished", **more) -> dict:
    one = {"final": score, "step": 50, "best": score, "best_step": 50, "better": "lower", "protocol": PROTOCOL}
    return {"status": status, "steps": 50, "goal": 50, "seconds": 12.5, "images_per_second": 640.0,
            "scores": {"fid": one}, **more}  # fmt: skip


def curve(scale: float, steps: int = 50) -> list[dict]:
    rows = [{"step": i, "generator/adversarial": scale * (1 + i % 7), "discriminator/fake_logits": -scale}
            for i in range(1, steps + 1)]  # fmt: skip
    return [*rows, {"step": steps, "score/fid": scale}]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Fifty grids of 64 real digits each, as a good run draws them."""
    folder = tmp_path_factory.mktemp("pictures")
    images = torch.from_numpy(load_digits().images / 16).float()[:, None]
    images = torch.nn.functional.interpolate(images, size=16, mode="bilinear")
    for i in range(50):
        grid(images[20 * i : 20 * i + 64], columns=8).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, pictures) -> Path:
    """Two finished runs, one that failed, one cut off, one that never started; and what does not belong there."""
    place = tmp_path_factory.mktemp("Läufe von mir") / "sweep"
    for name, score in (("hinge", 10.0), ("wgan", 9.0)):
        made = fake_run(place / f"loss={name}", f"loss={name}", "lr=0.0001", result=ended(score), lines=curve(score),
                        grids=pictures[:5])  # fmt: skip
    (made / ".hydra" / "changes.yaml").write_text(
        yaml.safe_dump([{"step": 20, "key": "optimizer.lr", "had": 0.1, "got": 0.2}])
    )
    failed = {"status": "failed", "reason": f"NaN in {HOSTILE}", "collapse": [{"text": f"collapse: {HOSTILE}"}]}
    fake_run(place / "loss=bad", "loss=bad", f"note={HOSTILE}", "lr=0.0001", result=failed)
    fake_run(place / "loss=cut", "loss=cut", "lr=0.0001", result={"status": "running", "goal": 50}, lines=curve(11, 20))
    write_lines(place, [{"args": ["-m", "loss=hinge,wgan,later", "lr=1e-4"], "cwd": str(place)}])
    (place / "notes").mkdir()
    (place / "results.csv").write_text("a,b")
    return place


def page(*of: Path, out: Path, **keys) -> str:
    settings = {"overwrite": False, "watch": False, "every": 1, "grids": 50, "megabytes": 9.0, "neighbours": None}
    report(Request(of=list(map(str, of)), out=out, data_dir=None, trust=[], **settings | keys))
    return out.read_text(encoding="utf-8")


def data_of(text: str) -> dict:
    """The page's data; a NaN in them, which is no JSON, is an error."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    return json.loads(found, parse_constant=lambda name: pytest.fail(name))


@pytest.fixture(scope="module")
def written(sweep, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("written") / "report.html"
    page(sweep, out=out)
    return out


def test_the_page_says_how_each_run_ended_and_what_goes_on(written, sweep):
    text = written.read_text(encoding="utf-8")
    assert "5 runs: 1 failed, 1 cut off, 2 finished, 1 not started" in text and "by #4 loss=wgan" in text
    assert text.count("What its curves mean") == 4 and "<strong>Alarm:</strong>" in text  # of those that were started
    assert "optimizer.lr=0.2 from step 20 on (was 0.1)" in text and "All of them: lr=0.0001" in text
    commands = [shlex.split(html_free(found)) for found in re.findall(r"<code>(ganrun .*?)</code>", text)]
    assert ["ganrun", "loss=wgan", "lr=0.0001"] in commands
    assert ["ganrun", f"resume={sweep}/loss=wgan", "steps=100"] in commands
    assert ["ganrun", f"resume={sweep}/loss=cut"] in commands
    assert ["ganrun", f"resume={sweep}", "sweep.retry_failed=true"] in commands


def html_free(text: str) -> str:
    for mark, letter in (("&#39;", "'"), ("&#34;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(mark, letter)
    return text


def test_whatever_a_run_says_is_text(written):
    text = written.read_text(encoding="utf-8")
    assert text.count("<script") == 2 and "alert(&#39;x&#39;)" in text and HOSTILE not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)  # nothing is loaded from anywhere


@pytest.mark.parametrize(
    "result",
    ["{", "[]", '{"status": 3, "scores": [1], "collapse": 5, "notes": "x", "versions": 1}', None,
     json.dumps(ended(math.nan)), json.dumps(ended(math.inf)), json.dumps(ended(1) | {"steps": "many", "seconds": {}}),
     json.dumps({"status": "finished", "scores": {"fid": 3}, "evaluations": [{"metric": "fid"}]})],
)  # fmt: skip
def test_a_spoilt_result_spoils_no_page(result, tmp_path):
    lines = [{"step": 1, "a": math.nan}, {"step": 2, "a": 10**400}, {"step": 3, "a": "text"}, {"step": 4, "a": -1e-320}]
    run = fake_run(tmp_path / "run", result=result, lines=lines)
    (run / "samples" / "step-000001.png").write_bytes(b"\x89PNG cut off")
    (run / ".hydra" / "changes.yaml").write_text("- [1]")
    (found,) = data_of(page(run, out=tmp_path / "out.html"))["runs"]
    assert found["curves"]["a"][1] == [None, -1e-320] and found["pictures"] == []


def test_scores_compare_like_with_like(tmp_path):
    """An evaluation counts where all runs have one; scores of other protocols are marked, and never the best."""
    one = {"metric": "fid", "mean": 1.5, "std": 0.25, "values": [1.25, 1.75], "better": "lower", "floor": 0.5}
    evaluation = one | {"of": {"from": "generator.safetensors"}, "protocol": PROTOCOL}
    first = fake_run(tmp_path / "runs" / "a", "seed=1", result=ended(3.0, evaluations=[evaluation]))
    second = fake_run(tmp_path / "runs" / "b", "seed=2", result=ended(2.0))
    text = page(tmp_path / "runs", out=tmp_path / "out.html")
    assert "Best fid 2, by #2" in text and "evaluated 1.5 ± 0.25" in text and "floor 0.5" in text
    (second / "result.json").write_text(json.dumps(ended(2.0, evaluations=[evaluation | {"mean": 1.75}])))
    text = page(tmp_path / "runs", out=tmp_path / "out.html")
    assert "Best fid 1.5 ± 0.25, by #1" in text and "in training 3" in text
    other = evaluation | {"mean": 0.1, "protocol": PROTOCOL | {"num_fake": 8}}
    (second / "result.json").write_text(json.dumps(ended(2.0, evaluations=[other])))
    text = page(tmp_path / "runs", out=tmp_path / "out.html")
    assert "by #1" in text and "fid of run 2 was made otherwise, so it does not compare: num_fake 64 and 8" in text
    assert first.exists()


def test_long_curves_keep_their_peaks():
    values = [0.0] * 10_000
    values[1234], values[5678] = 9.0, -9.0
    steps, kept = thinned(list(range(10_000)), values)
    assert len(steps) <= POINTS and 1234 in steps and 5678 in steps and max(kept) == 9 and min(kept) == -9
    assert thinned([1, 2], [0.123456789, None]) == ([1, 2], [0.12346, None])


def test_pictures_fit_into_their_room(pictures):
    files = {10 * i: picture for i, picture in enumerate(pictures[:8], 1)}
    assert list(spaced(files, 4)) == [20, 40, 60, 80] and spaced(files, 9) == files
    for room in (400_000, 60_000):
        (shown,), kept = fitted([files], room, 8)
        assert kept == 8 and list(shown) == list(files) and sum(map(len, shown.values())) <= room
    (shown,), kept = fitted([dict(enumerate(pictures))], 0, 50)
    assert kept < 50 and 49 in shown  # the last one is always there


def test_twenty_runs_with_fifty_grids_stay_under_ten_megabytes(pictures, tmp_path):
    for i in range(20):
        fake_run(tmp_path / "runs" / f"seed={i}", f"seed={i}", result=ended(i), lines=curve(i + 1, 400), grids=pictures)
    text = page(tmp_path / "runs", out=tmp_path / "out.html")
    assert [len(run["pictures"]) for run in data_of(text)["runs"]] == [50] * 20
    assert 4e6 < (tmp_path / "out.html").stat().st_size < 10e6


def test_only_a_report_is_replaced(sweep, tmp_path):
    out = tmp_path / "a b.html"
    for _ in range(2):
        done = ganrun("report", f"of={sweep}", f"out={out}", "neighbours=null", cwd=tmp_path)
        assert done.stdout.splitlines()[-1] == str(out) and not done.stderr
    out.write_text("<html>mine</html>")
    refused = ganrun("report", f"of={sweep}", f"out={out}", "neighbours=null", cwd=tmp_path, check=2)
    assert "exists and is no report; overwrite=true" in refused.stderr and out.read_text() == "<html>mine</html>"
    ganrun("report", f"of={sweep}", f"out={out}", "overwrite=true", "neighbours=null", cwd=tmp_path)
    assert "ganrun report" in out.read_text()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("of=nowhere", "of=nowhere: no run there"),
        ("of=[]", "of=[]: it names no run"),
        ("out=report.pdf", "out=report.pdf: this makes .html"),
        ("out=no/report.html", "there is no folder no"),
        ("grids=-1", "grids=-1; expected at least 0"),
        ("every=0", "every=0; expected at least 1"),
        ("neighbours=5", "neighbours=5; expected one of best, all or null"),
        ("grid=3", "did you mean grids"),
    ],
)
def test_mistakes_are_one_line(word, told, tmp_path):
    refused = ganrun("report", word, cwd=tmp_path, check=2)
    assert told in refused.stderr and refused.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_neighbours_of_a_real_run_or_why_there_are_none(tmp_path):
    ganrun(*TINY, "steps=2", "run_dir=run", cwd=tmp_path)
    os.rename(tmp_path / "run", tmp_path / "mein Lauf")
    ganrun("report", "of=mein Lauf", cwd=tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(r"\d+ of 64 samples \(\d+%\) lie nearer to a training image", text)
    assert "8 samples, each beside its 4 nearest training images" in text
    config = tmp_path / "mein Lauf" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("ganrun.data.images", "no_such_package"))
    text = page(tmp_path / "mein Lauf", out=tmp_path / "report.html", neighbours="best")
    assert "Nearest training images are not shown: " in text


def test_watching_ends_with_the_runs_or_by_ctrl_c(sweep, tmp_path):
    run = fake_run(tmp_path / "run", result={"status": "running", "goal": 9}, lines=curve(1, 5))
    words = ("report", "of=run", "watch=true", "every=1", "neighbours=null")
    with hold(run / ".lock"):
        for _ in range(2):
            watching = Run(*words, cwd=tmp_path)
            until(lambda: "data-reload" in text_of(tmp_path / "report.html"))
            before = (tmp_path / "report.html").stat().st_ino
            until(lambda: (tmp_path / "report.html").stat().st_ino != before)  # noqa: B023
            if _ == 0:
                watching.kill(2)
                assert watching.wait() == 130 and "Traceback" not in watching.err
                assert "data-reload" not in text_of(tmp_path / "report.html")
        (run / "result.json").write_text(json.dumps(ended(1.0)))
    assert watching.wait() == 0 and "data-reload" not in text_of(tmp_path / "report.html")
    assert not list(tmp_path.glob(".*.partial"))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def until(happens, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="session")
def browser():
    found = browsers.started()
    yield found
    found.driver.quit()


@pytest.fixture
def opened(browser, written):
    browser.open(written)
    yield browser
    assert browser.errors() == []


ORDER = "all('#table tbody tr').map(numberOf)"


def test_the_table_sorts_and_filters(opened):
    fid = "void document.querySelector('th[data-key=score-1] button').click()"
    assert opened.run(ORDER) == [1, 2, 3, 4, 5]
    opened.run(fid)
    assert opened.run(ORDER) == [4, 3, 1, 2, 5]  # 9, 10, then those without a score
    opened.run(fid)
    assert opened.run(ORDER) == [3, 4, 1, 2, 5]
    assert opened.run("document.querySelector('th[data-key=score-1]').getAttribute('aria-sort')") == "descending"
    opened.set("filter", "finished  WGAN")
    assert opened.run("shown()") == [4] and opened.run("byId('count').textContent") == "1 of 5 runs"
    assert opened.run("all('.grid').filter((figure) => !figure.hidden).length") == 1
    opened.set("filter", "")
    opened.run("void byId('show-4').click()")
    assert 4 not in opened.run("shown()") and opened.run("byId('all').indeterminate")


def test_switches_change_the_curves_and_keys_read_them(opened):
    chart = "document.querySelector('[data-curve=\"generator/adversarial\"]')"
    lines = f"all('path.line', {chart}).map((path) => path.getAttribute('d'))"
    plain = opened.run(lines)
    opened.run("void byId('log').click()")
    logarithmic = opened.run(lines)
    opened.set("smoothing", 0.9)
    assert len(plain) == 3 and plain != logarithmic and len(opened.run(lines)) == 6  # the raw lines stay, faint
    below = "document.querySelector('[data-curve=\"discriminator/fake_logits\"] svg').textContent"
    assert "linear" in opened.run(below)
    dashes = opened.run(f"all('path[data-number]', {chart}).map((path) => path.style.strokeDasharray)")
    assert len(set(dashes)) == len(dashes)  # without colours, too, lines differ
    opened.run(f"void {chart}.querySelector('svg').dispatchEvent(new KeyboardEvent('keydown', {{key: 'ArrowLeft'}}))")
    assert re.match(
        r"step 50: #2 [\d.]+ · #3 [\d.]+ · #4 [\d.]+$", opened.run(f"{chart}.querySelector('.readout').textContent")
    )


def test_sliders_go_through_time(opened):
    picture = "document.querySelector('.grid img').src"
    last = opened.run(picture)
    opened.set("step-3", 0)
    assert opened.run(picture) != last and opened.run("document.querySelector('.grid img').alt").endswith("step 10")
    opened.set("time", 1000)
    assert opened.run(picture) == last
    assert opened.run("document.querySelector('.grid img').naturalWidth") > 50


def test_a_phone_needs_no_scrolling_sideways(browser, written):
    browser.open(written, width=390)
    browser.run("void all('details').forEach((details) => { details.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.run("all('img').every((image) => image.alt)") and browser.errors() == []


def test_an_open_page_loads_anew_and_stays_as_it_was_set(browser, written, tmp_path):
    live = tmp_path / "live.html"
    text = written.read_text(encoding="utf-8")
    live.write_text(text.replace('<html lang="en">', '<html lang="en" data-reload="1">'), encoding="utf-8")
    browser.open(live)
    browser.run("void byId('log').click()")
    browser.set("filter", "hinge")
    live.write_text(text.replace("<title>", "<title>new "), encoding="utf-8")
    until(lambda: browser.driver.title.startswith("new") and browser.run("document.documentElement.dataset.ready"))
    assert browser.run("[byId('log').checked, byId('filter').value, shown()]") == [True, "hinge", [3]]
    assert browser.errors() == []


def test_a_picture_of_another_kind_of_file_is_left_out(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "step-000010.png", format="GIF")
    (shown,), _ = fitted([{10: tmp_path / "step-000010.png", 20: tmp_path / "none.png"}], 1e6, 50)
    assert list(shown) == [10]
