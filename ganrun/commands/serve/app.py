"""The routes of `ganrun serve`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ganrun import __version__
from ganrun.cli import as_typed
from ganrun.commands.serve.answers import TYPES
from ganrun.commands.serve.batching import Full
from ganrun.commands.serve.guard import Refused, in_time
from ganrun.commands.serve.openapi import ASKED, DESCRIPTION, SAMPLE, TRANSLATE
from ganrun.commands.serve.service import Service
from ganrun.commands.serve.wanted import parsed, wanted
from ganrun.errors import NotFinite, UserError, is_out_of_memory, one_of
from ganrun.sampling.generator import SamplingGenerator

LONGEST = 600  # characters of an error's line
PAGE = {"index.html": "text/html", "docs.html": "text/html", "style.css": "text/css", "page.js": "text/javascript",
        "docs.js": "text/javascript"}  # fmt: skip


def application(service: Service) -> FastAPI:
    """The routes, without their guard."""
    app = FastAPI(
        title="ganrun serve",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    add_errors(app)
    add_pages(app)
    add_images(app, service)
    add_about(app, service)
    return app


def add_about(app: FastAPI, service: Service) -> None:
    """Routes about the server itself."""
    settings = service.settings

    @app.get("/health", summary="Is it up?")
    async def health() -> dict[str, Any]:
        steps = service.live.served.made.trained.get("steps")
        return {"status": "ok", "steps": steps, "queue": service.batcher.waiting}

    @app.get("/generator", summary="What is served, and what can be asked of it")
    async def generator() -> dict[str, Any]:
        limits = {"most": settings.most, "max_bytes": settings.max_bytes, "max_pixels": settings.max_pixels}
        return service.live.served.about() | {"limits": limits}

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        text = await service.do(service.figures.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/reload", summary="Load the newer generator", responses={409: ASKED})
    async def reload() -> dict[str, Any]:
        return await asyncio.to_thread(service.reload)


def add_images(app: FastAPI, service: Service) -> None:
    """Routes that use the network."""
    limits = {"most": service.settings.most, "batch_size": service.settings.batch_size}

    @app.post("/sample", summary="Samples", response_class=Response, openapi_extra=SAMPLE)
    async def sample(request: Request) -> Response:
        refuse_queries(request, ())
        body = parsed(await json_of(request))
        with out_of_memory_told():
            asked = await service.do(lambda: wanted(body, service.live.served, **limits))
            content = await service.do(service.finish, asked, await service.made(asked.jobs))
        note = " ".join("; ".join(asked.notes).split())[:LONGEST].encode("ascii", "replace").decode()
        return Response(content, media_type=TYPES[asked.format], headers={"Ganrun-Note": note} if note else {})

    @app.post("/translate", summary="An image, translated", response_class=Response, openapi_extra=TRANSLATE)
    async def translate(request: Request) -> Response:
        refuse_queries(request, ("direction", "pad"))
        served, translating = service.live.served, service.translating
        if isinstance(served.made, SamplingGenerator):
            raise UserError("this generator makes samples from noise; use POST /sample")
        with translating.room(), out_of_memory_told():
            content = await translating.image_of(request)
            job = await service.do(translating.job, content, served, dict(request.query_params))
            (made,) = await service.made([job])
            content = await service.do(translating.png, made, served)
        service.figures.translations.inc()
        return Response(content, media_type="image/png")


def refuse_queries(request: Request, known: tuple[str, ...]) -> None:
    """Raises UserError for parameters in the URL that nothing reads, or that are given twice."""
    for name in request.query_params:
        if name not in known:
            told = one_of(known, name) if known else "the keys go in the body, as JSON"
            raise UserError(f"?{name}=: there is no such parameter; {told}")
        if len(request.query_params.getlist(name)) > 1:
            raise UserError(f"?{name}=: it is given twice; leave one of them out")


async def json_of(request: Request) -> bytes:
    """A body of JSON. Raises Refused for another type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    content = await in_time(request.body())
    if content and kind != "application/json":
        raise Refused(415, f"Content-Type={kind[:80]!a}; expected application/json")
    return content


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Raises Refused in place of errors that tell of too little memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Refused(413, "so many or such large images need more memory than there is; ask for less") from error


def add_pages(app: FastAPI) -> None:
    """The page with sliders, the API's page, and what they are made of; all from this package, without a network."""

    def add(path: str, name: str) -> None:
        content = (Path(__file__).with_name("page") / name).read_bytes()

        async def page() -> Response:
            return Response(content, media_type=PAGE[name])

        app.add_api_route(path, page, include_in_schema=False, response_class=Response)

    for path, name in {"/": "index.html", "/docs": "docs.html", **{f"/page/{name}": name for name in PAGE}}.items():
        add(path, name)


def add_errors(app: FastAPI) -> None:
    """Every error is one line: what was got, what was expected, the valid choices."""

    def line(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
        text = as_typed(" ".join(text.encode("utf-8", "replace").decode().split()))
        told = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
        return JSONResponse({"detail": told}, status, headers)

    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        paths = [route.path for route in app.routes if not route.path.startswith("/page/")]
        if error.status_code == 404:
            return line(404, f"{request.url.path[:80]}: there is no such path; {one_of(paths, request.url.path[:80])}")
        told = f"{request.method} {request.url.path[:80]}: {error.detail}" if error.status_code == 405 else error.detail
        return line(error.status_code, str(told), error.headers)

    async def mistaken(request: Request, error: UserError) -> JSONResponse:
        return line(422, str(error))

    async def refused(request: Request, error: Refused) -> JSONResponse:
        return line(error.status, error.detail, error.headers)

    async def full(request: Request, error: Full) -> JSONResponse:
        return line(429, str(error), {"Retry-After": str(error.seconds)})

    handlers = {HTTPException: unknown, UserError: mistaken, NotFinite: mistaken, Refused: refused, Full: full}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
