"""Does a generator repeat its training images?"""

from torch import Tensor

from ganrun.errors import UserError
from ganrun.metrics.distances import nearest
from ganrun.metrics.metric import OfKept, Score, Setting
from ganrun.metrics.precision_recall import Neighbours


def memorised(real: Tensor, real_radii: Tensor, fake: Tensor) -> Tensor:
    """(num_fake,) is each fake at least as near to its nearest real as that real is to its nearest other real?

    One minus authenticity: Alaa et al. 2022, arXiv 2102.08921, section 3.3. real (n, F), real_radii (n,), fake (m, F).
    """
    distances, indices = nearest(fake, real, 1)
    return distances[:, 0] <= real_radii[indices[:, 0]]


def exact_radii(features: Tensor, k: int) -> Tensor:
    """(num,) distance of each sample to its k-th nearest neighbour, without itself, exact even among near copies."""
    return nearest(features, features, k + 1)[0][:, -1]


class Memorisation(OfKept):
    """Share of samples that are nearer to a training image than that image is to any other: 1 for copies.

    It needs all reals: a copy of one that is left out is near none. Unseen real data do not score 0, and their score
    depends on the data (Gaussians score 0.66 in one dimension, 0.13 in a hundred). So compare with the score of the
    data's test split.
    """

    needs_all_reals = True

    def check(self, setting: Setting) -> None:
        if setting.num_real < 2:
            raise UserError(f"metric=memorisation: {setting.num_real} reals have no neighbours; {setting.more()}")

    def summary(self):
        return Neighbours(self.max_samples, 1, exact_radii)

    def score(self, real, fake):
        return Score(float(memorised(real.values, real.radii, fake.values).double().mean()))
