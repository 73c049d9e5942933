"""Spectral normalisation: weights divided by their largest singular value (Miyato et al. 2018, arXiv 1802.05957)."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)


class _InFloat32(_SpectralNorm):
    """torch's own parametrization, outside of autocast: three digits of a singular value would be too few."""

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return self._compiled(weight) if torch.compiler.is_compiling() else super().forward(weight)

    def _compiled(self, weight: Tensor) -> Tensor:
        """The same. A compiler drops torch's copies of u and v, which the next pass would change before backward."""
        matrix = self._reshape_weight_to_matrix(weight)
        if self.training:
            self._power_method(matrix, self.n_power_iterations)
        u, v = copied(self._u, self._v).split([len(self._u), len(self._v)])
        return weight / torch.vdot(u, torch.mv(matrix, v))


@torch.library.custom_op("ganrun::copied", mutates_args=())
def copied(u: Tensor, v: Tensor) -> Tensor:
    """(m,), (n,) -> (m + n,): in memory of its own, also where the code is compiled."""
    return torch.cat([u, v])


@copied.register_fake
def _(u: Tensor, v: Tensor) -> Tensor:
    return torch.cat([u, v])


def spectral_normalise(network: nn.Module, *, without: nn.Module | None = None, eps: float = 1e-6) -> None:
    """Divides the weight of each convolution, linear layer and embedding by an estimate of its largest singular value.

    One step of the power method a forward pass in training, none in eval mode. without: a layer that is left as it is.
    eps: keeps norms above zero.
    Initialise the weights first: the estimate starts from them.
    """
    for module in [m for m in network.modules() if isinstance(m, WEIGHTED) and m is not without]:
        dim = 1 if isinstance(module, nn.ConvTranspose2d) else 0  # of the outputs
        register_parametrization(module, "weight", _InFloat32(module.weight, 1, dim, eps))
