"""The figure of GAIL's loop and of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import BC, DAGGER, EXPERT, GAIL, PAGE, PPO, REFERENCE, Result, new_figure, save_figure
from experiments.studies.sample_efficiency.learners import LOGGED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW = 25
"""Number of rounds over which the thick lines average."""
ACCURACIES = (
    ("discriminator_accuracy_expert", "expert", BC),
    ("discriminator_accuracy_learner", "learner", DAGGER),
    ("discriminator_accuracy_held_out", "held-out expert", PPO),
)
WIDTH, HEIGHT = 3.1, 1.62
"""Size of a box; the picture is about 11 by 10."""
LEFT, MIDDLE, RIGHT = 1.7, 5.35, 9.0
ROWS = (9.0, 6.45, 3.9, 1.35)


def architecture(env_id: str, level: float, result: Result, path: Path) -> None:
    """Draw the loop, and discriminator accuracy, reward and return over training.

    Args:
        env_id: Environment of the run.
        level: The expert's mean return.
        result: Result of `learners.gail`.
        path: File to write, without suffix.
    """
    figure, panels = new_figure(PAGE, 4.1, 3, 2, width_ratios=(1.75, 1), sharex="col")
    grid = panels[0, 0].get_gridspec()
    for axes in panels[:, 0]:
        axes.remove()
    _loop(figure.add_subplot(grid[:, 0]))
    accuracy, reward, returns = panels[:, 1]
    steps = result["round_env_steps"] / 1000
    for name, label, style in ACCURACIES:
        accuracy.plot(steps, smooth(result[f"round_{name}"]), color=style.color, linestyle=style.dashes, label=label)
    accuracy.axhline(0.5, color=REFERENCE, linewidth=0.5, zorder=1)
    accuracy.set_title(f"Measured: {env_id}", loc="left")
    accuracy.set(ylabel="accuracy of D", ylim=(0, 1.02))
    accuracy.legend(loc="lower center", ncols=3, handlelength=1.6, columnspacing=0.8, fontsize=6.5, borderaxespad=0)
    for axes, name in ((reward, "reward_mean"), (returns, "return_mean")):
        values = result[f"round_{name}"]
        known = ~np.isnan(values)
        axes.plot(steps[known], values[known], color=GAIL.color, linewidth=0.4, alpha=0.4)
    reward.plot(steps, smooth(result["round_reward_mean"]), color=GAIL.color)
    reward.set_ylabel("reward a step")
    # A round's return covers only the episodes that end in it, most of which are falls.
    returns.plot(result["env_steps"] / 1000, result["curve"], color=GAIL.color, marker=GAIL.marker, markersize=3)
    returns.axhline(level, color=EXPERT.color, linestyle=EXPERT.dashes, linewidth=1.1)
    returns.annotate("expert", (0, level), (2, -3), textcoords="offset points", va="top", fontsize=6.5)
    returns.set(ylabel="true return", xlabel="environment steps (thousands)", xlim=(0, steps[-1]))
    figure.align_ylabels([accuracy, reward, returns])
    rows: list[list[Any]] = [
        ["" if np.isnan(value) else value for value in row] + [""]
        for row in np.stack([result[f"round_{name}"] for name in LOGGED], axis=1).tolist()
    ]
    validations = zip(result["env_steps"].tolist(), result["curve"].tolist(), strict=True)
    rows += [[steps, *[""] * (len(LOGGED) - 1), value] for steps, value in validations]
    save_figure(figure, path, (*LOGGED, "validation_return_mean"), rows)


def smooth(values: NDArray[Any]) -> NDArray[Any]:
    """`[rounds]`: the mean over the `WINDOW` rounds around each, ignoring missing values."""
    known = ~np.isnan(values)
    kernel = np.ones(min(WINDOW, len(values)))
    count = np.convolve(known, kernel, "same")
    return np.convolve(np.where(known, values, 0.0), kernel, "same") / np.where(count, count, np.nan)


def at_the_end(result: Result) -> dict[str, float | None]:
    """Means of `LOGGED` over the last `WINDOW` rounds, ignoring missing values; None if all are missing."""
    last = {name: result[f"round_{name}"][-WINDOW:] for name in LOGGED}
    known = {name: values[~np.isnan(values)] for name, values in last.items()}
    return {name: float(values.mean()) if len(values) else None for name, values in known.items()}


class Box(NamedTuple):
    """A box of the loop: position, title, and small print."""

    x: float
    y: float
    title: str
    text: str
    color: str

    @property
    def left(self) -> tuple[float, float]:
        """The middle of this edge."""
        return self.x - WIDTH / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        """The middle of this edge."""
        return self.x + WIDTH / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        """The middle of this edge."""
        return self.x, self.y + HEIGHT / 2

    @property
    def bottom(self) -> tuple[float, float]:
        """The middle of this edge."""
        return self.x, self.y - HEIGHT / 2


def _loop(axes: Axes) -> None:
    """Draw GAIL's loop with PPO, with the names of a recipe."""
    from matplotlib.patches import FancyBboxPatch

    data, learner = REFERENCE, DAGGER.color
    envs = Box(LEFT, ROWS[0], "environments", "num_envs, in step", data)
    played = Box(RIGHT, ROWS[0], "round [time, env]", "s, a, s′; the true\nreward is not used", data)
    policy = Box(LEFT, ROWS[1], "policy π, value V", "a ~ π(· | s)", GAIL.color)
    normalizer = Box(MIDDLE, ROWS[1], "normalizer of s", "running mean and σ,\nthe same for π, V and D", GAIL.color)
    replay = Box(RIGHT, ROWS[1], "learner's pairs", "of this round and the\nlast replay_rounds", data)
    ppo = Box(LEFT, ROWS[2], "PPO", "epochs of minibatches,\nended early by target_kl", learner)
    expert = Box(MIDDLE, ROWS[2], "demonstrations", "(s, a, s′); val_fraction\nheld out, to judge D", BC.color)
    discriminator = Box(RIGHT, ROWS[2], "discriminator D", "discriminator_steps on\nbatch_size pairs of both", BC.color)
    advantages = Box(LEFT, ROWS[3], "advantages", "of r / its running σ,\nGAE(γ, λ) with V", learner)
    reward = Box(RIGHT, ROWS[3], "reward", "r = −log(1 − D(s, a))\nfor the whole round", BC.color)

    axes.set(xlim=(-0.1, 11.35), ylim=(0.15, 10.2))
    axes.set_axis_off()
    axes.set_title("One round of GAIL", loc="left")
    # Everything except the rollout is one `training_step`.
    top = (ROWS[0] + ROWS[1]) / 2 + 0.12
    axes.add_patch(
        FancyBboxPatch(
            (0.0, 0.3), 11.25, top - 0.3, boxstyle="round,pad=0,rounding_size=0.2", linewidth=0.7,
            linestyle=(0, (4, 3)), edgecolor=REFERENCE, facecolor="none", zorder=1,
        )
    )  # fmt: skip
    axes.text(
        MIDDLE, 0.42, "training_step", ha="center", va="bottom", fontsize=6.5, color=REFERENCE, family="monospace"
    )
    for box in (envs, played, policy, normalizer, replay, ppo, expert, discriminator, advantages, reward):
        _draw(axes, box)

    def joined(*points: tuple[float, float], dashed: bool = False) -> None:
        _arrow(axes, points, dashed)

    joined(envs.right, played.left)
    joined(played.bottom, replay.top)
    joined(replay.bottom, discriminator.top)
    joined(expert.right, discriminator.left)
    joined(discriminator.bottom, reward.top)
    joined(reward.left, advantages.right)
    joined(played.right, (10.9, played.y), (10.9, reward.y), reward.right)
    joined(advantages.top, ppo.bottom)
    joined(ppo.top, policy.bottom)
    joined(policy.top, envs.bottom)
    # The normalizer, which policy and discriminator share.
    joined(normalizer.left, policy.right, dashed=True)
    gap = (normalizer.right[0] + replay.left[0]) / 2
    upper = discriminator.y + 0.45
    joined(normalizer.right, (gap, normalizer.y), (gap, upper), (discriminator.left[0], upper), dashed=True)
    turn, start = top - 0.28, played.x - 0.8
    joined((start, played.bottom[1]), (start, turn), (normalizer.x, turn), normalizer.top, dashed=True)
    axes.text(MIDDLE, ROWS[0] + 0.12, "steps_per_round", ha="center", va="bottom", fontsize=6.5, family="monospace")
    axes.text(MIDDLE, ROWS[3] + 0.12, "the round, rewarded", ha="center", va="bottom", fontsize=6.5)
    axes.text(MIDDLE - 0.15, turn, "after the update", ha="right", va="center", fontsize=6.5, color=REFERENCE)


def _draw(axes: Axes, box: Box) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    tint = 1.0 - 0.16 * (1.0 - np.array(to_rgb(box.color)))
    axes.add_patch(
        FancyBboxPatch(
            (box.left[0], box.bottom[1]), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.18",
            linewidth=1.0, edgecolor=box.color, facecolor=tint, zorder=3,
        )
    )  # fmt: skip
    lines = box.text.count("\n") + 1
    axes.text(box.x, box.y + 0.17 * lines, box.title, ha="center", va="center", fontsize=7, weight="bold", zorder=4)
    axes.text(box.x, box.y - 0.31, box.text, ha="center", va="center", fontsize=6, linespacing=1.15, zorder=4)


def _arrow(axes: Axes, points: Sequence[tuple[float, float]], dashed: bool) -> None:
    """Draw a polyline with an arrow head."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    axes.add_patch(
        FancyArrowPatch(
            path=Line(points), arrowstyle="-|>", mutation_scale=7, shrinkA=0, shrinkB=0, capstyle="butt",
            joinstyle="miter", linewidth=0.9, linestyle=(0, (3, 2)) if dashed else "-",
            color=REFERENCE if dashed else "black", zorder=2,
        )
    )  # fmt: skip
