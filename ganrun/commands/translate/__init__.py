"""Turn images into images with a trained translator: every file of a folder or .zip, names and sizes kept.

  ganrun translate from=<run> input=photos out=translated       a PNG for each image
  ganrun translate from=<run> input=photo.jpg out=painting.png  one image
  ganrun translate from=<run> input=photos.zip direction=b2a    the other way, where there are two

The run's directory is not needed: generator.safetensors and generator.yaml are enough. Images may have any size: if the
network needs multiples of some number of pixels, they are continued by reflection at the right and at the bottom, and
the outputs are cut back (pad=false: such files are not translated). Files that cannot be translated are listed, and the
exit code is then 1. The last line on stdout is the path that was written.
"""

import sys

from ganrun.commands.sample.request import check_translate
from ganrun.config.hydra_main import composed
from ganrun.signals import terminated


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the path that was written."""
    cfg = composed("translate", args)
    if cfg is None:
        return 0
    request = check_translate(cfg)
    from ganrun.commands.translate.images import translate

    with terminated():
        faults = translate(request)
    for name, reason in faults.items():
        print(f"not translated: {name}: {reason}", file=sys.stderr)
    print(request.out, flush=True)
    return 1 if faults else 0
