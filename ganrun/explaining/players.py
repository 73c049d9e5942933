"""Rules about the players: which of them leads, has the discriminator won, does the generator still get a gradient."""

from collections.abc import Iterator
from statistics import median

from ganrun.collapse.alarms import LEAST_LOSS, is_saturated
from ganrun.explaining.chance import DIFFERENCES, SATURATING, loss_name
from ganrun.explaining.course import Course, Game, Series
from ganrun.explaining.finding import Finding, number
from ganrun.explaining.proposals import again, rate, slower, with_penalty
from ganrun.explaining.statistics import blocks, last

END = 0.2  # of the steps, over which medians say where the players stand now
LEADS = 0.25  # of the loss at chance: below it the discriminator leads
EVEN = 0.9  # of the loss at chance: above it the discriminator can hardly tell
VANISHED = 1e-3  # of the generator's largest gradient norm
GROWN = {"weight_norm": 2.0, "gradient_norm": 1000.0}  # factors from the middle of a run to its end
LARGE = 1000.0  # mean logits of that size belong to no working discriminator


def end(series: Series) -> float:
    """The median over the last END of the steps."""
    return median(series.values[last(series.steps, END, 1) :])


def below(series: Series, limit: float) -> int:
    """The step from which a series stays below a limit, but for one value in ten; that of END at the latest."""
    late = last(series.steps, END, 1)
    under = [value < limit for value in series.values]
    shares = (sum(under[i:]) / (len(under) - i) for i in range(late))
    first = next((i for i, share in enumerate(shares) if under[i] and share >= 0.9), late)
    return series.steps[first]


def lead(course: Course) -> Iterator[Finding]:
    """Which player leads: the discriminator's loss beside its value at chance (Goodfellow et al. 2014, proposition 1:
    where fakes and reals cannot be told apart it is at chance), and the mean logits of both sides.

    LEADS and EVEN only choose the words, see .github/measurements.md. A sure discriminator leaves the generator little
    to learn from (Arjovsky and Bottou 2017, arXiv 1701.04862, section 2); LEAST_LOSS is the watch's own limit.
    """
    for game in course.games:
        loss = course.series(f"{game.player}/adversarial{game.suffix}")
        if len(loss.steps) < 2:
            continue
        sides = logits(course, game)
        if not course.chance:
            yield distance(course, game, sides)
            continue
        share = end(loss) / course.chance
        told = f"the {game.name}'s loss is {share:.2g} of its value at chance ({number(course.chance)}); {sides}"
        about = (loss.steps[last(loss.steps, END, 1)], loss.steps[-1])
        if is_saturated(share, 1.0):
            text = f"The discriminator has won: {told}. Below {LEAST_LOSS} the generator has little left to learn from."
            since = below(loss, LEAST_LOSS * course.chance)
            yield Finding("discriminator-sure", text, weaker(course, game), (since, loss.steps[-1]))
        elif share < LEADS:
            yield Finding("discriminator-leads", f"The discriminator leads: {told}.", weaker(course, game), about)
        elif share > EVEN:
            text = f"The discriminator hardly tells reals from fakes: {told}. They are alike, or it is too weak."
            yield Finding("generator-leads", text, None, about)
        else:
            yield Finding("balanced", f"Neither player runs away: {told}.", None, about)


def logits(course: Course, game: Game) -> str:
    """Both sides' mean logits in words; where only their difference counts, that."""
    real, fake = (course.series(f"{game.player}/{side}_logits{game.suffix}") for side in ("real", "fake"))
    if not real.values or not fake.values:
        return "its logits are not logged"
    gap = f"{number(end(real) - end(fake))} apart"
    if loss_name(course.loss) in DIFFERENCES:
        return f"logits of reals and fakes are {gap}"
    return f"mean logits are {number(end(real))} for reals and {number(end(fake))} for fakes, {gap}"


def distance(course: Course, game: Game, sides: str) -> Finding:
    """A critic's loss estimates a distance, up to a factor (Arjovsky et al. 2017, 1701.07875, section 3): its size says
    nothing, only its course does."""
    if loss_name(course.loss) != "Wasserstein":
        text = f"What the {game.name}'s loss is at chance is not known, so who leads cannot be told; {sides}."
        return Finding("no-lead", text)
    loss = course.series(f"{game.player}/adversarial{game.suffix}")
    middle = loss.values[: max(1, len(loss.values) // 2)]
    text = (
        f"A critic's loss has no value at chance, so who leads cannot be told; its estimate of the distance is "
        f"{number(-end(loss))} at the end, {number(-median(middle))} in the first half; {sides}."
    )
    return Finding("no-lead", text)


def weaker(course: Course, game: Game) -> str | None:
    """What holds a discriminator back, the plainest first: the generator's loss that does not saturate (Goodfellow et
    al. 2014, section 3), equal rates, R1 (Mescheder et al. 2018, arXiv 1801.04406), a quarter of its rate."""
    name = loss_name(course.loss)
    if name == "Minimax":
        return again(course.record, "loss=non-saturating")
    if name in SATURATING and course.loss.get("saturating"):
        return again(course.record, "loss.saturating=false")
    moves = course.setting(f"schedule.{game.player}", 1)
    if isinstance(moves, int) and moves > 1:
        return again(course.record, f"schedule.{game.player}=1")
    own, theirs = rate(course, game.player), [rate(course, name) for name in course.generators]
    if own and theirs and None not in theirs and own > max(theirs):
        return again(course.record, *slower(course, max(theirs) / own, game.player))
    if not course.setting("penalty", {}):
        return again(course.record, with_penalty(course, "r1"))
    words = slower(course, 1 / 4, game.player)
    return again(course.record, *words) if words else None


def vanished(course: Course) -> Iterator[Finding]:
    """Is the generator's gradient next to nothing beside what it was? Arjovsky and Bottou 2017, arXiv 1701.04862,
    theorem 2.4: it vanishes under -log(1 - D) where the discriminator is near its optimum."""
    for player in course.generators:
        norm = course.series(f"{player}/gradient_norm")
        if len(norm.steps) < 3:
            continue
        most, now = max(blocks(*norm, most=10)[1]), end(norm)
        if now < VANISHED * most:
            text = (
                f"The {player}'s gradient has vanished: its norm is {number(now)}, {now / most if most else 0:.1e} of "
                f"the largest ({number(most)})."
            )
            command = weaker(course, course.games[0]) if course.games else None
            yield Finding("gradient-vanished", text, command, (below(norm, VANISHED * most), norm.steps[-1]))


def diverging(course: Course) -> Iterator[Finding]:
    """Do weights, gradients or logits grow without bound? Factors from the middle of the run to its end, and sizes,
    beyond those of every run in .github/measurements.md that ended well. A tenth of the rates is the usual step."""
    grown = []
    for player in course.players:
        for what, factor in GROWN.items():
            series = course.series(f"{player}/{what}")
            if len(series.steps) < 6:
                continue
            parts = blocks(*series, most=6)[1]
            if parts[-1] > factor * parts[len(parts) // 2] > 0:
                ratio = parts[-1] / parts[len(parts) // 2]
                grown.append(f"{player}/{what} grew {number(ratio)}-fold since the middle of the run")
    for game in course.games:
        sides = [course.series(f"{game.player}/{side}_logits{game.suffix}") for side in ("real", "fake")]
        size = max((abs(end(side)) for side in sides if side.values), default=0.0)
        if size > LARGE:
            grown.append(f"mean logits of the {game.name} reach {number(size)}")
    if grown:
        words = slower(course, 1 / 10)
        command = again(course.record, *words) if words else None
        yield Finding("diverging", f"It diverges: {'; '.join(grown)}.", command, (course.step,))
