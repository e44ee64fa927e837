"""Settings for every test: a temporary cache, one thread, no network."""

from __future__ import annotations

import lightning.pytorch  # noqa: F401 - its log handler keeps the stream of the first import, which no test may close
import pytest
import torch
from tiers import Tiers


def pytest_configure(config):
    config.pluginmanager.register(Tiers(), "tiers")


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_IMITATION_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_MODE", "offline")
        torch.set_num_threads(1)
        yield
