"""Style-based generators: what all of them have, style mixing, and truncation in w."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganrun.errors import UserError


class StyleBased(nn.Module):
    """A generator that maps noise z to w, from which each of its layers gets a style.

    Karras et al. 2019, arXiv 1812.04948, section 2. A subclass calls this constructor first, then sets or defines

    mapping:   (z (batch, z_dim), condition or None) -> w (batch, w_dim)
    synthesis: styles (batch, num_styles, w_dim) -> (batch, C, H, W)

    mixing: probability with which, in training, a sample's styles come from a second z from a random crossover on
    (section 3.1 there; 0.9 in StyleGAN2; 0 = off). It is drawn for each sample, as the paper says; the authors' code
    draws once a batch. The second z is drawn from N(0, I). w_decay: weight of the old w_mean, the moving average of w,
    in each forward pass in training. Processes take the mean of theirs; with micro_batch it takes a step a pass.

    Example:
        styles = generator.styles(z)  # (batch, num_styles, w_dim), mixed in training
        images = generator.synthesis(generator.truncated(styles, 0.7))
    """

    mapping: Callable[[Tensor, Tensor | None], Tensor]
    synthesis: Callable[[Tensor], Tensor]
    w_mean: Tensor

    def __init__(self, w_dim: int, num_styles: int, *, mixing: float = 0.0, w_decay: float = 0.995):
        super().__init__()
        for name, value in {"mixing": mixing, "w_decay": w_decay}.items():
            if not 0 <= value <= 1:
                raise UserError(f"{name}={value}; expected 0 to 1")
        self.num_styles, self.mixing, self.w_decay = num_styles, mixing, w_decay
        self.register_buffer("w_mean", torch.zeros(w_dim))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """(batch, z_dim), (batch, ...) -> (batch, C, H, W)"""
        return self.synthesis(self.styles(z, condition))

    def styles(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """(batch, z_dim) -> (batch, num_styles, w_dim); in training mixed, and w_mean follows."""
        w = self.mapping(z, condition)
        styles = w[:, None].expand(-1, self.num_styles, -1)
        if not self.training:
            return styles
        with torch.no_grad():
            self.w_mean.lerp_(w.to(self.w_mean.dtype).mean(0), 1 - self.w_decay)
        if self.mixing == 0 or self.num_styles == 1:
            return styles
        second = self.mapping(torch.randn_like(z), condition)[:, None]
        return torch.where(self._first(len(z), z.device)[..., None], styles, second)

    def style_weights(self) -> list[Tensor]:
        """For each style the weights (outputs, w_dim) of all layers that take it, stacked; for SeFa's directions."""
        raise UserError(f"{type(self).__name__} does not say which weights take its styles; expected style_weights()")

    def _first(self, num: int, device: torch.device) -> Tensor:
        """(num, num_styles) bool: which styles come from the first z."""
        crossover = torch.randint(1, self.num_styles, (num, 1), device=device)
        mixes = torch.rand(num, 1, device=device) < self.mixing
        return ~mixes | (torch.arange(self.num_styles, device=device) < crossover)

    def truncated(self, styles: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """w_mean + psi (w - w_mean) of the first `cutoff` styles, None = of all: Karras et al. 2019, appendix B.

        styles: (batch, num_styles, w_dim). psi: 1 = as they are, 0 = the mean, above 1 further away from it.
        """
        cutoff = self.num_styles if cutoff is None else cutoff
        return torch.cat([self.w_mean.lerp(styles[:, :cutoff], psi), styles[:, cutoff:]], 1)


def style_based(network: nn.Module, asks: str, instead: str) -> StyleBased:
    """The network, as what it is. asks: the setting that needs it. instead: what to do without.

    Raises UserError for a generator that is not style-based.
    """
    if not isinstance(network, StyleBased):
        kind = f"{type(network).__module__.rpartition('.')[2]}.{type(network).__name__}"
        raise UserError(f"{asks}: it needs a style-based generator, such as StyleGAN2's, and this is {kind}; {instead}")
    return network
