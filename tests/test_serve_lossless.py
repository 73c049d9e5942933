"""A server in use is given newer generators, damaged ones, and its end: no request is lost."""

import re
import signal
import time

import numpy as np
import pytest
from serving import Crowd, sampler_file, serving, until

from ganrun.commands.serve.drift import FEWEST, Drift
from ganrun.commands.serve.served import Live

BODIES = [{"num": num, "seed": seed, "format": "npz"} for num, seed in ((1, 0), (5, 1), (40, 2))]


@pytest.fixture
def file(tmp_path):
    return sampler_file(tmp_path / "generator.safetensors")


def expected(server) -> list[bytes]:
    return [server.sample(**body).content for body in BODIES]


def test_no_request_is_lost_over_reloads_and_at_the_end(file):
    """Each answer is whole, from the old generator or the new one, and a damaged one never takes over."""
    with serving(file) as server:
        old = expected(server)
        crowd = Crowd(server.url, 6, BODIES)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        server.run.send(signal.SIGHUP)
        until(lambda: "not reloaded, the old generator stays" in server.run.err)
        refused = server.client.post("/reload")
        assert refused.status_code == 409 and "cannot be read as a generator" in refused.json()["detail"]
        assert expected(server) == old
        sampler_file(file, seed=1, steps=8)
        server.run.send(signal.SIGHUP)
        until(lambda: "reloaded" in server.run.err and "step 8" in server.run.err)
        new = expected(server)
        assert all(one != other for one, other in zip(new, old, strict=True))
        assert server.client.post("/reload").json()["trained"]["steps"] == 8
        assert server.client.get("/health").json()["steps"] == 8
        assert server.figure('ganrun_reloads_total{outcome="loaded"}') == 2
        assert server.figure('ganrun_reloads_total{outcome="refused"}') == 2
        server.run.send(signal.SIGTERM)
        crowd.join()
    assert crowd.lost == [] and len(crowd.answers) > 12
    for which, status, content in crowd.answers:
        assert status == 200 and content in (old[which], new[which])


def test_what_is_being_made_is_answered_at_the_end(file):
    with serving(file, "wait=1000") as server:
        crowd = Crowd(server.url, 2, BODIES[:1])
        until(lambda: server.client.get("/health").json()["queue"] == 2)
        began = time.monotonic()
        server.run.send(signal.SIGTERM)
        crowd.join()
    assert crowd.lost == [] and [status for _, status, _ in crowd.answers] == [200] * len(crowd.answers)
    assert len(crowd.answers) >= 2 and time.monotonic() - began < 60


def test_a_newer_file_is_noticed(file):
    with serving(file, "watch=0.1") as server:
        sampler_file(file, seed=1, steps=9)
        until(lambda: server.client.get("/health").json()["steps"] == 9)
        file.with_suffix(".yaml").unlink()
        until(lambda: "not reloaded, the old generator stays" in server.run.err)
        time.sleep(0.5)
        assert len(re.findall("not reloaded", server.run.err)) == 1  # once for each change
        assert server.sample().status_code == 200


def test_a_generator_of_nan_is_refused(file, capfd):
    live = Live(str(file), "cpu", [])
    before = live.served
    sampler_file(file, scale=float("nan"))
    with pytest.raises(ValueError, match="weights or samples are NaN or infinity"):
        live.reload()
    assert live.served is before and "the old generator stays" in capfd.readouterr().err


def seen(drift: Drift, live: Live, num: int, seed: int) -> int:
    made = live.served.made
    numbers, labels = range(num), made.turn()[np.arange(num) % 4]
    z = made.draw(numbers, seed)
    return drift.see(live.served, z, labels, made.decode(z, labels))


def test_a_collapse_shows_beside_the_reference_and_training(file):
    (file.parent / ".hydra").mkdir()
    (file.parent / ".hydra" / "config.yaml").write_text("seed: 0\n")
    rows = [(5, 0.5, 0.25), (7, 0.8, 0.125), (9, 0.1, 0.5)]
    line = '{{"step": {}, "collapse/pixel_spread": {}, "collapse/twins": 0.3, "collapse/real_twins": {}}}\n'
    (file.parent / "metrics.jsonl").write_text("".join(line.format(*row) for row in rows))
    live = Live(str(file), "cpu", [])
    drift = Drift(live.served)
    told = drift.told()
    assert told["twins", "training"] == 0.125  # of step 7, the generator's own
    assert told["spread", "training"] == pytest.approx(told["spread", "reference"] / 0.8)
    assert ("spread", "served") not in told
    assert seen(drift, live, 200, seed=5) == 0
    assert seen(drift, live, 200, seed=5) == 0  # the same ones again are no duplicates
    drift._told = (-9.0, {})
    told = drift.told()
    assert told["spread", "served"] == pytest.approx(told["spread", "reference"], rel=0.2)
    sampler_file(file, scale=0.0)  # one image for each class
    live.reload()
    assert seen(drift, live, 256, seed=6) == 252
    drift._told = (-9.0, {})
    told = drift.told()
    assert told["twins", "served"] == 1 and told["spread", "served"] < told["spread", "reference"]
    assert FEWEST <= 256
