"""Environments: from an id to a seeded vector environment on the fastest backend that has it."""

from lit_imitation.envs.make import Backend, make, make_single
from lit_imitation.envs.random_return import random_return
from lit_imitation.envs.spaces import check_spaces, space_from_dict, space_to_dict

__all__ = ["Backend", "check_spaces", "make", "make_single", "random_return", "space_from_dict", "space_to_dict"]
