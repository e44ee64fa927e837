"""The study of several right answers: clones of demonstrations that leave a ring by 2, 3 and 8 gates.

Every policy is cloned from the same demonstrations and played both ways: by samples, and deterministically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import Result, Run, execute, with_interval, write
from experiments.studies.multimodal import learners
from experiments.studies.multimodal.figure import forks
from experiments.studies.multimodal.page import page
from lit_imitation.utils.versions import versions

CHUNK: dict[str, Any] = {"horizon": 2, "n_action_steps": 2}
POLICIES: dict[str, dict[str, Any]] = {
    "mse": {"hidden_sizes": [64, 64]},
    "gaussian": {"hidden_sizes": [64, 64]},
    "mixture": {"hidden_sizes": [64, 64], "components": 16, **CHUNK},
    "quantized": {"hidden_sizes": [64, 64], "codes": 32, **CHUNK},
    "cvae": {"hidden_sizes": [64, 64], "latent_size": 2, **CHUNK},
    "diffusion": {"hidden_sizes": [128, 128, 128], "steps": 16, **CHUNK},
    "flow": {"hidden_sizes": [128, 128, 128], "steps": 16, **CHUNK},
}
"""Arguments of each policy. The heads plan two steps at a time; regression and the Gaussian are asked at every step."""
WAYS = ("sampled", "deterministic")


@dataclass(frozen=True)
class Settings:
    """Settings; the defaults are the full study."""

    seeds: int = 5
    modes: tuple[int, ...] = (2, 3, 8)
    """Numbers of gates."""
    policies: tuple[str, ...] = tuple(POLICIES)
    demonstrations: int = 5000
    """Demonstrations of four steps each, new ones for each seed."""
    steps: int = 6000
    batch_size: int = 256
    learning_rate: float = 2e-3
    ema_decay: float = 0.995
    episodes: int = 1000
    """Measured episodes of each run and each way to play."""

    def with_seeds(self, seeds: int) -> Settings:
        """These settings with another number of seeds."""
        return replace(self, seeds=seeds)


QUICK = Settings(
    seeds=2, modes=(2, 3), policies=("mse", "quantized", "flow"), demonstrations=300, steps=50, episodes=60
)
"""A miniature in less than a minute; its numbers mean nothing."""


def run(out: Path, settings: Settings, jobs: int = 1) -> dict[str, Any]:
    """Train the missing runs, draw the figure, and write `out/multimodal.json` and the page `out/multimodal.md`.

    `out/runs` keeps the result of every run, so an interrupted study resumes.

    Returns:
        The content of `multimodal.json`.
    """
    cells = [(modes, head) for modes in settings.modes for head in settings.policies]
    # Seed by seed, so that an interrupted study has whole seeds.
    order = [(seed, *cell) for seed in range(settings.seeds) for cell in cells]
    results = dict(zip(order, execute([_run(settings, *one) for one in order], out / "runs", jobs), strict=True))
    found: dict[tuple[int, str], list[Result]] = {
        (modes, head): [results[seed, modes, head] for seed in range(settings.seeds)] for modes, head in cells
    }
    summary = {
        "study": "multimodal",
        "settings": asdict(settings) | {"policy_arguments": {head: POLICIES[head] for head in settings.policies}},
        "modes": {
            str(modes): {head: summarize(modes, found[modes, head]) for head in settings.policies}
            for modes in settings.modes
        },
        "versions": versions(),
    }
    forks(summary, found, out / "multimodal")
    write(out, summary, page)
    return summary


def _run(settings: Settings, seed: int, modes: int, head: str) -> Run:
    training = {
        "steps": settings.steps, "batch_size": settings.batch_size, "learning_rate": settings.learning_rate,
        "ema_decay": settings.ema_decay,
    }  # fmt: skip
    arguments = {
        "head": head, "policy": POLICIES[head], "modes": modes, "demonstrations": settings.demonstrations,
        "training": training, "episodes": settings.episodes, "seed": seed,
    }  # fmt: skip
    return Run(f"{head}-{modes}-seed{seed}", learners.clone, arguments)


def shares(mode: NDArray[Any], modes: int) -> NDArray[np.float64]:
    """Shares `[modes + 1]` of the episodes that passed no gate, and each gate, from `mode: [episodes]`."""
    return np.bincount(mode + 1, minlength=modes + 1) / len(mode)


def total_variation(mode: NDArray[Any], shown: NDArray[Any], modes: int) -> float:
    """½ Σ_k |p_k − q_k| between the shares of the played and the shown episodes; a failure is one more outcome k."""
    return float(np.abs(shares(mode, modes) - shares(shown, modes)).sum() / 2)


def summarize(modes: int, results: Sequence[Result]) -> dict[str, Any]:
    """Success, total variation and time of a decision over seeds."""
    entry: dict[str, Any] = {}
    for way in WAYS:
        distances = [total_variation(result[f"{way}_mode"], result["expert_mode"], modes) for result in results]
        entry[way] = {
            "success": with_interval([result[f"{way}_success"].mean() for result in results]),
            "total_variation": with_interval(distances),
            "shares": np.mean([shares(result[f"{way}_mode"], modes) for result in results], axis=0).tolist(),
        }
    entry["milliseconds"] = float(np.median([result["milliseconds"] for result in results]))
    return entry
