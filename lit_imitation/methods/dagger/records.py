"""Records of DAgger's rounds: labels, disagreement and return of each, and the best round so far."""

from __future__ import annotations

import math
from typing import Any, TypedDict, cast

from lightning import Trainer
from lightning_utilities.core.rank_zero import rank_zero_info


class RoundRecord(TypedDict):
    """Results of one round."""

    round: int
    beta: float
    dataset_size: int
    """Number of labeled states so far, including held-out ones."""
    expert_queries: int
    """Number of states that the expert has labeled so far, including the demonstrations."""
    disagreement: float | None
    """Share of this round's labeled states where the learner would have acted differently from the expert."""
    return_mean: float | None
    """Return of the policy trained on these data, from the evaluation at the end of the round."""


class History:
    """Records of all rounds, the best round, and the position in the current round.

    Attributes:
        records: One record per round; the return of the current round is None until it is evaluated.
        visited: Number of states visited by all rounds so far, labeled or not.
        best_round: Round with the highest return.
        best_return: Return of the best round.
        epochs: Completed epochs of the current round.
        fresh: Whether the current round has new data that no epoch has used yet.
    """

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []
        self.visited = 0
        self.best_round: int | None = None
        self.best_return = -math.inf
        self.epochs = 0
        self.fresh = False

    @property
    def round(self) -> int:
        """Number of the current round."""
        return len(self.records) - 1

    def start_round(self, beta: float, labels: int, disagreement: float | None) -> None:
        """Add the record of the next round."""
        before = self.records[-1]["dataset_size"] if self.records else 0
        self.records.append(
            {
                "round": len(self.records),
                "beta": beta,
                "dataset_size": before + labels,
                "expert_queries": before + labels,
                "disagreement": disagreement,
                "return_mean": None,
            }
        )
        self.epochs, self.fresh = 0, self.round > 0

    def set_return(self, value: float) -> bool:
        """Record the return of the current round; returns whether it is the best so far."""
        self.records[-1]["return_mean"] = value
        if not value > self.best_return:
            return False
        self.best_round, self.best_return = self.round, value
        return True

    def log(self, trainer: Trainer) -> None:
        """Log and print the record of the current round."""
        record = self.records[-1]
        figures = {f"dagger/{name}": cast("float", value) for name, value in record.items() if value is not None}
        for logger in trainer.loggers:  # directly: Lightning writes what is logged here only after the checkpoints
            logger.log_metrics(figures, step=trainer.global_step - 1)
        rank_zero_info(f"round {self.round}: {record['expert_queries']} labels, return {record['return_mean']:.4g}")

    def summary(self) -> dict[str, Any]:
        """Entries of `summary.json`."""
        queries = self.records[-1]["expert_queries"] if self.records else 0
        seen = self.visited + self.records[0]["dataset_size"] if self.records else 0
        return {
            "expert_queries": queries,
            "queries_saved": seen - queries,
            "best_round": self.best_round,
            "rounds": self.records,
        }

    def state_dict(self) -> dict[str, Any]:
        """Records and position for a checkpoint; the data are in `DIR/dataset`."""
        return {
            "records": [dict(record) for record in self.records],
            "visited": self.visited,
            "best_round": self.best_round,
            "best_return": self.best_return,
            "epochs": self.epochs,
            "fresh": self.fresh,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.records = [cast("RoundRecord", record) for record in state["records"]]
        self.visited = state["visited"]
        self.best_round, self.best_return = state["best_round"], state["best_return"]
        self.epochs, self.fresh = state["epochs"], state["fresh"]
