"""The journal: what was measured is read back to the last bit, and nothing else passes for it."""

import json
from pathlib import Path

import pytest
import torch

from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.errors import JournalError
from optimum_sleb.report import JOURNAL_FILE_NAME
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.journal import BatchRecord, Journal, measurement_key

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
        record = journal.recorded(KEY)[0, 3]
        assert journal.recorded("another") == {}
    assert torch.tensor(record.losses).equal(losses)
    assert (record.block_passes, record.head_passes) == (10, 2)


def test_losses_that_are_not_finite_come_back_too(tmp_path: Path) -> None:
    write(tmp_path, torch.tensor([[float("nan"), float("inf"), 1.0]]))
    with Journal(tmp_path, HEADER, resume=True) as journal:
        losses = journal.recorded(KEY)[0, 3].losses[0]
    assert losses[0] != losses[0]
    assert losses[1:] == (float("inf"), 1.0)


def test_what_was_noted_is_written_when_the_run_ends_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path, HEADER, resume=False) as journal:
        journal.note(BatchRecord(KEY, 0, 1, (), 1, 1), torch.ones(1, 1))
        raise KeyboardInterrupt
    with Journal(tmp_path, HEADER, resume=True) as journal:
        assert journal.recorded(KEY)[0, 1].losses == ((1.0,),)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, torch.ones(2, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal(tmp_path, HEADER, resume=True) as journal:
        assert journal.recorded(KEY) == {}
        journal.note(BatchRecord(KEY, 0, 3, (), 10, 2), torch.ones(2, 3))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", ["{", '{"key": 3}', "[]", '"' + "[" * 100_000], ids=lambda damage: damage[:4])
def test_a_damaged_line_in_the_middle(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path, torch.ones(2, 3))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage, lines[1], ""]))
    with pytest.raises(JournalError, match="is damaged in line 2 .*delete that line and all after it"):
        Journal(tmp_path, HEADER, resume=True)


def test_an_empty_journal(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE_NAME).write_text("")
    with pytest.raises(JournalError, match="is empty; delete it"):
        Journal(tmp_path, HEADER, resume=True)


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


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be kept in .*choose another folder"):
        Journal(tmp_path / "file" / "folder", HEADER, resume=False)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, HEADER, resume=False)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("optimum_sleb.search.journal.os.fsync", full)
    with pytest.raises(JournalError, match=r"cannot be written \(.*No space left.*make room and go on with resume"):
        journal.note(BatchRecord(KEY, 0, 3, (), 10, 2), torch.ones(2, 3))
        journal.write()


def test_a_measurement_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimum_sleb.search.journal._SECONDS_BETWEEN_WRITES", 0.0)
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(8, 12)))
    alive, candidates = range(NUM_BLOCKS), range(1, NUM_BLOCKS - 1)
    plain = ExactLosses(model, stack, windows, batch_size=2)
    expected = plain(alive, candidates)

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
        ExactLosses(model, stack, windows, batch_size=2, journal=journal)(alive, candidates)
    hook.remove()

    def count(*_: object) -> None:
        nonlocal batches
        batches += 1

    model.get_input_embeddings().register_forward_hook(count)
    with Journal(tmp_path, HEADER, resume=True) as journal:
        assert len(journal.recorded(measurement_key(alive, candidates, windows.fingerprint))) == 2
        again = ExactLosses(model, stack, windows, batch_size=2, journal=journal)
        assert again(alive, candidates).equal(expected)
    assert (again.block_passes, again.head_passes) == (plain.block_passes, plain.head_passes)
    assert json.loads((tmp_path / JOURNAL_FILE_NAME).read_text().splitlines()[-1])["stop"] == 8
