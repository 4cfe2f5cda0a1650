"""The commands in a card, read by the parser that a person's shell would hand them to."""

import shlex
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import pytest

from optimum_sleb import SLEBConfig
from optimum_sleb.card.commands import repeat_commands
from optimum_sleb.cli.prune import PruneCommand, recipe_from
from optimum_sleb.config import amount_name
from optimum_sleb.report.records import StepRecord, TargetRecord
from optimum_sleb.report.report import PruningReport

from ..report.sets import make_set_report
from ..report.test_report import make_report


def parse(command: str):
    words = shlex.split(command)
    assert words[:3] == ["optimum-cli", "sleb", "prune"]
    parser = ArgumentParser()
    PruneCommand.parse_args(parser)
    return parser.parse_args(words[3:])


@pytest.mark.parametrize(
    "recipe",
    [
        SLEBConfig(num_blocks_to_remove=3),
        SLEBConfig(sparsity=0.3),
        SLEBConfig(num_blocks_to_remove=3, dataset="c4", seed=7, num_samples=5, window_length=128, max_windows=4),
        SLEBConfig(num_blocks_to_remove=3, dataset="wikitext2+mine.txt", compensate="during"),
        SLEBConfig(num_blocks_to_remove=3, dataset="my text.jsonl", text_column="body of it", bos_per_window=False),
        SLEBConfig(
            num_blocks_to_remove=3, dataset="me/chat", dataset_config="en", dataset_split="dev", shuffle_buffer=9
        ),
        SLEBConfig(num_blocks_to_remove=3, dataset="me/chat+c4", dataset_revision="v1", seed=3),
        SLEBConfig(num_blocks_to_remove=3, dataset="mine.txt", document_separator="---"),
        SLEBConfig(num_blocks_to_remove=3, dataset="my  text.jsonl", document_separator=" ## ", text_column="a  b"),
        SLEBConfig(num_blocks_to_remove=3, dataset="wikitext2:0.5+chat.CSV.gz:0.5", encoding="cp1252"),
        SLEBConfig(num_blocks_to_remove=3, dataset="**/part-*.parquet+saved/+a b/"),
        SLEBConfig(num_blocks_to_remove=3, protected_blocks="0-3,14", early_barrier=4),
        SLEBConfig(num_blocks_to_remove=3, candidate_blocks=[2, 4, 1]),
        SLEBConfig(sparsity=0.3, early_barrier=0, latter_barrier=2, search="reference", search_dtype="float32"),
        SLEBConfig(num_blocks_to_remove=3, criterion="org.module:Class.function"),
        SLEBConfig(num_blocks_to_remove=3, criterion="kl", search_space="runs", compensate="every-block"),
        SLEBConfig(num_blocks_to_remove=3, search_space="runs", beam_width=2),
        SLEBConfig(num_blocks_to_remove=3, beam_width=3),
        SLEBConfig.best(num_blocks_to_remove=3, max_windows=96),
        SLEBConfig.best(sparsity=0.3, compensate="no", search="exact"),
    ],
)
def test_the_command_is_the_recipe(recipe: SLEBConfig) -> None:
    (command,) = repeat_commands(replace(make_report(), recipe=recipe), "out")
    args = parse(command)
    assert recipe_from(args) == recipe
    assert (args.model, args.output) == ("me/dense", "out")


@pytest.mark.parametrize("name", ["__main__:f", "m:f.<locals>.g", "m:<lambda>"])
def test_a_criterion_that_nobody_else_can_import(name: str) -> None:
    recipe = SLEBConfig(num_blocks_to_remove=3, criterion=name)
    assert repeat_commands(replace(make_report(), recipe=recipe), "out") == []


@pytest.mark.parametrize("given", [{"document_separator": "\n"}, {"text_column": "a\nb"}, {"dataset": "a\nb.txt"}])
def test_a_line_break_is_told_by_no_command(given: dict[str, str]) -> None:
    recipe = SLEBConfig(num_blocks_to_remove=3, **given)
    assert repeat_commands(replace(make_report(), recipe=recipe), "out") == []


def test_how_the_model_was_loaded() -> None:
    loading = {"revision": "v1", "gguf_file": "a b.gguf", "dtype": "bfloat16", "trust_remote_code": "True"}
    (command,) = repeat_commands(replace(make_report(), loading=loading), "out")
    args = parse(command)
    assert (args.revision, args.gguf_file, args.dtype, args.trust_remote_code) == ("v1", "a b.gguf", "bfloat16", True)


def test_a_cut_and_a_budget_name_the_depth_that_was_reached() -> None:
    report = replace(make_report(), recipe=SLEBConfig(sparsity=0.3)).cut(2)
    assert parse(repeat_commands(report, "out")[0]).num_blocks_to_remove == 2
    report = replace(make_report(), recipe=SLEBConfig(max_perplexity_increase=0.5))
    assert parse(repeat_commands(report, "out")[0]).num_blocks_to_remove == 3


@pytest.mark.parametrize(
    "recipe",
    [
        SLEBConfig(max_parameters="6B"),
        SLEBConfig(max_parameters=6_000_000),
        SLEBConfig(max_memory="16 GiB", context_length=4096, num_sequences=8),
        SLEBConfig(min_speedup=1.25),
        SLEBConfig(min_speedup=1.25, speedup_of="prompt"),
    ],
)
def test_a_target_is_repeated_as_asked(recipe: SLEBConfig) -> None:
    target = TargetRecord(amount_name(recipe), 1.0, 2.0, 0.5, "what is counted")
    report = replace(make_report(), recipe=recipe, target=target)
    args = parse(repeat_commands(report, "out")[0])
    assert recipe_from(args) == recipe
    # A shallower cut of that search does not meet the target.
    assert parse(repeat_commands(report.cut(2), "out")[0]).num_blocks_to_remove == 2


def test_a_shallower_depth_is_repeated_by_a_search_that_ends_there() -> None:
    """Which compensates the leading sets of its last depth, as applying the report to that depth does."""
    recipe = SLEBConfig(num_blocks_to_remove=3, search_space="runs", compensate="after")
    report = replace(make_set_report(), recipe=recipe)
    assert "--num-blocks 3 " in repeat_commands(report, "out")[0]
    (command,) = repeat_commands(report.cut(2), "out")
    assert "--num-blocks 2 " in command
    assert "--compensate after --search-space runs" in command


def test_all_windows_that_there_were() -> None:
    report = replace(make_report(), recipe=SLEBConfig(num_blocks_to_remove=3, max_windows=None))
    assert parse(repeat_commands(report, "out")[0]).max_windows == 2


def test_several_runs_are_a_chain() -> None:
    first = replace(make_report((2,)), recipe=None, search=None, calibration=None, steps=(StepRecord(2),))
    first_command, second_command = repeat_commands(make_report((5, 3), previous=first), "out")
    assert first_command == "optimum-cli sleb remove --model me/dense --blocks 2 --output out-after-run-1"
    args = parse(second_command)
    assert (args.model, args.output) == ("out-after-run-1", "out")


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("/home/me/data/chat.jsonl:0.5+/home/me/x/:0.5", "chat.jsonl:0.5+x/:0.5"),
        ("/home/me/*/part-*.parquet+data/*.txt", "*/part-*.parquet+*.txt"),
        ("me/chat:2+c4:1", "me/chat:2+c4:1"),
    ],
)
def test_no_folder_of_the_user_is_told(dataset: str, shown: str) -> None:
    recipe = SLEBConfig(num_blocks_to_remove=3, dataset=dataset)
    assert parse(repeat_commands(replace(make_report(), recipe=recipe), "out")[0]).dataset == shown


@pytest.mark.parametrize("source", ["a list of 3 texts", "a DataLoader", "token ids (Tensor)"])
def test_data_in_memory_have_no_command(source: str) -> None:
    report = replace(make_report(), recipe=SLEBConfig(num_blocks_to_remove=3, dataset=source))
    assert repeat_commands(report, "out") == []


@pytest.mark.parametrize(("base_model", "name"), [(None, "MODEL"), ("/home/me/dense", "dense")])
def test_models_that_are_not_on_the_hub(base_model: str | None, name: str, tmp_path: Path) -> None:
    report: PruningReport = replace(make_report(), base_model=base_model)
    assert parse(repeat_commands(report, "out")[0]).model == name
