"""Find directions of the latents along which images change most (SeFa), and draw them: from=<run> num=5.

  ganrun directions from=<run>                          directions.png, a row for each, and directions.npz
  ganrun directions from=<run> layers=[0,3] reach=5     of the first four styles, and moving these alone
  ganrun directions from=<run> latents=projected/latents.npz   of an image that ganrun project found

They come from the weights that take the latent: w of style-based generators, else z. The .npz holds directions
(num, numbers of the latent), of length 1, eigenvalues, space and layers. The last line on stdout is the picture.
"""

from omegaconf import DictConfig

from ganrun.commands.directions.request import check
from ganrun.config.hydra_main import refuse_flags, run_hydra
from ganrun.config.places import as_text
from ganrun.signals import terminated


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the picture that was written."""
    args = [as_text(arg) if arg.startswith("label=") else arg for arg in args]  # a class may be named 003 or true
    refuse_flags(args, sweeps=False)
    composed: list[DictConfig] = []
    run_hydra("directions", args, composed.append)
    if not composed:  # Hydra itself answered, as for --cfg job
        return 0
    request = check(composed[0])
    from ganrun.commands.directions.drawing import draw

    with terminated():
        draw(request)
    print(request.out, flush=True)
    return 0
