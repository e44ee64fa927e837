"""Rollouts: one loop that steps any actor through any vector environment."""

from lit_imitation.rollout.actor import Actor, ActorLike, FunctionActor, as_actor, keeps_state
from lit_imitation.rollout.episodes import Episode, Episodes, Steps, collect, shares
from lit_imitation.rollout.rounds import Round, rounds
from lit_imitation.rollout.stepping import Step, stream

__all__ = [
    "Actor",
    "ActorLike",
    "Episode",
    "Episodes",
    "FunctionActor",
    "Round",
    "Step",
    "Steps",
    "as_actor",
    "collect",
    "keeps_state",
    "rounds",
    "shares",
    "stream",
]
