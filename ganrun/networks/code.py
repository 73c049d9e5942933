"""InfoGAN's head: the discriminator also tells which code a fake was made from."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ganrun.errors import UserError, require
from ganrun.game import Verdict
from ganrun.networks.heads import Changed

SLOPE = 0.1  # of LeakyReLU; appendix C.1


class Code(Changed):
    """Q(c | x) on the discriminator's features: Chen et al. 2016, arXiv 1606.03657, section 5 and appendix C.1.

    Adds to the verdict `code` (batch, sum of categorical + 2 * continuous): the logits of each categorical code, then
    the means and the logarithms of the standard deviations of the continuous ones.

    categorical: values of each categorical code. continuous: how many codes in [-1, 1].
    hidden: numbers between features and code; theirs also have batch norm. learn_std: False = deviations of 1, as in
    the authors' code.
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        categorical: Sequence[int] | None,
        continuous: int | None,
        hidden: int = 128,
        learn_std: bool = False,
    ):
        super().__init__(head)
        require(1, hidden=hidden)
        if categorical is None or continuous is None:
            raise UserError("head.code: this noise has no code; expected noise=codes")
        self.continuous = continuous
        self.hidden = nn.Linear(self.in_features, hidden)
        self.code = nn.Linear(hidden, sum(categorical) + continuous * (2 if learn_std else 1))
        self.learn_std = learn_std

    def forward(self, features: Tensor, label: Tensor | None = None) -> Verdict:
        code = self.code(leaky_relu(self.hidden(features), SLOPE))
        if not self.learn_std:
            code = torch.cat([code, code.new_zeros(len(code), self.continuous)], 1)
        return self.head(features, label)._replace(code=code)
