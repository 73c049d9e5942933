"""Fresh interpreters in a moment: the Python processes that a forked command starts are forked as well.

They come from a copy of the command that was made before it began, so nothing of its state is theirs, and are children
of the command as if it had started them by exec. For Linux; elsewhere the real ones start.
"""

import _posixsubprocess
import atexit
import ctypes
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import process, resource_tracker, util
from typing import Any, NoReturn

NAME = "fresh-python"  # of such a process, for pgrep
CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine)  # the number of this system call
SIBLING, SET_TID, CLEAR_TID = 0x8000, 0x1000000, 0x200000  # flags of it: the parent's child; the thread as by fork()
SET_NAME, GET_TID_ADDRESS = 15, 40  # of prctl
REAL = _posixsubprocess.fork_exec
FIRST = process.current_process()  # as it is in a process that multiprocessing has not started


def install() -> None:
    """From now on this process, which has no threads and no state of its own yet, starts Python by forks of a copy."""
    if sys.platform != "linux" or not CLONE:
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        serve(theirs)
    theirs.close()
    lock = threading.Lock()

    def fork_exec(args: Any, executables: Any, close_fds: bool, pass_fds: Any, cwd: Any, env: Any, *rest: Any) -> int:
        words = python_words([os.fsdecode(word) for word in args])
        stdin, _, _, stdout, _, stderr, _, told, _, session, group, *others = rest
        if not words or not close_fds or others[:3] != [None] * 3 or others[4] is not None:
            return REAL(args, executables, close_fds, pass_fds, cwd, env, *rest)
        passed = [number for number in pass_fds if number != told]
        streams = [usual if given == -1 else given for usual, given in enumerate((stdin, stdout, stderr))]
        request = {
            "words": words,
            "cwd": os.fsdecode(cwd) if cwd else os.getcwd(),
            "env": dict(os.environb) if env is None else dict(each.split(b"=", 1) for each in env),
            "numbers": [0, 1, 2, *passed],
            "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
            "ignored": [each for each in signal.valid_signals() if signal.getsignal(each) is signal.SIG_IGN],
            "group": 0 if session else group,
        }
        with lock:
            socket.send_fds(ours, [pickle.dumps(request)], streams + passed)
            return int(ours.recv(20))

    _posixsubprocess.fork_exec = subprocess._fork_exec = fork_exec


def python_words(command: list[str]) -> list[str]:
    """What this Python is told by a command, its own or that of a script beside it; empty for another program."""
    first, *rest = command
    if first == sys.executable:
        return rest
    beside = os.path.dirname(first) == os.path.dirname(sys.executable)
    with open(first if beside else os.devnull, "rb") as file:
        script = file.readline() == b"#!" + os.fsencode(sys.executable) + b"\n"
    return command if script else []


def serve(requests: socket.socket) -> None:
    """The copy: forks at each request, until the command ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the command
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 200)
        if not message:
            os._exit(0)
        pid = fork_sibling()
        if pid == 0:
            requests.close()
            be_fresh(**pickle.loads(message), descriptors=descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(str(pid).encode())


def serve_others(place: str) -> None:
    """Runs Python for whoever calls `run_by` with the same socket, each as a child of a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(place)
    listener.listen(100)
    while True:
        caller, _ = listener.accept()
        if os.fork():
            caller.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        message, descriptors, _, _ = socket.recv_fds(caller, 1 << 20, 200)
        pid = os.fork()
        if pid == 0:
            be_fresh(**pickle.loads(message), descriptors=descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        caller.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)


def run_by(place: str, words: list[str]) -> int:
    """`python *words` by the server of this socket, with this process's streams; its exit code as a shell shows it."""
    request = {"words": words, "cwd": os.getcwd(), "env": dict(os.environb), "numbers": [0, 1, 2]}
    request |= {"blocked": set(), "ignored": [], "group": -1}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(place)
        socket.send_fds(server, [pickle.dumps(request)], [0, 1, 2])
        code = int(server.recv(20))
    return code if code >= 0 else 128 - code


def fork_sibling() -> int:
    """As os.fork(), but the new process is a child of this one's parent."""
    c, python = ctypes.PyDLL(None), ctypes.pythonapi  # both keep Python's lock
    c.syscall.restype = ctypes.c_long
    thread, none = ctypes.c_void_p(), ctypes.c_long(0)
    assert c.prctl(GET_TID_ADDRESS, ctypes.byref(thread)) == 0
    flags = ctypes.c_long(SIBLING | SET_TID | CLEAR_TID | signal.SIGCHLD)
    last = (thread, none) if os.uname().machine == "x86_64" else (none, thread)
    python.PyOS_BeforeFork()
    pid = c.syscall(ctypes.c_long(CLONE), flags, none, none, *last)
    python.PyOS_AfterFork_Parent() if pid else python.PyOS_AfterFork_Child()
    return pid


def be_fresh(
    words: list[str],
    cwd: str,
    env: dict[bytes, bytes],
    numbers: list[int],
    blocked: set[int],
    ignored: list[int],
    group: int,
    descriptors: list[int],
) -> NoReturn:
    """Runs `python *words` with these descriptors at these numbers, and ends as an interpreter does."""
    try:
        ctypes.PyDLL(None).prctl(SET_NAME, NAME.encode(), 0, 0, 0)
        if group != -1:
            os.setsid() if group == 0 else os.setpgid(0, group)
        place(descriptors, numbers)
        os.chdir(cwd)
        os.environb.clear()
        os.environb.update(env)
        own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[1:1] = [folder for folder in own if folder and folder not in sys.path]
        forget_the_server()
        share_of_threads()
        install()
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    to_the_end(interpret, words)


def to_the_end(work: Callable[..., int | None], *args: Any) -> NoReturn:
    """Does this work, then ends with the exit code that it returns or raises, as an interpreter does."""
    code = 1
    try:
        code = work(*args)
    except SystemExit as ended:
        code = ended.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            threading._shutdown()
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed, or nobody reads it
                stream.flush()
        os._exit(code or 0)


def place(descriptors: list[int], numbers: list[int]) -> None:
    """Moves the descriptors to these numbers and closes all others."""
    clear = max([*descriptors, *numbers]) + 1
    moved = [os.dup2(descriptor, clear + i) for i, descriptor in enumerate(descriptors)]
    for source, number in zip(moved, numbers, strict=True):
        os.dup2(source, number)
    before = 2
    for number in [*sorted(numbers[3:]), 65536]:
        os.closerange(before + 1, number)
        before = number


def forget_the_server() -> None:
    """What multiprocessing knows in a process that its server has forked."""
    util._finalizer_registry.clear()
    process._current_process, process._parent_process = FIRST, None
    process._children.clear()
    tracker = resource_tracker._resource_tracker
    tracker._fd = tracker._pid = None


def share_of_threads() -> None:
    """torch takes as many threads as when it is imported with these variables."""
    if "torch" in sys.modules:
        cores = len(os.sched_getaffinity(0))
        sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cores))


def interpret(words: list[str]) -> None:
    """Runs `-c <code>`, `-m <module>` or a file."""
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # the module is imported already
    while words[0].startswith("-") and words[0] not in ("-c", "-m"):
        words = words[1:]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(words[1], main.__dict__)
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
