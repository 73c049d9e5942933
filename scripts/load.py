"""Loads `ganrun serve` on this machine: images/s beside the bare network, latency, and requests lost.

images/s  clients ask for npz files of 1, 8 or 64 images without a pause; the bare network makes as many images a pass
          in this process, from noise that was drawn before, and drops its output. The two take turns, so that whatever
          else the machine does slows both; a ratio is the median of the rounds'. The npz holds the pixels
          uncompressed. As `grid` the same 64 images are joined into one PNG, which costs its compression.
latency   clients ask for a PNG of one image each without a pause; p50 and p99 of all their requests
lost      the same clients while a newer generator is put in place again and again, by turns over kept and over new
          connections, until SIGTERM; a request is lost if a connection was made and no whole answer came back

On a machine that is busy with other work set OMP_NUM_THREADS=1 for both sides.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any

import torch

import ganrun
from ganrun.networks.dcgan import Generator
from ganrun.noise import Normal
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.generator_file import save_generator

SIZES = (1, 8, 64)  # images a request
CLIENTS = {1: 16, 8: 16, 64: 4}  # for each of them


def example(folder: Path, resolution: int, width: int) -> Path:
    """An untrained DCGAN."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"z_dim": 100, "channels": 3, "resolution": resolution, "width": width}
    made = SamplingGenerator(
        Generator(**settings, value_range=(-1, 1)).eval(), Normal(100), value_range=(-1, 1), classes=[]
    )
    network = {"_target_": "ganrun.networks.dcgan.Generator", **settings, "value_range": [-1, 1]}
    header = {"networks": {"generator": network}, "noise": {"_target_": "ganrun.noise.Normal", "z_dim": 100}}
    header |= {"value_range": [-1, 1], "classes": [], "trained": {"steps": 0}}
    save_generator(folder / "generator.safetensors", made.state_dict(), header)
    return folder / "generator.safetensors"


class Clients:
    """Ask without a pause until they are stopped. seconds: of each answered request."""

    def __init__(self, port: int, num: int, body: dict[str, Any], *, kept: Callable[[int], bool] = lambda i: True):
        self.port, self.body = port, json.dumps(body).encode()
        self.seconds: list[float] = []
        self.lost: list[str] = []
        self.going = True
        self.threads = [threading.Thread(target=self.ask, args=(i, kept(i))) for i in range(num)]
        for thread in self.threads:
            thread.start()

    def ask(self, number: int, kept: bool) -> None:
        connection, turn = None, number
        while self.going:
            began, turn = time.perf_counter(), turn + 1
            try:
                if connection is None:
                    connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
                    connection.connect()
            except OSError:  # nobody is accepted any more
                return
            try:
                body = self.body.replace(b'"seed": 0', f'"seed": {turn}'.encode())
                connection.request("POST", "/sample", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise HTTPException(f"status {answer.status}")
            except (OSError, HTTPException) as error:
                self.lost.append(repr(error))
                answer = None
            else:
                self.seconds.append(time.perf_counter() - began)
            if answer is None or answer.will_close or not kept:
                connection.close()
                connection = None

    def stop(self) -> None:
        self.going = False
        for thread in self.threads:
            thread.join()


def started(file: Path) -> tuple[subprocess.Popen, int]:
    command = [Path(sys.executable).parent / "ganrun", "serve", f"from={file}", "port=0", "device=cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, int(process.stdout.readline().rpartition(":")[2])


def bare(made: SamplingGenerator, num: int, seconds: float) -> float:
    """Images a second of the network alone."""
    z = made.draw(range(num), 0)
    passes, began = 0, time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - began < seconds:
            made.generator(z)
            passes += 1
    return passes * num / (time.perf_counter() - began)


def served(port: int, num: int, format: str, seconds: float) -> float:
    """Images a second of the answers to requests that are sent within these seconds, until the last one has come."""
    clients, began = Clients(port, CLIENTS[num], {"num": num, "seed": 0, "format": format}), time.perf_counter()
    time.sleep(seconds)
    clients.stop()
    return len(clients.seconds) * num / (time.perf_counter() - began)


def speeds(port: int, made: SamplingGenerator, options: argparse.Namespace) -> None:
    for num, format in (*((num, "npz") for num in SIZES), (64, "grid")):
        served(port, num, format, options.seconds / 2)  # warm-up
        rounds = []
        for _ in range(options.rounds):
            alone = bare(made, num, options.seconds)
            rounds.append((alone, served(port, num, format, options.seconds)))
        ratios = sorted(there / alone for alone, there in rounds)
        alone, there = (median(column) for column in zip(*rounds, strict=True))
        told = f"served {there:7.0f} images/s, ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{num:3} images a request, {format:4}, {CLIENTS[num]} clients: bare {alone:7.0f}, {told}", flush=True)


def latency(port: int, options: argparse.Namespace) -> None:
    found = []
    for _ in range(options.rounds):
        clients = Clients(port, options.clients, {"num": 1, "seed": 0, "format": "png"})
        time.sleep(options.seconds)
        clients.stop()
        times = sorted(clients.seconds)
        found.append((times[len(times) // 2], times[int(len(times) * 0.99)], len(times)))
    p50, p99 = (1000 * median(column) for column in list(zip(*found, strict=True))[:2])
    ratio = median(high / low for low, high, _ in found)
    requests = sum(num for _, _, num in found)
    print(f"{options.clients} clients: p50 {p50:.1f} ms, p99 {p99:.1f} ms, p99/p50 {ratio:.2f}, {requests:,} requests")


def losses(process: subprocess.Popen, port: int, file: Path, newer: Path, options: argparse.Namespace) -> None:
    clients = Clients(port, options.clients, {"num": 1, "seed": 0, "format": "npz"}, kept=lambda i: i % 2 == 0)
    reloads, until = 0, time.monotonic() + options.seconds * options.rounds
    while time.monotonic() < until:
        os.replace(shutil.copy(newer, file.with_suffix(".new")), file)
        process.send_signal(signal.SIGHUP)
        reloads += 1
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    for thread in clients.threads:
        thread.join()
    told = f"{len(clients.lost)} lost over {reloads} reloads and SIGTERM, exit code {code}"
    print(f"{len(clients.seconds):,} requests of {options.clients} clients: {told} {clients.lost[:3] or ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, help="a .safetensors file; by default an untrained DCGAN of --width")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each side of a round")
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = options.generator or example(Path(folder), options.resolution, options.width)
        used = Path(folder) / "served.safetensors"
        for suffix in (".safetensors", ".yaml"):
            shutil.copy(file.with_suffix(suffix), used.with_suffix(suffix))
        process, port = started(used)
        made = ganrun.load_generator(used)
        device = next(made.parameters()).device
        print(
            f"{file.name}, {tuple(made.sample(1).shape[1:])} on {device}, {torch.get_num_threads()} threads", flush=True
        )
        speeds(port, made, options)
        latency(port, options)
        losses(process, port, used, file, options)


if __name__ == "__main__":
    main()
