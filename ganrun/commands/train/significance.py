"""Do the two best settings differ, or is it the seed? Told with the number of seeds that it rests on."""

from collections.abc import Sequence

DRAWS = 10_000  # of the bootstrap


def verdict(score: str, best: tuple[str, Sequence[float]], second: tuple[str, Sequence[float]]) -> str:
    """One line by Welch's t-test and by a bootstrap over seeds, both two-sided at 5 %.

    best, second: the name of a setting, and a score for each seed
    """
    import numpy as np
    from scipy.stats import ttest_ind

    one, other = np.asarray(best[1]), np.asarray(second[1])
    names, n = f"{best[0]} and {second[0]}", f"n = {len(one)} and {len(other)}"
    if min(len(one), len(other)) < 2:
        return f"{score}: one seed cannot tell whether {names} differ ({n})"
    if one.std() == other.std() == 0:
        return f"{score}: {names} differ by {one.mean() - other.mean():.3g} without any spread over seeds ({n})"
    welch = ttest_ind(one, other, equal_var=False)
    rng = np.random.default_rng(0)
    means = [rng.choice(values, (DRAWS, len(values))).mean(1) for values in (one, other)]
    low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
    differ = "differ" if welch.pvalue < 0.05 and low * high > 0 else "cannot be told apart"
    return (
        f"{score}: {names} {differ}: {one.mean() - other.mean():.3g}, Welch's t = {welch.statistic:.2f}, "
        f"p = {welch.pvalue:.2g}, bootstrap 95 % interval {low:.3g} to {high:.3g} ({n})"
    )
