"""What docs/reliability.md says was tried, and the tests that try it; each run of the tests ends with the numbers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

COLLECTED = pytest.StashKey[list[pytest.Item]]()


@dataclass(frozen=True)
class Row:
    """A row of the page, and its tests: node ids below tests/, each with all that stands below it."""

    happens: str
    tests: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(test.split("::")[0] for test in self.tests))

    def holds(self, node_id: str) -> bool:
        node_id = node_id.removeprefix("tests/")
        return any(node_id == test or node_id.startswith((f"{test}[", f"{test}::")) for test in self.tests)


TRIED = (
    Row(
        "`kill -9` at random moments of a search, resumed each time; a small model of random weights",
        ("test_progress.py::test_killed_at_random_moments",),
    ),
    Row(
        "an interrupt in the first, second or third step: exact, racing and reference search, without compensation, "
        "with it during and after the search",
        ("test_progress.py::test_resumed_equals_uninterrupted",),
    ),
    Row(
        "memory runs out, then an interrupt: exact, racing and reference search",
        (
            "test_progress.py::test_resumed_equals_uninterrupted_where_memory_ran_out",
            "search/test_journal.py::test_memory_ran_out_before_the_run_died",
        ),
    ),
    Row("SIGINT and SIGTERM of the command", ("cli/test_cli.py::test_stopped_and_resumed",)),
    Row(
        "a journal that ends in the middle of a line",
        ("search/test_journal.py::test_a_torn_last_line_is_dropped",),
    ),
    Row(
        "a journal that is empty, damaged, edited, of another model, config, recipe, data, batch size or version, or "
        "cannot be written",
        (
            "search/test_journal.py::test_a_damaged_line_in_the_middle",
            "search/test_journal.py::test_a_line_that_was_edited",
            "search/test_journal.py::test_a_first_line_that_was_edited",
            "search/test_journal.py::test_a_journal_of_an_earlier_version",
            "search/test_journal.py::test_a_line_that_cannot_be_of_the_measurement",
            "search/test_journal.py::test_an_empty_journal",
            "search/test_journal.py::test_of_another_run",
            "search/test_journal.py::test_a_folder_that_cannot_be_made",
            "search/test_journal.py::test_a_full_disk",
            "test_progress.py::test_another_recipe_is_refused",
            "test_progress.py::test_another_model_and_other_data_are_refused",
            "test_progress.py::test_the_same_weights_with_another_config_are_refused",
        ),
    ),
    Row(
        "memory runs out at random blocks of a step: exact and reference search",
        ("test_batching.py::test_a_search_step_survives_failures_at_any_block",),
    ),
    Row("memory runs out at every batch size", ("test_batching.py::test_every_window_once",)),
    Row(
        "memory runs out at random places of a compensation, of whole models and block by block",
        ("compensation/test_compensator_memory.py::test_a_fit_survives_failures_at_any_place",),
    ),
    Row(
        "a loss that is NaN or infinite: of one candidate, of all",
        (
            "search/test_greedy.py::test_a_candidate_whose_loss_is_not_finite_is_out_and_told",
            "search/test_greedy.py::test_where_no_loss_is_finite_the_search_ends",
            "search/test_racing.py::test_a_candidate_whose_loss_is_not_finite_is_told",
            "search/test_racing.py::test_where_no_loss_is_finite_nobody_wins",
            "test_pruner.py::TestRefusals::test_loss_that_is_not_a_number",
            "test_pruner.py::TestRefusals::test_loss_that_is_not_a_number_without_a_block",
        ),
    ),
    Row(
        "a model kept in float16 that overflows on one window, searched in float32",
        ("search/test_kept_precision.py::test_an_overflow_is_told_before_the_search",),
    ),
    Row(
        "the Hub answers 401, 403, 409, 412, 429 or 500, or the connection drops, at every stage of a push",
        ("hub/test_push.py::test_faults",),
    ),
    Row(
        "the disk is full or read-only while a model is saved, at every file, or the folder cannot take its name",
        (
            "test_faults.py::test_disk_full_by_the_operating_system",
            "test_faults.py::test_disk_full_within_the_tokenizer",
            "test_faults.py::test_disk_full_at_every_file",
            "test_faults.py::test_no_folder_can_be_made",
            "test_faults.py::test_the_folder_cannot_take_its_name",
            "test_faults.py::test_a_place_that_is_really_read_only",
            "test_faults.py::test_a_read_only_parent",
            "test_faults.py::test_no_room_for_what_is_pushed",
        ),
    ),
    Row(
        "weights that are pickles, cut short, garbled, missing, or named outside of the folder",
        (
            "test_checkpoint.py::TestPickles::test_are_refused_with_a_remedy_that_works",
            "test_checkpoint.py::TestPickles::test_in_shards",
            "test_checkpoint.py::TestPickles::test_on_the_hub",
            "test_checkpoint.py::TestPickles::test_named_by_the_config",
            "test_checkpoint.py::TestPickles::test_behind_an_adapter",
            "test_checkpoint.py::TestNamedWeights",
            "test_checkpoint.py::TestShards::test_outside_of_the_folder",
            "test_checkpoint.py::TestShards::test_outside_of_the_folder_on_windows",
            "test_checkpoint.py::TestShards::test_missing",
            "test_checkpoint.py::TestShards::test_no_index",
            "test_checkpoint.py::TestDamagedWeights",
        ),
    ),
    Row(
        "a config or tokenizer that is empty, cut short, of the wrong types, deeply nested, or asks for 10^9 blocks",
        (
            "test_checkpoint.py::TestDamagedConfig::test_no_config",
            "test_checkpoint.py::TestDamagedConfig::test_absurd_numbers_of_blocks",
            "test_checkpoint.py::TestDamagedConfig::test_wrong_values",
            "test_checkpoint.py::TestDamagedTokenizer",
        ),
    ),
    Row(
        "a model that bitsandbytes (8 bits) or torchao quantise while it is loaded",
        ("test_quantised.py::test_shortened_is_skipped_is_reloaded", "test_quantised.py::test_search"),
    ),
    Row(
        "a model that is quantised otherwise, compiled, wrapped, brought from the disk while it runs, or shares "
        "weights that no checkpoint can tell",
        (
            "test_checks.py::TestCompiled",
            "test_checks.py::TestDevices::test_offload_to_the_cpu",
            "test_checks.py::TestDevices::test_offload_to_the_disk",
            "test_checks.py::TestDevices::test_blocks_on_the_disk",
            "test_checks.py::TestDevices::test_weights_that_come_when_the_model_runs",
            "test_checks.py::TestSharing",
            "test_checks.py::TestQuantised",
            "test_pruner.py::TestRefusals::test_peft_wrapper",
            "test_pruner.py::TestRefusals::test_model_with_an_adapter",
            "test_pruner.py::TestRefusals::test_compiled_wrapper",
            "test_pruner.py::TestRefusals::test_data_parallel_wrapper",
        ),
    ),
    Row(
        "an error at random moments of a search: exact, racing and reference, in float32 and bfloat16",
        ("test_state.py::test_an_error_in_the_middle_leaves_the_model_as_it_was",),
    ),
    Row(
        "one of two processes that search together fails: in its share, in the journal, in reading the text",
        ("test_ranks.py::test_an_error_of_one_is_told_to_all",),
    ),
    Row(
        "memory runs out in one of two processes",
        ("test_ranks.py::test_what_went_wrong_does_not_change_the_losses[memory runs out in one]",),
    ),
    Row(
        "one of two processes is killed",
        ("test_ranks.py::test_one_that_is_gone_does_not_leave_the_others_waiting",),
    ),
    Row(
        "blocks in host memory, on a device that does not hold the model: errors, changed weights",
        (
            "blocks/test_offload.py::test_what_is_written_to_a_block_stays",
            "blocks/test_offload.py::test_the_model_runs_as_it_is",
            "blocks/test_offload.py::test_the_model_comes_back_after_an_error",
        ),
    ),
    Row(
        "an evaluation, a benchmark or a curve is interrupted, run again with the same `--progress`",
        (
            "evaluation/test_zero_shot.py::test_an_interruption_loses_no_finished_task",
            "evaluation/test_benchmark.py::test_dense_and_pruned",
            "evaluation/test_curve.py::test_an_interruption_loses_no_finished_depth",
        ),
    ),
    Row(
        "what it kept is damaged, or of another model, text or setting",
        (
            "evaluation/test_finished.py::test_under_other_conditions_it_is_measured",
            "evaluation/test_finished.py::test_what_is_damaged_is_measured_again",
            "evaluation/test_zero_shot.py::test_an_interruption_loses_no_finished_task",
            "evaluation/test_curve.py::test_another_text_under_the_same_name_is_measured_anew",
        ),
    ),
    Row(
        "code that a model brings along, without `trust_remote_code=True`",
        ("test_remote_code.py::test_its_code_is_not_run_unasked",),
    ),
    Row(
        "any family of the suite, any subset of blocks, barriers, windows and batch sizes, at random",
        ("test_fuzz.py::test_any_blocks_of_any_model", "test_fuzz.py::test_any_recipe"),
    ),
    Row(
        "a token in the environment, the arguments or the Hub's answer",
        (
            "test_secrets.py::test_where_all_is_well",
            "test_secrets.py::test_in_errors",
            "hub/test_push.py::test_a_token_that_cannot_be_sent_is_not_told",
        ),
    ),
)


def tries_of(item: pytest.Item) -> int:
    """A test makes one try, or as many as its marker says."""
    marker = item.get_closest_marker("tries")
    return marker.args[0] if marker else 1


def tries_in(row: Row, items: Iterable[pytest.Item]) -> int:
    return sum(tries_of(item) for item in items if row.holds(item.nodeid))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before -m and -k choose some: the page can be checked without running what it tells of."""
    config.stash[COLLECTED] = list(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for each row of which a test ran."""
    outcomes = {
        report.nodeid: outcome
        for outcome in ("passed", "skipped", "failed", "error")
        for report in terminalreporter.stats.get(outcome, ())
    }
    lines = []
    for row in TRIED:
        tries: Counter[str] = Counter()
        for item in config.stash.get(COLLECTED, ()):
            if item.nodeid in outcomes and row.holds(item.nodeid):
                tries[outcomes[item.nodeid]] += tries_of(item)
        if tries.keys() - {"skipped"}:
            others = "".join(f", {number} {outcome}" for outcome, number in tries.items() if outcome != "passed")
            lines.append(f"{tries['passed']:4} tries passed{others}: {row.happens}")
    if lines:
        terminalreporter.section("what docs/reliability.md tells of")
        terminalreporter.write_line("\n".join(lines))
