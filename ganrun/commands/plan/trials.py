"""Trials in processes of their own, one after the other, which leave nothing behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ganrun.config.places import command
from ganrun.errors import Failure

LEAST = 30.0  # seconds that a trial gets before it is ended


class TooLong(Failure):
    """A trial was ended since the time for it was over."""


class Trials:
    """seconds: for the steps of each. budget: seconds, see has_time."""

    def __init__(self, seconds: float, budget: float):
        self.seconds, self.budget = seconds, budget
        self.until = time.monotonic() + budget

    def has_time(self) -> bool:
        """May another one start?"""
        return time.monotonic() < self.until

    def run(self, words: Sequence[str], *, events: bool = True, limited: bool = False) -> dict[str, Any]:
        """What a trial of `ganrun *words` has found, see child.py. limited: it ends when the time is over.

        Raises the error that training would raise, and TooLong.
        """
        if sys.stderr.isatty():
            print(f"trying {command(*words)} ...", file=sys.stderr, flush=True)
        with TemporaryDirectory(prefix="ganrun-plan-") as name:
            folder = Path(name)
            request = {"words": list(words), "seconds": self.seconds, "events": events, "began": time.time()}
            (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
            told = self._wait(folder, max(LEAST, self.until - time.monotonic()) if limited else None)
            try:
                found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise Failure(f"the trial ended without a result: {last_line(told)}") from error
        if "error" in found:
            error = Failure(found["error"])
            error.exit_code = found["exit_code"]
            raise error
        return found

    def _wait(self, folder: Path, timeout: float | None) -> str:
        """Runs the process of a trial; returns what it said on its standard error."""
        words = [sys.executable, "-m", "ganrun.commands.plan.child", str(folder)]
        with open(folder / "told", "w+b") as told:
            here = os.environ | {"TMPDIR": str(folder)}  # what torch puts into such a place goes with the trial
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=told, env=here)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                raise TooLong(f"ended after {timeout:.0f} s") from error
            finally:
                process.kill()
                process.wait()
                process.stdin.close()
            told.seek(0)
            text = told.read().decode(errors="replace")
        return text or f"exit code {process.returncode}"


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1]
