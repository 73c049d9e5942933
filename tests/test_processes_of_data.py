"""Preparation by a process per core: the same as by one, and nothing remains however it ends."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from test_data_images import encoded, picture, written

from ganrun.data import processes
from ganrun.data.formats import MEMORY, Memory
from ganrun.data.images import ImageFolder
from ganrun.data.many import each
from ganrun.errors import UserError
from ganrun.progress import Rate

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
CONTENTS = {f"{'ab'[i % 2]}/{i:02}.png": encoded(picture(5 * i)) for i in range(40)}
BAD = {"a/04.png": b"", "b/05.png": encoded(Image.effect_noise((64, 64), 50))[:500]}
CLEAR = {"a/06.png": encoded(Image.new("RGBA", (4, 4), (9, 9, 9, 9)))}  # is laid over white, which is said


@pytest.fixture
def started(monkeypatch) -> list[int]:
    """The numbers of processes that were started; from 8 items on there are 3."""
    found, working = [], processes.working
    monkeypatch.setattr(processes, "MANY", 8)
    monkeypatch.setattr(processes, "PART", 4)
    monkeypatch.setattr(processes, "cores", lambda: 3)
    monkeypatch.setattr(
        "ganrun.data.many.working", lambda task, items, num, what: found.append(num) or working(task, items, num, what)
    )
    return found


@pytest.fixture
def path(tmp_path) -> Path:
    return written(tmp_path, "folder", CONTENTS | BAD | CLEAR)


def opened(path: Path, cache: Path | None, **settings) -> ImageFolder:
    settings = {"resolution": 4, "channels": 3, "on_error": "skip", "range": [0, 150]} | settings
    return ImageFolder(name="mine", path=str(path), cache=cache and str(cache), **settings)


def files_of(cache: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in cache.iterdir()}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("folder", {"limit": 9}), ("zip", {}), ("folder", {"depth": 16, "range": None}), ("folder", {"cache": None})],
    ids=str,
)
def test_equal_to_one_process_to_the_byte(tmp_path, started, monkeypatch, kind, settings):
    path, settings = written(tmp_path, kind, CONTENTS | BAD | CLEAR), dict(settings)
    places = [None if "cache" in settings else tmp_path / name for name in ("several", "one")]
    settings.pop("cache", None)
    several = opened(path, places[0], **settings)
    assert set(started) == {3}
    monkeypatch.setattr(processes, "MANY", 1000)
    one = opened(path, places[1], **settings)
    assert several.fingerprint == one.fingerprint and several.skipped == one.skipped and several.notes == one.notes
    assert len(one.skipped) == 2 and (one.notes or settings)
    assert not places[0] or files_of(places[0]) == files_of(places[1])
    assert not multiprocessing.active_children()


def test_a_bad_file_is_refused_as_by_one_process(path, tmp_path, started):
    with pytest.raises(UserError, match=r"dataset mine: cannot read image a/04.png: the file is empty; dataset"):
        opened(path, tmp_path / "cache", on_error="refuse")
    assert started == [3] and not multiprocessing.active_children()


def die(self, name):
    if name == "b/07.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(self, name)


decode = ImageFolder._decode


def test_a_process_that_dies_is_one_line(path, tmp_path, started, monkeypatch):
    monkeypatch.setattr(ImageFolder, "_decode", die)
    with pytest.raises(UserError) as error:
        opened(path, tmp_path / "cache")
    assert str(error.value) == ("mine: decoding: a process has died (SIGKILL, as when the memory is full); start again")
    assert not multiprocessing.active_children() and {f.suffix for f in (tmp_path / "cache").iterdir()} == {".lock"}
    monkeypatch.undo()
    assert len(opened(path, tmp_path / "cache")) == len(CONTENTS) - len(BAD)


def decode_for_ever(path: Path, cache: Path, pids) -> None:
    """As a command that is interrupted: in a process group of its own."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ImageFolder._decode = lambda self, name: pids.put(os.getpid()) or time.sleep(1000)
    try:
        opened(path, cache)
    except KeyboardInterrupt:
        os._exit(7 if not multiprocessing.active_children() else 8)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_no_process_remains(path, tmp_path, started, number):
    """A terminal interrupts all processes of a group; only the first one reacts, and does not wait for the others."""
    context = multiprocessing.get_context("fork")
    pids = context.SimpleQueue()
    process = context.Process(target=decode_for_ever, args=(path, tmp_path / "cache", pids))
    process.start()
    workers = {pids.get() for _ in range(3)}
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    process.join(60)
    assert process.exitcode == (7 if number == signal.SIGINT else -number)
    until = time.monotonic() + 60
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(workers) == 3 and not any(map(is_running, workers))
    left = {".lock"} if number == signal.SIGINT else {".lock", ".partial"}
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == left


def is_running(pid: int) -> bool:
    """Not gone, and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_in_threads_and_daemonic_processes_one_does_it_all(path, tmp_path, started):
    found = []
    thread = threading.Thread(target=lambda: found.append(opened(path, tmp_path / "cache").digest()))
    thread.start()
    thread.join()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(
        target=lambda: queue.put((opened(path, tmp_path / "other").digest(), started)), daemon=True
    )
    process.start()
    digest, numbers = queue.get()
    process.join()
    assert [digest] == found and numbers == started == []


def test_when_processes_are_worth_it(monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 16)
    assert [processes.number(num) for num in (0, 2047, 2048)] == [1, 1, 16]
    monkeypatch.setattr(processes.sys, "platform", "darwin")
    assert processes.number(10**6) == 1


def test_cores_by_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for quota, cores in {"max 100000": 8, "250000 100000": 3, "1000 100000": 1, "9900000 100000": 8}.items():
        monkeypatch.setattr(Path, "read_text", lambda self, quota=quota: quota)
        assert processes.cores() == cores, quota


def test_results_and_faults_are_in_order(started):
    def work(i: int) -> int | None:
        if i % 7 == 3:
            raise ValueError(f"{i} is bad")
        return None if i % 2 else os.getpid() * 100 + i

    results, faults = each(range(50), work, what="work")
    assert [result % 100 for result in results] == [i for i in range(0, 50, 2) if i % 7 != 3]
    assert list(faults.items()) == [(i, f"{i} is bad") for i in range(3, 50, 7)]
    assert os.getpid() not in {result // 100 for result in results} and started == [3]


def test_processes_share_the_memory_that_decoding_may_take(started, monkeypatch):
    """Of 100 bytes each takes 60, so that one at a time is decoding."""
    monkeypatch.setattr("ganrun.data.formats.physical_memory", lambda: 200)
    inside = multiprocessing.get_context("fork").Value("i", 0)

    def work(i: int) -> int:
        with MEMORY.taken(60):
            with inside.get_lock():
                inside.value += 1
            now = inside.value
            time.sleep(0.001)
            with inside.get_lock():
                inside.value -= 1
        return now

    assert each(range(24), work, what="work") == ([1] * 24, {})
    assert isinstance(MEMORY, Memory) and MEMORY._used.value == 0


def test_the_bar_says_how_many_a_second():
    class Task:
        speed, finished_speed = 1234.5, None

    assert Rate("images").render(Task()).plain == "1,234 images/s"
    Task.speed = None
    assert Rate("images").render(Task()).plain == ""
