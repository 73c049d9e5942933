"""Does the discriminator tell the classes of images that it has never seen?"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from ganrun.data.base import Data
from ganrun.errors import UserError
from ganrun.metrics.features import Seen
from ganrun.metrics.metric import Metric, Score, Setting
from ganrun.metrics.summaries import Agreement


class TestAccuracy(Metric):
    """Share of the test split's images to whose class the discriminator gives the largest logit, 0 to 1.

    The reported measure of semi-supervised learning, as in Salimans et al. 2016, arXiv 1606.03498, table 1 (errors).
    It scores the discriminator's own weights, in eval mode, and makes no fakes.
    """

    __test__ = False  # no test of pytest's
    lower_is_better = False
    needs_real = False
    of_discriminator = True
    _test: Data | None = None

    def check(self, setting: Setting) -> None:
        data = setting.data
        if not setting.discriminates:
            raise UserError("metric=test-accuracy: it scores a discriminator, in training; leave it out")
        if data.class_labels is None:
            raise UserError(f"metric=test-accuracy: dataset {data.name} has no classes")
        self._test = self._test or data.held_out()
        if self._test is None:
            raise UserError(f"metric=test-accuracy: dataset {data.name} has no test split")
        if self._test.classes != data.classes:
            raise UserError(f"metric=test-accuracy: the test split of dataset {data.name} has other classes")

    def seen(self, classify: Callable[[Tensor], Tensor]) -> Iterator[Seen]:
        """The logits of all test images, with their labels."""
        for batch in self._test.shuffled(len(self._test)):
            logits = classify(self._test.to_range(batch["real"]))
            yield Seen(batch["real"], logits[:, : len(self._test.classes)], batch["label"])

    def summary(self):
        return Agreement()

    def score(self, real, fake):
        return Score(fake.right / fake.num)

    @property
    def protocol(self) -> dict[str, Any]:
        test = self._test
        values = f"{test.depth} bit" if len(test.shape) == 3 else "float"
        about = {"dataset": test.name, "data": test.identity, **test.described, "split": "test data"}
        return {
            "features": "classes of the discriminator",
            **about,
            "num_real": len(test),
            "num_fake": 0,
            "values": values,
        }
