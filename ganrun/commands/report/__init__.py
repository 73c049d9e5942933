"""Look at runs: one HTML page with a table, curves, pictures, neighbours and commands; of=<run or sweep>.

  ganrun report of=sweep                                        report.html, which opens anywhere, without a network
  ganrun report of=[<run>,<run>] out=two.html neighbours=null   two runs side by side, without their training images
  ganrun report of=<run> watch=true every=5                     written anew every 5 s while the run goes on

The last line on stdout is the path of the page.
"""

from ganrun.commands.report.request import check_report
from ganrun.config.hydra_main import composed
from ganrun.signals import terminated


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the path of the page."""
    cfg = composed("report", args)
    if cfg is None:
        return 0
    request = check_report(cfg)
    from ganrun.commands.report.writing import report

    with terminated():
        code = report(request)
    print(request.out, flush=True)
    return code
