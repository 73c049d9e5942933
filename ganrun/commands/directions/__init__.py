"""Find directions of the latents along which images change most (SeFa), and draw them: from=<run> num=5.

  ganrun directions from=<run>                          directions.png, a row for each, and directions.npz
  ganrun directions from=<run> layers=[0,3] reach=5     of the first four styles, and moving these alone
  ganrun directions from=<run> latents=projected/latents.npz   of an image that ganrun project found

They come from the weights that take the latent: w of style-based generators, else z. The .npz holds directions
(num, numbers of the latent), of length 1, eigenvalues, space and layers. The last line on stdout is the picture.
"""

from ganrun.commands.directions.request import check
from ganrun.config.hydra_main import composed
from ganrun.signals import terminated


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the picture that was written."""
    cfg = composed("directions", args)
    if cfg is None:
        return 0
    request = check(cfg)
    from ganrun.commands.directions.drawing import draw

    with terminated():
        draw(request)
    print(request.out, flush=True)
    return 0
