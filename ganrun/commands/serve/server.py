"""Listens, and ends or reloads at a signal without dropping a request."""

import asyncio
import ctypes
import logging
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from ganrun.commands.serve.app import application
from ganrun.commands.serve.guard import Guard, Refused
from ganrun.commands.serve.service import Service
from ganrun.commands.serve.settings import Settings
from ganrun.data.formats import quiet
from ganrun.errors import UserError
from ganrun.signals import name

LINGER = 0.5  # seconds in which open connections may still ask, after the end was announced
LAST = 30  # seconds for what is being answered at the end
KEPT = 75  # seconds that an idle connection stays open
BACKLOG = 2048
ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux
DROP = struct.pack("HBBI", 0x06, 0, 0, 0)  # a packet filter's only instruction: return 0, drop


def serve(settings: Settings) -> None:
    """Until a signal ends it. Raises UserError for a generator or an address that cannot be used."""
    with listening(settings.host, settings.port) as listener:
        service = Service(settings)
        app = application(service)
        guard = Guard(app, figures=service.figures, settings=settings)
        guard.routes = {route.path for route in app.routes}
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what clients get wrong is theirs to know
        config = uvicorn.Config(
            guard, log_config=None, access_log=False, lifespan="off", ws="none", http="h11", loop="asyncio",
            timeout_keep_alive=KEPT, timeout_graceful_shutdown=LAST, backlog=BACKLOG, server_header=False,
            proxy_headers=False,
        )  # fmt: skip
        try:
            with quiet(settings.max_pixels):
                asyncio.run(Server(config, service, guard, listener).serve([listener]))
        finally:
            service.close()


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket, closed at the end. Raises UserError for an address that is taken, or not this machine's."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        raise UserError(f"host={host}: {getattr(error, 'strerror', None) or error}; expected an address") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            told = f"cannot listen there: {error.strerror}; port=0 picks a free one"
            raise UserError(f"host={host} port={port}: {told}") from error
        listener.setblocking(False)
        yield listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's, with other signals and a gentler end."""

    def __init__(self, config: uvicorn.Config, service: Service, guard: Guard, listener: socket.socket):
        super().__init__(config)
        self.service, self.guard, self.listener = service, guard, listener
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # by nohup
            loop.add_signal_handler(signal.SIGHUP, lambda: self._start(self._reload()))
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.service.settings.watch is not None:
            self._start(self._watch(self.service.settings.watch))
        print(url_of(self.listener), flush=True)

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, number: int) -> None:
        if self.guard.ending:  # asked once more
            self.should_exit = self.force_exit = True
            return
        print(f"ganrun: {name(number)}: answering what has come in, then ending", file=sys.stderr, flush=True)
        self.guard.ending = True
        self._start(self._drain())

    async def _drain(self) -> None:
        """Accepts whoever has connected, and nobody after; then lets open connections ask once more."""
        refuse_new(self.listener)
        for _ in range(3):  # turns of the loop, each of which accepts all that wait
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        await asyncio.sleep(LINGER)
        self.should_exit = True

    async def _reload(self) -> None:
        with suppress(Refused):  # which has been told
            await asyncio.to_thread(self.service.reload)

    async def _watch(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            with suppress(UserError, OSError):  # gone for a moment
                if await asyncio.to_thread(self.service.live.is_newer):
                    await self._reload()


def refuse_new(listener: socket.socket) -> None:
    """From now on nobody connects; those who have wait to be accepted. Linux alone can; closing would reset them."""
    if sys.platform == "linux":
        code = ctypes.create_string_buffer(DROP, len(DROP))
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))
