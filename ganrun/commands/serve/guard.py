"""What stands before every route: who may ask, from which page, and how much; and how requests are counted."""

import asyncio
import hmac
import json
import re
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect

from ganrun.commands.serve.figures import Figures
from ganrun.commands.serve.settings import TOKEN, Settings

LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]")
IDLE = 30.0  # seconds that a body may pause
Scope, Receive, Send = dict[str, Any], Callable[[], Any], Callable[[dict[str, Any]], Any]
SECURE = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'",
    ),
]


class Refused(Exception):
    """A request that is answered with this status and line."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}


class Guard:
    """ASGI middleware. ending: will the server end soon?

    Other pages in the user's browser must not use it: a server for this machine alone answers only names of this
    machine (DNS rebinding), and a request that a page sends must come from a page of the server's own.
    """

    def __init__(self, app: Any, *, figures: Figures, settings: Settings):
        self.app, self.figures, self.local, self.host = app, figures, settings.local, settings.host.lower()
        self.token, self.max_bytes = settings.token, settings.max_bytes
        self.ending = False
        self.routes: set[str] = set()  # by which requests are counted; others are "other"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began, status = time.monotonic(), 500
        route = scope["path"] if scope["path"] in self.routes else "other"

        async def sending(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = [(b"connection", b"close")] if self.ending else []
                message = message | {"headers": [*message.get("headers", []), *SECURE, *closing]}
            await send(message)

        try:
            self._check({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}, scope)
        except Refused as refused:
            await answer(sending, refused)
        else:
            await self.app(scope, self._bounded(receive), sending)
        finally:
            self.figures.requests.labels(route, status).inc()
            self.figures.seconds.labels(route).observe(time.monotonic() - began)

    def _check(self, headers: dict[str, str], scope: Scope) -> None:
        """Raises Refused."""
        host = headers.get("host", "")
        name = re.sub(r":\d*$", "", host).lower()
        if self.local and not (LOOPBACK.fullmatch(name) or name == self.host):
            raise Refused(
                403, f"Host={shown(host)}: this server is for its own machine; expected 127.0.0.1 or localhost"
            )
        if self.token is not None and not self._is_known(headers.get("authorization", "")):
            told = f"expected the header `Authorization: Bearer <token>` with the token in the server's {TOKEN}"
            raise Refused(401, told, {"WWW-Authenticate": 'Bearer, Basic realm="ganrun", charset="UTF-8"'})
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is not None and re.sub(r"^https?://", "", origin.lower()) != host.lower():
            raise Refused(403, f"Origin={shown(origin)}: a page of another site; expected http://{shown(host)}")
        if scope["method"] not in ("GET", "HEAD") and site not in ("same-origin", "none"):
            raise Refused(403, f"Sec-Fetch-Site={shown(site)}: a page of another site; expected same-origin")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.max_bytes:
            raise self._too_large()

    def _is_known(self, given: str) -> bool:
        """Bearer, or Basic with any user's name, which browsers ask for. Takes as long whatever is wrong."""
        scheme, _, secret = given.strip().partition(" ")
        if scheme.lower() == "basic":
            with suppress(ValueError):
                secret = b64decode(secret.strip(), validate=True).decode("latin-1").partition(":")[2]
        known = hmac.compare_digest(secret.strip().encode("latin-1", "replace"), self.token.encode())
        return known and scheme.lower() in ("bearer", "basic")

    def _bounded(self, receive: Receive) -> Receive:
        """The same body; raises Refused once it is too large, or does not go on."""
        had = 0

        async def receiving() -> dict[str, Any]:
            nonlocal had
            message = await receive()
            had += len(message.get("body", b""))
            if had > self.max_bytes:
                raise self._too_large()
            return message

        return receiving

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is too large; expected at most {self.max_bytes:,} bytes")


async def in_time(reading: Any) -> Any:
    """The result of reading a body. Raises Refused if that takes too long, or the client goes away."""
    try:
        return await asyncio.wait_for(reading, IDLE)
    except asyncio.TimeoutError as error:
        raise Refused(408, f"the body has not come within {IDLE:.0f} s") from error
    except ClientDisconnect as error:  # nobody will read this
        raise Refused(400, "the connection was closed before the end of the body") from error


def shown(text: str) -> str:
    """A header's value, short and plain."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:80]


async def answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"detail": refused.detail}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
