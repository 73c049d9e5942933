"""Several processes for Lightning, without torch's wrapper around the module."""

import torch
from pytorch_lightning.strategies import DDPStrategy


class EachPlayer(DDPStrategy):
    """All processes start with the weights of the first one; the module averages each player's gradients itself."""

    def configure_ddp(self) -> None:
        for name, tensor in self.model.state_dict().items():
            if name not in self.model.per_rank:
                torch.distributed.broadcast(tensor, 0)


STRATEGIES = {"data-parallel": EachPlayer}
