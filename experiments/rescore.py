"""New scores for stored results: the measured returns, relative to each expert's return as it is measured today.

`python -m experiments table NAME --rescore` measures each row's expert as a run does (100 episodes by its mode,
cached). It trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.runner import Row, chosen, store, stored
from lit_imitation import DemonstrationDataModule, TabularDataModule
from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.training.repeat import aggregate

KEPT = ("env_id", "env_kwargs", "backend", "expert", "world")
REFERENCES = ("expert_return", "expert_return_error", "random_return", "random_return_error")


def rescore(name: str, patterns: Sequence[str] = ()) -> None:
    """Rescore the stored rows of a table, or those that `patterns` name."""
    known = stored(name)
    for row in chosen(name, patterns):
        found = known.get(row.name, {})
        # The GAIL paper's tables measure their experts themselves.
        if "expert_return_error" in found and "demonstrator_return" not in found:
            store(name, rescored(found, data_of(row)))
            print(f"{name}, {row.name}: expert {found['expert_return']:.4g}", flush=True)


def data_of(row: Row) -> EnvironmentDataModule:
    """A DataModule that measures the row's expert."""
    settings = row.data_settings()
    if row.recipe()["data"]["class_path"].endswith("TabularDataModule"):
        tabular = TabularDataModule(**settings, seed=0)
        tabular.setup("fit")
        return tabular
    return DemonstrationDataModule(**{name: settings[name] for name in KEPT if name in settings}, seed=0)


def rescored(row: dict[str, Any], data: EnvironmentDataModule) -> dict[str, Any]:
    """The row, and its parts that have returns, with new scores and references."""
    for part in (row, *(value for value in row.values() if isinstance(value, dict))):
        if isinstance(part.get("return_mean"), dict) and "normalized_score" in part:
            fresh = aggregated(part["return_mean"]["values"], data)
            part["normalized_score"] = fresh["normalized_score"]
            part |= {name: fresh[name] for name in REFERENCES if name in part or part is row}
    return row


def aggregated(returns: list[float], data: EnvironmentDataModule) -> dict[str, Any]:
    """The aggregate of `repeat` for runs with these returns."""
    expert, random = data.expert_reference, data.random_reference
    assert expert is not None
    summaries = [
        {
            "method": "",
            "env_id": data.env_id,
            "seed": seed,
            "return_mean": value,
            "return_iqm": value,
            "normalized_score": (value - random.mean) / (expert.mean - random.mean),
            "expert_return": expert.mean,
            "expert_return_error": expert.error,
            "random_return": random.mean,
            "random_return_error": random.error,
        }
        for seed, value in enumerate(returns)
    ]
    return dict(aggregate(summaries)["tasks"][0])
