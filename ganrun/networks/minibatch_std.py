"""Minibatch standard deviation: Karras et al. 2018, arXiv 1710.10196, section 3; in groups, as in StyleGAN2's code."""

import torch
from torch import Tensor

from ganrun.game import at_least_float32


def minibatch_std(x: Tensor, group: int) -> Tensor:
    """x (batch, C, H, W) -> (batch, C + 1, H, W): further, how much a sample's group varies, the same at each position.

    The standard deviation over the group at each position and channel, averaged over these. Sample i is in a group
    with i + n, i + 2n, ... where there are n groups. A group has `group` samples, or the most below that divide the
    batch.
    """
    size = next(size for size in range(min(group, len(x)), 0, -1) if len(x) % size == 0)
    groups = at_least_float32(x).unflatten(0, (size, -1))  # (size, groups, C, H, W)
    std = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # (groups,)
    return torch.cat([x, std.to(x.dtype).repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)
