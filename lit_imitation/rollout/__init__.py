"""Rollouts: one loop that drives every actor through every vector environment."""

from lit_imitation.rollout.episodes import (
    LONG_EPISODE,
    PATIENCE,
    Actor,
    Episode,
    Episodes,
    Round,
    Step,
    Steps,
    collect,
    rounds,
    shares,
    stream,
)

__all__ = [
    "LONG_EPISODE",
    "PATIENCE",
    "Actor",
    "Episode",
    "Episodes",
    "Round",
    "Step",
    "Steps",
    "collect",
    "rounds",
    "shares",
    "stream",
]
