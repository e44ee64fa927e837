"""Configurations inside checkpoints."""

from __future__ import annotations

import pytest
import yaml

from lit_imitation.errors import ConfigError
from lit_imitation.training.foreign import read_config


def config(**data) -> str:
    arguments = {"env_id": "Pendulum-v1", "expert": "scripted", **data}
    return yaml.safe_dump({"data": {"class_path": "lit_imitation.DemonstrationDataModule", "init_args": arguments}})


def test_names_of_observations_may_have_dots():
    keys = ["observation.state", "robot0_eef_pos", "inner/state"]
    read = read_config(config(observation_keys=keys, filter_key="20_percent_train"), "x.ckpt")
    assert read["data"]["init_args"]["observation_keys"] == keys
    assert read["data"]["init_args"]["filter_key"] == "20_percent_train"


@pytest.mark.parametrize("key", ["{class_path: subprocess.Popen}", "http://127.0.0.1:9/x"])
def test_names_of_observations_cannot_be_more_configuration(key):
    with pytest.raises(ConfigError):
        read_config(config(observation_keys=[key]), "x.ckpt")
