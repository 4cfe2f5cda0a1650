"""The journal: what was measured is read back to the last bit, and nothing else passes for it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.errors import JournalError
from optimum_sleb.report.folder import JOURNAL_FILE_NAME
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.journal import BatchRecord, Journal, measurement_key, seal, unseal
from optimum_sleb.search.reference import ReferenceLosses

from .. import mishaps
from ..families import NUM_BLOCKS, random_ids, tiny_model

HEADER = {"model": {"weights": "abc"}, "recipe": {"num_samples": 64, "dataset": "c4"}}
KEY = measurement_key([0, 1], [1], "windows")


def write(folder: Path, losses: torch.Tensor) -> Path:
    with Journal(folder, HEADER, resume=False) as journal:
        journal.note(BatchRecord(KEY, 0, losses.shape[1], (), 10, 2), losses)
    return folder / JOURNAL_FILE_NAME


def test_losses_come_back_to_the_last_bit(tmp_path: Path) -> None:
    losses = torch.randn(2, 3) * 1e3
    write(tmp_path, losses)
    with Journal(tmp_path, HEADER, resume=True) as journal:
        record = journal.recorded(KEY, 2, 3)[0, 3]
        assert journal.recorded("another", 2, 3) == {}
    assert torch.tensor(record.losses).equal(losses)
    assert (record.block_passes, record.head_passes) == (10, 2)


def test_losses_that_are_not_finite_come_back_too(tmp_path: Path) -> None:
    write(tmp_path, torch.tensor([[float("nan"), float("inf"), 1.0]]))
    with Journal(tmp_path, HEADER, resume=True) as journal:
        losses = journal.recorded(KEY, 1, 3)[0, 3].losses[0]
    assert losses[0] != losses[0]
    assert losses[1:] == (float("inf"), 1.0)


def test_what_was_noted_is_written_when_the_run_ends_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path, HEADER, resume=False) as journal:
        journal.note(BatchRecord(KEY, 0, 1, (), 1, 1), torch.ones(1, 1))
        raise KeyboardInterrupt
    with Journal(tmp_path, HEADER, resume=True) as journal:
        assert journal.recorded(KEY, 1, 1)[0, 1].losses == ((1.0,),)


@pytest.mark.reliability("a journal that ends in the middle of a line", lost="that line, which is measured again")
@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, torch.ones(2, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal(tmp_path, HEADER, resume=True) as journal:
        assert journal.recorded(KEY, 2, 3) == {}
        journal.note(BatchRecord(KEY, 0, 3, (), 10, 2), torch.ones(2, 3))
    assert path.read_bytes() == whole


@mishaps.journal_that_is_refused
@pytest.mark.parametrize("damage", ["{", '{"key": 3}', "[]", '"' + "[" * 100_000], ids=lambda damage: damage[:4])
def test_a_damaged_line_in_the_middle(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path, torch.ones(2, 3))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage, lines[1], ""]))
    with pytest.raises(JournalError, match="is damaged in line 2 .*delete that line and all after it"):
        Journal(tmp_path, HEADER, resume=True)


@mishaps.journal_that_is_refused
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.0, 1.0, 1.0]]", "1.0, 1.0, 2.0]]"),
        ("[[1.0, 1.0, 1.0], ", "["),
        ('"stop": 3', '"stop": 900'),
        ('"block_passes": 10', '"block_passes": 11'),
        (', "checksum"', ', "sum"'),
        ('"checksum": "', '"checksum": "0'),
    ],
)
def test_a_line_that_was_edited(tmp_path: Path, old: str, new: str) -> None:
    path = write(tmp_path, torch.ones(2, 3))
    head, line = path.read_text().splitlines()
    assert line.count(old) == 1
    path.write_text(f"{head}\n{line.replace(old, new)}\n")
    with pytest.raises(JournalError, match=r"is damaged in line 2 \(it.*checksum.*\); delete that line and all after"):
        Journal(tmp_path, HEADER, resume=True)


@mishaps.journal_that_is_refused
def test_a_first_line_that_was_edited(tmp_path: Path) -> None:
    path = write(tmp_path, torch.ones(2, 3))
    path.write_text(path.read_text().replace('"weights": "abc"', '"weights": "abd"'))
    with pytest.raises(JournalError, match=r"is damaged in line 1 \(its checksum.*\); delete it to start anew\.$"):
        Journal(tmp_path, {**HEADER, "model": {"weights": "abd"}}, resume=True)


@mishaps.journal_that_is_refused
def test_a_journal_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE_NAME).write_text(json.dumps(HEADER) + "\n")
    message = 'begins with \'{"model": .* it is of another version .* go on with .* or delete it to start anew'
    with pytest.raises(JournalError, match=message):
        Journal(tmp_path, HEADER, resume=True)


@mishaps.journal_that_is_refused
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stop": 900}, "it is of windows 0 to 900, of 8"),
        ({"start": -2, "stop": 1}, "it is of windows -2 to 1, of 8"),
        ({"start": 3}, "it is of windows 3 to 3, of 8"),
        ({"losses": [[1.0]]}, "it has 1 rows of losses, of 2 blocks that were tried"),
        ({"losses": [[1.0] * 3] * 3}, "it has 3 rows of losses, of 2 blocks that were tried"),
        ({"losses": [[1.0] * 3, [1.0]]}, "it has a row of 1 losses, of 3 windows"),
        ({"losses": [[1.0], [1.0]]}, "it has a row of 1 losses, of 3 windows"),
        ({"start": 1, "stop": 4}, "a line before it has some of the windows 1 to 4"),
        ({}, "a line before it has some of the windows 0 to 3"),
    ],
)
def test_a_line_that_cannot_be_of_the_measurement(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    """Even where its checksum is right: nothing is broadcast, and nothing ends in a traceback of torch."""
    model = tiny_model("llama")
    windows = TokenWindows(tuple(random_ids(8, 12)))
    alive, candidates = range(NUM_BLOCKS), range(1, 3)
    key = measurement_key(alive, candidates, windows.fingerprint)
    first = {"key": key, "start": 0, "stop": 3, "losses": [[1.0] * 3] * 2, "block_passes": 10, "head_passes": 2}
    rows = [first, first | change] if "line before" in reason else [first | change]
    Journal(tmp_path, HEADER, resume=False).close()
    with (tmp_path / JOURNAL_FILE_NAME).open("a") as file:
        file.writelines(seal(row) + "\n" for row in rows)
    with Journal(tmp_path, HEADER, resume=True) as journal:
        measure = ExactLosses(model, find_decoder_stack(model), windows, journal=journal)
        message = rf"is damaged in line {len(rows) + 1} \({reason}\); delete that line and all after it"
        with pytest.raises(JournalError, match=message):
            measure.measure(alive, candidates)


@mishaps.journal_that_is_refused
def test_an_empty_journal(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE_NAME).write_text("")
    with pytest.raises(JournalError, match="is empty; delete it"):
        Journal(tmp_path, HEADER, resume=True)


@mishaps.journal_that_is_refused
def test_of_another_run(tmp_path: Path) -> None:
    write(tmp_path, torch.ones(2, 3))
    other = {"model": {"weights": "abd"}, "recipe": {"num_samples": 128, "dataset": "c4"}}
    with pytest.raises(JournalError) as error:
        Journal(tmp_path, other, resume=True)
    assert "model.weights is 'abc' there and 'abd' here; recipe.num_samples is 64 there and 128 here" in str(
        error.value
    )


def test_one_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path, torch.ones(2, 3))
    before = path.read_bytes()
    with pytest.raises(JournalError, match="holds the journal of an earlier run; go on from it"):
        Journal(tmp_path, HEADER, resume=False)
    assert path.read_bytes() == before


def test_none_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="There is no journal in"):
        Journal(tmp_path, HEADER, resume=True)


def test_two_searches_do_not_share_one(tmp_path: Path) -> None:
    write(tmp_path / "out", torch.ones(2, 3))
    with Journal(tmp_path / "out", HEADER, resume=True), ThreadPoolExecutor(1) as other:
        second = other.submit(Journal, tmp_path / "out", HEADER, resume=True)
        with pytest.raises(JournalError, match=r"Another process is writing to .*out; wait until it has ended"):
            second.result()
    Journal(tmp_path / "out", HEADER, resume=True).close()


@mishaps.journal_that_is_refused
def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be kept in .*choose another folder"):
        Journal(tmp_path / "file" / "folder", HEADER, resume=False)


@mishaps.journal_that_is_refused
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, HEADER, resume=False)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("optimum_sleb.search.journal.os.fsync", full)
    with pytest.raises(JournalError, match=r"cannot be written \(.*No space left.*make room and go on with resume"):
        journal.note(BatchRecord(KEY, 0, 3, (), 10, 2), torch.ones(2, 3))
        journal.write()


def test_a_measurement_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimum_sleb.search.journal.SECONDS_BETWEEN_WRITES", 0.0)
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(8, 12)))
    alive, candidates = range(NUM_BLOCKS), range(1, NUM_BLOCKS - 1)
    plain = ExactLosses(model, stack, windows, batch_size=2)
    expected = plain.measure(alive, candidates).matrix

    class DiedError(Exception):
        pass

    calls = 0

    def die(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 40:  # in the third of four batches
            raise DiedError

    hook = stack.blocks[5].register_forward_hook(die)
    batches = 0
    with pytest.raises(DiedError), Journal(tmp_path, HEADER, resume=False) as journal:
        calls = 40 - 4 * 2 - 2  # the last block runs once for each of the four candidates of a batch
        ExactLosses(model, stack, windows, batch_size=2, journal=journal).measure(alive, candidates)
    hook.remove()

    def count(*_: object) -> None:
        nonlocal batches
        batches += 1

    model.get_input_embeddings().register_forward_hook(count)
    with Journal(tmp_path, HEADER, resume=True) as journal:
        key = measurement_key(alive, candidates, windows.fingerprint)
        assert len(journal.recorded(key, len(candidates), len(windows))) == 2
        again = ExactLosses(model, stack, windows, batch_size=2, journal=journal)
        assert again.measure(alive, candidates).matrix.equal(expected)
    assert (again.block_passes, again.head_passes) == (plain.block_passes, plain.head_passes)
    assert json.loads((tmp_path / JOURNAL_FILE_NAME).read_text().splitlines()[-1])["stop"] == 8


class DiedError(Exception):
    """As a kill: the run is over."""


@mishaps.memory_runs_out_then_an_interrupt
@pytest.mark.parametrize("kind", [ExactLosses, ReferenceLosses])
@pytest.mark.parametrize(("batch_size", "fits", "measured"), [(4, 2, 1), (4, 2, 2), (4, 2, 3), (8, 2, 1), (7, 3, 2)])
def test_memory_ran_out_before_the_run_died(
    kind: type, batch_size: int, fits: int, measured: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimum_sleb.search.journal.SECONDS_BETWEEN_WRITES", 0.0)
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(14, 12)))
    alive, candidates = range(NUM_BLOCKS), range(1, NUM_BLOCKS - 1)
    batches: list[slice] = []
    dies_after = len(windows)

    class Failing(kind):
        def measure_batch(self, stacks, batch, losses):
            if len(batch) > fits:
                raise torch.OutOfMemoryError
            if len(batches) == dies_after:
                raise DiedError
            batches.append(batch.span)
            return super().measure_batch(stacks, batch, losses)

    def evaluating(**options):
        pairs: list[int] = []
        measure = Failing(model, stack, windows, batch_size, on_progress=pairs.append, **options)
        return measure, pairs

    def counted(measure, pairs):
        return measure.block_passes, measure.head_passes, sum(pairs), measure.batch_size

    plain, plain_pairs = evaluating()
    expected = plain.measure(alive, candidates).matrix
    whole, batches, dies_after = len(batches), [], measured
    with pytest.raises(DiedError), Journal(tmp_path, HEADER, resume=False) as journal:
        evaluating(journal=journal)[0].measure(alive, candidates)
    dies_after = len(windows)
    for batches, left in (([], whole - measured), ([], 0)):  # the second time, all of it is read
        with Journal(tmp_path, HEADER, resume=True) as journal:
            again, pairs = evaluating(journal=journal)
            assert again.measure(alive, candidates).matrix.equal(expected)
        assert counted(again, pairs) == counted(plain, plain_pairs)
        assert len(batches) == left


@pytest.mark.long
def test_another_batch_size_measures_only_what_is_missing(tmp_path: Path) -> None:
    """A batch size that is chosen by the memory that is free may be another when the run goes on."""
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(14, 12)))
    alive, candidates = range(NUM_BLOCKS), range(1, NUM_BLOCKS - 1)
    plain = ExactLosses(model, stack, windows)
    expected = plain.measure(alive, candidates).matrix
    for size in (4, 6, 3, 14):
        folder = tmp_path / str(size)
        with Journal(folder, HEADER, resume=False) as journal:
            ExactLosses(model, stack, windows, 4, journal=journal).measure(alive, candidates)
        lines = (folder / JOURNAL_FILE_NAME).read_text().splitlines(keepends=True)
        (folder / JOURNAL_FILE_NAME).write_text("".join(lines[:3]))
        for _ in range(2):
            with Journal(folder, HEADER, resume=True) as journal:
                again = ExactLosses(model, stack, windows, size, journal=journal)
                torch.testing.assert_close(again.measure(alive, candidates).matrix, expected)
            assert (again.block_passes, again.head_passes) == (plain.block_passes, plain.head_passes)


SEALED_ROW = {"key": "ab", "losses": [[1.5, float("inf")], [0.1, 2e-30]], "name": 'of a "checksum": "', "stop": 3}


def test_what_was_sealed_comes_back() -> None:
    assert unseal(seal(SEALED_ROW).encode()) == SEALED_ROW


def test_every_byte_counts() -> None:
    line = seal(SEALED_ROW).encode()
    for place in range(len(line)):
        damaged = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        with pytest.raises(ValueError, match="checksum"):
            unseal(damaged)
        with pytest.raises(ValueError, match="checksum"):
            unseal(line[:place])
