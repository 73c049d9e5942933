"""Find the latents with which a generator reproduces given images: from=<run> input=<images>.

  ganrun project from=<run> input=photos out=projected          each image of a folder or .zip
  ganrun project from=<run> input=photo.png space=w+            a style for each layer, which comes nearer
  ganrun sample from=<run> latents=projected/latents.npz        the same images again
  ganrun sample from=<run> latents=projected/latents.npz interpolate=4 out=walk.mp4   a walk between them

The folder then holds latents.npz, found/ with each reconstruction and beside/ with a picture of both, under the image's
name. The table shows the distance before and after: the mean squared error of pixels in [-1, 1], plus that of frozen
features. Images that cannot be projected are listed, and the exit code is then 1. The last line on stdout is the
folder.
"""

import sys

from ganrun.commands.project.request import check
from ganrun.config.hydra_main import composed
from ganrun.signals import terminated


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the folder that was written."""
    cfg = composed("project", args)
    if cfg is None:
        return 0
    request = check(cfg)
    from ganrun.commands.project.projecting import projecting

    with terminated():
        faults = projecting(request)
    for name, reason in faults.items():
        print(f"not projected: {name}: {reason}", file=sys.stderr)
    print(request.out, flush=True)
    return 1 if faults else 0
