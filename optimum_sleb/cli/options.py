"""Options that contradict each other, or that nothing would use: refused at once, before torch is imported."""

import os
from argparse import Namespace
from collections.abc import Iterable

from ..config import FEWEST_WINDOWS_TO_COMPENSATE, SLEBConfig
from ..errors import ConfigError, ModelNotFoundError


def check_output_options(args: Namespace) -> None:
    """Refuse what belongs to a push where nothing is pushed, and what no card can say."""
    fields = (args.license, args.base_model, args.language)
    if any(field is not None for field in fields):
        from ..card.base_card import given_fields  # takes a third of a second

        given_fields(*fields)
    _refuse_unused(args, ("private",), "--push-to-hub", args.push_to_hub is not None)


def check_source_options(args: Namespace, *models: str | None) -> None:
    """Refuse a revision of local folders, which have none, and a GGUF file that a folder does not hold."""
    folders = [model for model in models if model and os.path.isdir(model)]
    if args.revision is not None and folders and len(folders) == len([model for model in models if model]):
        raise ConfigError(
            f"--revision belongs to a model of the Hub, but {folders[0]!r} is a folder here; leave it out, or name "
            "the folder of that revision."
        )
    for folder in folders if args.gguf_file is not None else ():
        if not os.path.isfile(os.path.join(folder, args.gguf_file)):
            raise ModelNotFoundError(
                f"The folder {folder!r} holds no {args.gguf_file!r}; name a GGUF file that it holds (--gguf-file)."
            )


def check_search_options(args: Namespace, config: SLEBConfig) -> None:
    """Refuse options of a search that another option keeps from being used, or that cannot go together."""
    if config.search not in ("racing", "auto") and config.racing_confidence != SLEBConfig.racing_confidence:
        raise ConfigError("--racing-confidence belongs to --search racing or auto; choose one, or leave it out.")
    if config.search == "reference" and args.offload == "cpu":
        raise ConfigError(
            "--search reference runs the whole model for every candidate, but --offload cpu leaves its blocks in host "
            "memory; use --search exact, which measures the same losses."
        )
    few = config.max_windows is not None and config.max_windows < FEWEST_WINDOWS_TO_COMPENSATE
    if config.compensate != "no" and few:
        raise ConfigError(
            f"--compensate {config.compensate} fits on some windows and verifies on others, so it needs at least "
            f"{FEWEST_WINDOWS_TO_COMPENSATE}; raise --max-windows {config.max_windows}."
        )


def check_removal_options(args: Namespace) -> None:
    """Refuse a number of blocks beside a list of them, and a block that is named twice."""
    if args.blocks is None:
        return
    if args.num_blocks is not None:
        raise ConfigError("--num-blocks belongs to --report; with --blocks, list the blocks that should go.")
    if args.model is None:
        raise ConfigError("Name the model that the blocks are taken from (--model).")
    twice = [block for position, block in enumerate(args.blocks) if block in args.blocks[:position]]
    if twice:
        raise ConfigError(f"--blocks names block {twice[0]} twice; name each one once.")


def check_benchmark_options(args: Namespace) -> None:
    """Refuse options of a scenario that is not timed."""
    if args.assisted and not args.baseline:
        raise ConfigError("--assisted needs the dense model that the text is generated for (--baseline).")
    of_generation = ("batch_sizes", "short_prompt", "static_cache", *(() if args.assisted else ("new_tokens",)))
    _refuse_unused(args, of_generation, "--scenarios generation", "generation" in args.scenarios)
    _refuse_unused(args, ("prompt",), "--scenarios prompt", "prompt" in args.scenarios)


def _refuse_unused(args: Namespace, names: Iterable[str], owner: str, is_used: bool) -> None:
    for name in () if is_used else names:
        if getattr(args, name):
            raise ConfigError(f"--{name.replace('_', '-')} belongs to {owner}; add that, or leave it out.")
