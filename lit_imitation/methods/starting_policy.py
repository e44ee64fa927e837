"""`StartingPolicy`: the policy that a learner gets to improve, and its state at the start of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.methods.checkpoints import spaces_of
from lit_imitation.methods.data_checks import check_made_for
from lit_imitation.policies import Policy, PolicyFactory, load_policy
from lit_imitation.policies.checkpoints import check_weights
from lit_imitation.utils.descriptions import build


class StartingPolicy:
    """Policy of a factory or of another run; without either, the learner builds its own.

    Args:
        factory: Builds the policy from the two spaces.
        path: Directory or checkpoint of a policy.

    Raises:
        ConfigError: Both are given.
    """

    def __init__(self, factory: PolicyFactory | None, path: str | None) -> None:
        if factory is not None and path is not None:
            raise ConfigError("model.policy and model.start both say where the policy comes from; leave one out")
        self.factory, self.path = factory, path
        self.origin = {"given": False, "trained": False, "fitted": False, "fresh": False}
        """State of the policy at the start of the run, for checkpoints: the user gave it (`given`), it comes from a
        checkpoint (`trained`), has input statistics (`fitted`), is untrained (`fresh`)."""
        self.error: ConfigError | None = None
        """Why the policy could not be loaded."""

    def make(self, data: EnvironmentDataModule) -> Policy | None:
        """Build or load the policy for an environment; None for the learner's own.

        If it cannot be loaded, `error` says why: a checkpoint of this run, which is read later, may replace it.
        """
        self.error = None
        if self.path is None:
            return self._build(data)
        try:
            policy = load_policy(self.path).train()
            check_made_for(f"model.start: {policy.source}; it", (policy.observation_space, policy.action_space), data)
        except ConfigError as error:
            self.error = error
            return None
        return policy

    def _build(self, data: EnvironmentDataModule) -> Policy | None:
        if self.factory is None:
            return None
        policy = self.factory(*data.spaces)
        policy.fresh = not policy.trained and not policy.encoder.fitted
        return policy

    @contextmanager
    def name_source_in_errors(self, policy: Policy | None) -> Iterator[None]:
        """Let a `ConfigError` inside name the run that the policy comes from."""
        try:
            yield
        except ConfigError as error:
            if self.path is None or policy is None:
                raise
            raise ConfigError(f"model.start: {policy.source}; {error}") from error

    def record(self, policy: Policy | None) -> None:
        """Record the state of the policy before training."""
        if policy is not None:
            fitted = policy.encoder.fitted
            self.origin = {"given": True, "trained": policy.trained, "fitted": fitted, "fresh": policy.fresh}

    def restore(self, checkpoint: dict[str, Any]) -> Policy | None:
        """Build the policy as it was at the start of a checkpoint's run."""
        self.error = None
        spaces, origin, policy = spaces_of(checkpoint), checkpoint["method"]["origin"], None
        if self.factory is not None:
            policy = self.factory(*spaces)
        elif origin["given"]:
            policy = build(checkpoint["policy"], Policy, named=[self.factory])  # type: ignore[type-abstract]
        if policy is not None and origin["given"]:
            policy.trained, policy.fresh = origin["trained"], origin["fresh"]
            if origin["fitted"]:
                state = checkpoint["state_dict"]
                weights = {k.removeprefix("policy."): v for k, v in state.items() if k[:7] == "policy."}
                check_weights(weights, policy, "the checkpoint's policy")
                policy.load_state_dict(weights)
        return policy
