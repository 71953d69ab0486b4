"""The figures that the demonstration must reach, and how it tells that it did."""

from __future__ import annotations

from dataclasses import dataclass

from flyball.demo.scores import Story


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A figure and what it must be: at least `least`, or at most `most`. None: it could not be computed, so not met."""

    name: str
    figure: float | None
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        if self.figure is None:
            return False
        return (self.least is None or self.figure >= self.least) and (self.most is None or self.figure <= self.most)

    def __str__(self) -> str:
        """`bar NAME FIGURE BAR met|missed`, for people and for scripts."""
        shown = "none" if self.figure is None else f"{self.figure:.4g}"
        wanted = f">={self.least:g}" if self.least is not None else f"<={self.most:g}"
        return f"bar {self.name} {shown} {wanted} {'met' if self.met else 'missed'}"


def bars(
    *,
    with_windows: float | None,
    without_windows: float | None,
    story: Story | None,
    lost: int,
    doubled: int,
    mismatches: int | None,
) -> list[Bar]:
    """The bars of the demonstration. `mismatches`: None where nothing was audited."""
    worth = None if with_windows is None or without_windows is None else with_windows - without_windows
    drop = recovered = None
    if story is not None and story.before.auc is not None and story.after.auc is not None:
        drop = story.before.auc - story.after.auc
        if story.recovered.auc is not None and drop > 0:
            recovered = (story.recovered.auc - story.after.auc) / drop
    return [
        Bar(name="auc_windows_gain", figure=worth, least=0.10),
        Bar(name="auc_lost_at_shift", figure=drop, least=0.05),
        Bar(name="auc_recovered_share", figure=recovered, least=0.5),
        Bar(name="events_and_predictions_lost", figure=lost, most=0),
        Bar(name="events_and_predictions_doubled", figure=doubled, most=0),
        Bar(name="audited_mismatches", figure=mismatches, most=0),
    ]
