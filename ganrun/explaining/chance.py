"""The loss of a discriminator that cannot tell: both its logits lie where the loss is undecided."""

import math
from typing import Any

LOG_2 = math.log(2)
SATURATING = ("Minimax", "DualContrastive")  # losses of whose generator no gradient is left where D is sure
DIFFERENCES = ("Wasserstein", "RelativisticPairing", "RelativisticAverage", "DualContrastive")  # logits have no zero


def loss_name(node: dict[str, Any]) -> str:
    """The class of a loss's node; empty for one that is not ganrun's."""
    module, _, name = str(node.get("_target_", "")).rpartition(".")
    return name if module == "ganrun.losses" else ""


def chance(node: dict[str, Any], rows: int = 1) -> float | None:
    """The discriminator's loss at chance; None if it says nothing (Wasserstein: any loss is possible) or is unknown.

    Logistic losses: two cross-entropies of log 2 (Goodfellow et al. 2014, section 4.1), a pair has one. Hinge: both
    margins. Least squares: both logits half-way between 0 and the target b, 2 (b/2)^2 / 2 (Mao et al. 2017, eq. 9).
    Dual contrastive: one among rows + 1, twice (Yu et al. 2021, eq. 3 and 4).

    rows: reals, and fakes, of a pass
    """
    target = 1 - float(node.get("smoothing", 0.0))
    margin = node.get("margin", 1.0)
    low, high = margin if isinstance(margin, list) else (margin, margin)
    by_name = {
        "NonSaturating": 2 * LOG_2, "Minimax": 2 * LOG_2, "Hinge": low + high, "LeastSquares": target**2 / 4,
        "LeastSquaresOfCycleGAN": target**2 / 4, "RelativisticPairing": LOG_2, "RelativisticAverage": 2 * LOG_2,
        "DualContrastive": 2 * math.log(1 + rows),
    }  # fmt: skip
    found = by_name.get(loss_name(node))
    return None if found is None else found * float(node.get("discriminator_factor", 1.0))
