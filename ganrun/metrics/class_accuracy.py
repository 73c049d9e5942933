"""Does a conditional generator make what it was asked for?"""

from ganrun.errors import UserError
from ganrun.metrics.metric import FOR_LABELS, Metric, Score, Setting
from ganrun.metrics.summaries import Agreement


class ClassAccuracy(Metric):
    """Share of samples that a classifier trained on real data assigns to the class that they were made for.

    Ravuri and Vinyals 2019, arXiv 1905.10887, with training and test data swapped ("GAN-test" in
    Shmelkov et al. 2018, arXiv 1807.09499).
    """

    lower_is_better = False
    needs_real = False

    def check(self, setting: Setting) -> None:
        if not setting.conditional:
            raise UserError(f"metric=class-accuracy: {FOR_LABELS}")

    def prepare(self, setting: Setting) -> None:
        super().prepare(setting)
        if self.features.classifies != setting.data.num_classes:
            raise UserError(
                "metric=class-accuracy: it needs metric/features=classifier, trained on the data set's labels"
            )

    def summary(self):
        return Agreement()

    def score(self, real, fake):
        return Score(fake.right / fake.num)
