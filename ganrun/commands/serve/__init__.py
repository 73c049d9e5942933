"""Answer HTTP requests for samples or translations, with a web page and metrics.

  ganrun serve from=<run>                                       prints its URL: a page with sliders, /docs, /metrics
  curl -d '{"seed": 3, "num": 16, "format": "grid"}' -H 'Content-Type: application/json' localhost:8000/sample -o x.png
  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8000/translate -o painting.png
  GANRUN_TOKEN=<secret> ganrun serve from=<run> host=0.0.0.0    for other machines, which must send the token

Sample i depends only on the seed and on i, as in `ganrun sample`, whichever requests share a forward pass. SIGHUP or
POST /reload loads a newer generator without dropping a request, watch=10 looks for one every 10 seconds; a damaged one
is refused, and the old one stays. SIGTERM and Ctrl-C answer what has come in, then end with exit code 0. There is no
TLS: put a proxy that has it in front, or use the token in a trusted network only. The last line on stdout is the URL.
"""

from ganrun.commands.serve.settings import check_serve
from ganrun.config.hydra_main import composed
from ganrun.errors import require_extra


def run(args: list[str]) -> int:
    """Serves until a signal ends it; returns the exit code."""
    cfg = composed("serve", args)
    if cfg is None:
        return 0
    require_extra("ganrun serve", "serve", "fastapi", "uvicorn", "prometheus_client", "python_multipart")
    settings = check_serve(cfg)
    from ganrun.commands.serve.server import serve

    serve(settings)
    return 0
