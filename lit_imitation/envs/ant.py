"""Ant of the transfer study and its crippled variant, made from Gymnasium's model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lit_imitation.errors import require
from lit_imitation.utils.cache import cache_dir
from lit_imitation.utils.files import atomic_write

require("mujoco", "mujoco", "the environments lit_imitation/WeakAnt-v0 and lit_imitation/CrippledAnt-v0")

from gymnasium.envs.mujoco import ant_v5, mujoco_env  # noqa: E402

GEAR, CRIPPLED_GEAR = 30, 1
BACK_LEGS = ("aux_3", "aux_4")
"""Hip bodies of the legs that Gymnasium's model calls `back_leg` and `right_back_leg`."""
BACK_JOINTS = ("hip_3", "ankle_3", "hip_4", "ankle_4")


def model_xml(crippled: bool) -> str:
    """Gymnasium's `ant.xml` with motor gears of 30; if crippled, with back legs half as long and gears of 1.

    A leg has two segments: hip to ankle, 0.2 along x and y, and ankle to foot, 0.4. The short stump from the middle of
    the torso to the hip keeps its length.
    """
    tree = ElementTree.parse(Path(mujoco_env.__file__).parent / "assets" / "ant.xml")
    for motor in tree.iterfind("./actuator/motor"):
        weak = crippled and motor.get("joint") in BACK_JOINTS
        motor.set("gear", str(CRIPPLED_GEAR if weak else GEAR))
    for hip in tree.iterfind(".//body"):
        if crippled and hip.get("name") in BACK_LEGS:
            for part, name in ((hip, "geom"), (hip, "body"), (hip, "body/geom")):
                segment = part.find(name)
                assert segment is not None
                key = "pos" if name == "body" else "fromto"
                segment.set(key, " ".join(f"{float(number) / 2:g}" for number in segment.get(key, "").split()))
    return ElementTree.tostring(tree.getroot(), encoding="unicode")


def model_file(crippled: bool) -> Path:
    """Write `model_xml` to a file in the cache, where MuJoCo can read it."""
    xml = model_xml(crippled)
    path = cache_dir() / "models" / f"ant-{hashlib.sha256(xml.encode()).hexdigest()[:16]}.xml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, xml)
    return path


class AntEnv(ant_v5.AntEnv):
    """Ant of Fu, Luo & Levine (2018, arXiv:1710.11248) with motor gears of 30 and episodes of 500 steps.

    Gymnasium's gears are 150, and its Ant can terminate early. The reward is that of Gymnasium's Ant, forward velocity
    minus contact and control costs, with two changes: the control cost is 0.01 ‖a‖² instead of 0.5 ‖a‖², and there is
    no reward for staying upright. The paper reports returns between −59 for a failing policy and 315. The original
    terms do not fit that range: over 500 steps random actions would cost 667, and an ant that does not move would earn
    500. The observation `Box(27)` excludes contact forces.

    Args:
        crippled: Use the model with two short, nearly powerless back legs.
        **arguments: Arguments of Gymnasium's `AntEnv`.
    """

    def __init__(self, crippled: bool = False, **arguments: Any) -> None:
        settings = {
            "terminate_when_unhealthy": False,
            "healthy_reward": 0.0,
            "ctrl_cost_weight": 0.01,
            "include_cfrc_ext_in_observation": False,
        }
        super().__init__(xml_file=str(model_file(crippled)), **(settings | arguments))
