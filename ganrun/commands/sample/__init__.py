"""Draw from a trained generator: image files, arrays, a grid, an interpolation, nearest training images.

  ganrun sample from=<run>                                      one picture, samples.png
  ganrun sample from=<run> num=50000 out=samples.npz            arrays for an evaluator; also .npy
  ganrun sample from=<run> num=1000 out=samples                 PNGs, in class folders if conditional; also out=x.zip
  ganrun sample from=<run>/best.safetensors label=3 truncation=0.7 standing=16
  ganrun sample from=<run> label="age=31,smiling=1"             of attributes; one without a value: a column for each
  ganrun sample from=<run> label=c1                             of InfoGAN's codes: a column for each value of the first
  ganrun sample from=<run> interpolate=8 out=walk.mp4           also walk.gif; walk.png has a row for each way
  ganrun sample from=<run> latents=projected/latents.npz        what ganrun project found; with interpolate= a walk
  ganrun sample from=<run> neighbours=5                         beside each sample its nearest training images

The run's directory is needed only for neighbours=; otherwise generator.safetensors and generator.yaml are enough. The
last line on stdout is the path that was written.
"""

from ganrun.commands.sample.request import check_sample
from ganrun.config.hydra_main import composed
from ganrun.signals import terminated


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the path that was written."""
    cfg = composed("sample", args)
    if cfg is None:
        return 0
    request = check_sample(cfg)
    from ganrun.commands.sample.draw import draw

    with terminated():
        draw(request)
    print(request.out, flush=True)
    return 0
