"""Run one of the commands `fit`, `validate`, `test` and `predict`; errors become a message and an exit status."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import torch
from jsonargparse import DefaultHelpFormatter
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.method import Method
from lit_imitation.policies.checkpoints import LOADING_ERRORS
from lit_imitation.training.arguments import (
    add_checkpoint_config,
    add_save_dir,
    flag,
    option,
    options_with_values,
    refuse_urls,
)
from lit_imitation.training.lightning_cli import CLI
from lit_imitation.training.recipes import resolve_recipes
from lit_imitation.training.run import tell_saved
from lit_imitation.training.usage import read_recipes
from lit_imitation.utils.distributed import is_lost_peer
from lit_imitation.utils.program import program
from lit_imitation.utils.trust import trust_scope

TRAINER_DEFAULTS = {
    "num_sanity_val_steps": 0,  # evaluating an untrained policy takes time and shows little
    "enable_model_summary": False,
}
MORE_HELP = """\
more options:
  fit --model.help GAIL                                      options of a method
  fit --model GAIL --model.learner.help PPO                  of its learner
  fit --model GAIL --model.discriminator.help Discriminator  of its discriminator
  fit --model BC --model.policy.help GaussianPolicy          of its policy
  fit --data.help ImitationDataModule                        of the data
  fit --trainer.callbacks.help lit_imitation.DAggerCallback  of a callback
  fit --config bc/lunar_lander --print_config                all settings of a recipe

Set an option of the model with --model.NAME VALUE, and one of the data with --data.NAME VALUE.
"""
"""End of the help of each command: how to list the options of model, data and callbacks."""


def run(command: str, arguments: Sequence[str], cli: type[CLI] = CLI) -> None:
    """Run one of `fit`, `validate`, `test`, `predict`.

    Args:
        command: Its name.
        arguments: Its options.
        cli: Class that runs it, a subclass to act before or after.
    """
    _silence_warnings(command)
    if "OMP_NUM_THREADS" not in os.environ:
        # Networks of this size gain nothing from a second thread, and can be 100 times slower where cores are shared.
        torch.set_num_threads(1)
    refuse_urls(arguments)
    arguments = add_save_dir(resolve_recipes(list(arguments)))
    named = [value for key, value in options_with_values(arguments) if key.startswith(("--model", "--data"))]
    with trust_scope(flag(arguments, "--trust"), named):
        _run(command, arguments, cli)


def _run(command: str, arguments: list[str], cli: type[CLI]) -> None:
    given = arguments
    if command != "fit":
        arguments = add_checkpoint_config(command, arguments)
    elif not any(argument.startswith("-") for argument in arguments):
        raise ConfigError(
            "fit needs a recipe: add --config NAME (`lit-imitation recipes` lists them), --config FILE, or --model and "
            "--data"
        )
    CLI.command, CLI.running, CLI.latest = command, False, None
    changes = ("--model", "--data", "--config", "-c", "--seed_everything")
    CLI.changed = any(argument.startswith(changes) for argument in given)
    CLI.arguments, CLI.recipes = arguments, read_recipes(arguments)
    try:
        with ExitStack() as CLI.resources:
            cli(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                trainer_class=Trainer,
                trainer_defaults=TRAINER_DEFAULTS,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                parser_kwargs={
                    "allow_abbrev": False,  # a mistyped option is an error, not a guess
                    "formatter_class": _HelpFormatter,
                    command: {
                        "usage": f"{program()} {command} --config FILE [options]",  # the full usage has 90 lines
                        "epilog": MORE_HELP,
                        "allow_abbrev": False,
                    },
                },
                args=[command, *arguments],
            )
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning's Trainer: {error}") from error
    except LOADING_ERRORS as error:
        if is_lost_peer(error):
            _end_without_peer(error)
        if not _while_restoring(error, option(arguments, "--ckpt_path") is not None):
            raise
        reason = (str(error) or "no text").strip().splitlines()[0]
        raise ConfigError(
            f"--ckpt_path {option(arguments, '--ckpt_path')} is damaged, or it belongs to another kind of run: "
            f"{type(error).__name__}: {reason:.300}"
        ) from error
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)  # Lightning's exception alone would give exit status 0
    except SystemExit as error:
        if CLI.running and not error.code:  # raised by other code than the parser, and would give exit status 0
            *_, frame = traceback.extract_tb(error.__traceback__)
            raise TrainingError(
                f"the run was ended by SystemExit in {frame.filename}, line {frame.lineno}: {frame.line}"
            ) from error
        raise


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the line breaks of `MORE_HELP`."""


def _end_without_peer(error: BaseException) -> NoReturn:
    """End this process because another process of the run is gone."""
    trainer = CLI.latest
    method = trainer.lightning_module if trainer is not None else None
    if isinstance(method, Method) and method.signals.told:
        sys.exit(128 + signal.SIGTERM)
    reason = (str(error) or "no text").strip().splitlines()[0]
    where, advice = "a process", ""
    if trainer is not None:
        where = f"process {trainer.global_rank} of {trainer.world_size}"
        if trainer.state.fn == "fit":
            advice = f"; {tell_saved(trainer)}"
    raise TrainingError(
        f"{where} stopped: another process of the run ended or does not answer ({reason:.200}){advice}"
    ) from error


def _while_restoring(error: BaseException, resumed: bool) -> bool:
    """Whether an error arose while Lightning restored a checkpoint, or in an optimizer that uses restored state.

    Errors in a closure, which is the method's own code, are not caused by the checkpoint.

    Args:
        error: The error, with its traceback.
        resumed: Whether the run was given a checkpoint.
    """
    package, optimizers, inside = str(Path(torch.__file__).parent), str(Path(torch.optim.__file__).parent), False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if file.endswith("checkpoint_connector.py") and function.lstrip("_").startswith(("restore", "resume")):
            return True
        inside = file.startswith(optimizers) or (inside and file.startswith(package))
    return resumed and inside


def _silence_warnings(command: str) -> None:
    """Silence Lightning's warnings about torch's DataLoader and its own internals, and its advertisements."""
    # A checkpoint that is only evaluated needs no state of callbacks.
    unneeded = ("Be aware that when using `ckpt_path`", "The dirpath has changed") if command != "fit" else ()
    for text in (
        *unneeded,
        "Couldn't infer the batch indices",
        "does not have many workers",
        "Using ModelCheckpoint with manual optimization",  # saves after the step, as intended
        "LightningCLI's args parameter",
        "isinstance\\(treespec, LeafSpec\\)",
        "You have overridden `transfer_batch_to_device`",
        "is smaller than the logging interval",
        "Found .* module\\(s\\) in eval mode",  # intended: dropout is off during rollouts and updates
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", f".*{text}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "💡" not in record.getMessage())
