"""For tests of `ganrun serve`: tiny generators, a server in a process of its own, and clients of it."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import forked
import httpx
import torch

from ganrun.networks import dcgan
from ganrun.noise import Normal
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.generator_file import save_generator

CLASSES = ["ant", "bee", "cat", "dög"]
SETTINGS = {"z_dim": 4, "channels": 3, "resolution": 16, "width": 8, "num_classes": len(CLASSES)}
TRANSLATOR = {
    "_target_": "ganrun.networks.resnet_translator.Generator",
    "width": 4,
    "blocks": 1,
    "norm": "instance-plain",
    "dropout": 0.0,
    "residual": False,
    "source_channels": 3,
    "channels": 1,
    "resolution": 32,
    "value_range": [-1, 1],
}


def sampler_file(path: Path, *, seed: int = 0, steps: int = 7, scale: float = 1.0) -> Path:
    """A conditional DCGAN of random weights. scale: of its noise; 0 = one image for each class."""
    torch.manual_seed(seed)
    network = dcgan.Generator(**SETTINGS, value_range=[-1, 1])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        network(torch.randn(32, 4), torch.zeros(32, dtype=torch.int64))
        network.stem[0].weight[:, :4] *= scale
    made = SamplingGenerator(network.eval(), Normal(4), value_range=(-1, 1), classes=CLASSES)
    config = {"_target_": "ganrun.networks.dcgan.Generator", **SETTINGS, "value_range": [-1, 1]}
    header = {"networks": {"generator": config}, "noise": {"_target_": "ganrun.noise.Normal", "z_dim": 4}}
    header |= {"trained": {"dataset": "digits", "steps": steps}, "value_range": [-1, 1], "classes": CLASSES}
    save_generator(path, made.state_dict(), header)
    return path


def translator_file(path: Path) -> Path:
    from ganrun.networks import resnet_translator

    torch.manual_seed(0)
    settings = {key: value for key, value in TRANSLATOR.items() if key != "_target_"}
    network = resnet_translator.Generator(**settings)
    header = {"networks": {"a2b": TRANSLATOR}, "noise": None, "trained": {}, "value_range": [-1, 1], "classes": []}
    header |= {"channels": {"a2b": [3, 1]}, "between": {"a2b": ["source", "real"]}}
    save_generator(path, {f"a2b.{key}": value for key, value in network.state_dict().items()}, header)
    return path


class Server:
    """A running `ganrun serve`."""

    def __init__(self, file: Path, run: forked.Run, url: str):
        self.file, self.run, self.url = file, run, url
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def sample(self, **body) -> httpx.Response:
        return self.client.post("/sample", json=body)

    def told(self, **body) -> str:
        """The line by which a request is refused."""
        answer = self.client.post("/sample", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        return answer.json()["detail"]

    def figure(self, name: str) -> float | None:
        """The value of a metric, with its labels as they are written."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.client.get("/metrics").text, re.M)
        return float(found[1]) if found else None

    def end(self) -> None:
        """By SIGTERM, which must give exit code 0."""
        self.client.close()
        if self.run.process.is_alive():
            self.run.send(signal.SIGTERM)
        assert self.run.wait(60) == 0, self.run.err


@contextmanager
def serving(file: Path, *words: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """file: a generator's, or a run."""
    run = forked.Run("serve", f"from={file}", "port=0", "device=cpu", *words, cwd=file.parent, env=env)
    printed, _ = run._files
    until(lambda: not run.process.is_alive() or (printed.exists() and "http://" in run.out))
    assert run.process.is_alive(), run.err
    server = Server(file, run, run.out.splitlines()[-1].replace("0.0.0.0", "127.0.0.1"))
    try:
        yield server
    except BaseException:
        run.kill()
        raise
    server.end()


def until(happens, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


class Crowd:
    """Clients that ask without a pause, each over a connection of its own, or each time over a new one.

    answers: what came back. lost: requests that were sent over an open connection and got no answer.
    """

    def __init__(self, url: str, num: int, bodies: list[dict]):
        self.url, self.bodies = url, bodies
        self.answers: list[tuple[int, int, bytes]] = []  # which body, status, content
        self.lost: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(num)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        kept = number % 2 == 0
        client, turn = httpx.Client(timeout=60, trust_env=False), number
        while not self._stop.is_set():
            which = turn % len(self.bodies)
            try:
                answer = client.post(f"{self.url}/sample", json=self.bodies[which])
                self.answers.append((which, answer.status_code, answer.content))
            except httpx.ConnectError:  # it accepts nobody any more
                break
            except httpx.HTTPError as error:
                self.lost.append(repr(error))
            turn += 1
            if not kept:
                client.close()
                client = httpx.Client(timeout=60, trust_env=False)
        client.close()

    def stop(self) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
