"""Commands in processes of their own that start in a moment: forked from a server that has imported everything."""

import os
import runpy
import signal
import sys
import time
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

import fresh

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["warm", "forked", "fresh"]
)  # what it fails to import it leaves out in silence; see main
SHARED = "GANRUN_TESTS_SERVER"
STARTING = ("trainer", "hydra/launcher=", "resume=", "plan")  # words of commands that may start Python; see fresh.py


class Run:
    """`ganrun *args` in a process group of its own. script: run this Python file instead. out, err: what it printed."""

    def __init__(self, *args: str, cwd: Path, env: dict[str, str] | None = None, script: Path | None = None):
        self._files = [cwd.with_name(f"{cwd.name}.{time.monotonic_ns()}.{name}") for name in ("out", "err")]
        self.process = CONTEXT.Process(target=main, args=(list(args), cwd, env or {}, self._files, script))
        start(self.process)
        self.group = self.process.pid

    def wait(self, timeout: float = 300) -> int:
        """The exit code as a shell shows it."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running after {timeout} s"
        return self.process.exitcode if self.process.exitcode >= 0 else 128 - self.process.exitcode

    def wait_for(self, path: Path, timeout: float = 300) -> None:
        until = time.monotonic() + timeout
        while not path.exists():
            assert self.process.is_alive(), f"ended before {path} was there\n{self.err}"
            assert time.monotonic() < until, f"{path} is not there after {timeout} s"
            time.sleep(0.001)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the whole group, or to the process alone while it does not lead a group yet."""
        try:
            os.killpg(self.group, number)
        except ProcessLookupError:
            os.kill(self.group, number)

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        return self._files[1].read_text()


def serve() -> None:
    """Starts the server, which then takes its time to import."""
    here = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    with patch.dict(os.environ, PYTHONPATH=here):  # where the server looks for its modules; see warm.py
        forkserver.ensure_running()


def share() -> None:
    """From now on the processes that this one starts use its server: each server takes seconds and memory."""
    if sys.version_info < (3, 14):  # later ones ask for a key
        serve()
        os.environ[SHARED] = forkserver._forkserver._forkserver_address


def start(process: BaseProcess) -> None:
    """Starts a process of CONTEXT."""
    server = forkserver._forkserver
    if SHARED not in os.environ:
        serve()
    elif server._forkserver_address is None:
        server._forkserver_address = os.environ[SHARED]
        server._forkserver_alive_fd = os.open(os.devnull, os.O_WRONLY)  # it lives as long as the process that shares it
        server.ensure_running = lambda: None
    process.start()


def run(*args: str, cwd: Path, check: int | None = 0, **settings: object) -> Run:
    """Runs to the end; `check` is the exit code that it must end with. settings: of Run."""
    done = Run(*args, cwd=cwd, **settings)
    code = done.wait()
    assert check is None or code == check, f"exit {code}\n{done.out}\n{done.err}"
    return done


def main(args: list[str], cwd: Path, env: dict[str, str], files: list[Path], script: Path | None) -> None:
    assert "warm" in sys.modules, "imported anew in each command: slower by seconds"
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # both are ignored in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.update(env)
    for number, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if any(word.startswith(STARTING) for word in args):
        fresh.install()
        fresh.to_the_end(work, args, script)
    sys.exit(work(args, script))


def work(args: list[str], script: Path | None) -> int:
    if script:
        sys.argv = [str(script), *args]
        runpy.run_path(str(script), run_name="__main__")
        return 0
    from ganrun import cli

    return cli.run(args)
