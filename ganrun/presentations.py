"""Presentations: which reals and fakes a discriminator is shown in its own move."""

import torch
from torch import Tensor

from ganrun.adaptive import Adaptive
from ganrun.errors import require
from ganrun.game import PerRank


class ImagePool(PerRank):
    """Half of the fakes are earlier ones, from a pool of `size`: Shrivastava et al. 2017, arXiv 1612.07828, sec. 2.3.

    As in CycleGAN: until the pool is full, each fake enters it and is shown. Then, with probability 1/2, a fake
    replaces a random one of the pool, which is shown instead. Images are (channels, *resolution). Each process has a
    pool of its own, and checkpoints hold them all. Nothing is read to the host.

    Example:
        pool = ImagePool(channels=3, resolution=32, size=50)
        real, shown = pool(real, fake)  # the same reals; fakes (batch, 3, 32, 32), some of them earlier ones
    """

    def __init__(self, channels: int, resolution: int | list[int], size: int = 50):
        super().__init__()
        require(1, size=size)
        self.size = size
        side = [resolution] * 2 if isinstance(resolution, int) else list(resolution)
        self.register_buffer("images", torch.zeros(size, channels, *side))
        self.register_buffer("num", torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def forward(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, C, H, W) both -> the same reals, and the fakes that are shown."""
        draws = torch.randint(self.size, (len(fake),), device=fake.device)
        swaps = torch.rand(len(fake), device=fake.device) < 0.5
        shown = []
        for image, draw, swap in zip(fake.to(self.images.dtype), draws, swaps, strict=True):
            full = self.num >= self.size
            place = torch.where(full, draw, self.num)
            earlier = self.images[place][0]
            shown.append(torch.where(full & swap, earlier, image))
            self.images[place] = torch.where(full & ~swap, earlier, image)
            self.num += ~full
        return real, torch.stack(shown).to(fake.dtype)


class PseudoAugmentation(Adaptive):
    """APA: each real is replaced by a fake with probability p, which adapts: Jiang et al. 2021, arXiv 2111.06849.

    The fake is the one that is shown at the same place of the batch, and so has the real's label. The authors take one
    of the latest move of the generator, with another label; the expected loss is the same. Images that replace reals
    count as reals for p too. p, start, target, over, every: see Adaptive.

    Example:
        deceive = PseudoAugmentation(p=0.2)
        shown, fake = deceive(real, fake)  # a fifth of `shown` are fakes
    """

    def forward(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, ...) both -> what is shown as real, and the same fakes."""
        replaces = torch.rand(len(real), device=real.device) < self.probability
        shape = (-1, *[1] * (real.dim() - 1))
        return torch.where(replaces.view(shape), fake.detach().to(real.dtype), real), fake
