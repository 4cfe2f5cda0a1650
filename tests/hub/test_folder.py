from pathlib import Path

import pytest

from optimum_sleb import OutputFolderError
from optimum_sleb.hub.folder import check_output_folder, write_folder
from optimum_sleb.report.folder import recover


def fill(folder: Path) -> None:
    (folder / "model.safetensors").write_text("new")
    (folder / "README.md").write_text("new")


def fill_of(folder: Path) -> None:
    folder.mkdir()
    fill(folder)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_writes_a_new_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "deep" / "out", fill, overwrite=False)
    assert names(tmp_path / "deep" / "out") == {"model.safetensors", "README.md"}
    assert names(tmp_path / "deep") == {"out"}  # no temporary folder is left


def test_keeps_what_is_not_part_of_a_model(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "logs").mkdir(parents=True)
    (out / "logs" / "events").write_text("old")
    write_folder(out, fill, overwrite=False)
    assert names(out) == {"model.safetensors", "README.md", "logs"}
    assert (out / "logs" / "events").read_text() == "old"
    assert names(tmp_path) == {"out"}


def test_stale_weights_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "README.md"):
        (out / name).write_text("old")
    with pytest.raises(OutputFolderError, match=r"already holds a model .*--overwrite"):
        write_folder(out, fill, overwrite=False)
    write_folder(out, fill, overwrite=True)
    assert names(out) == {"model.safetensors", "README.md"}
    assert (out / "README.md").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("gate"), OSError("disk full")])
def test_a_failure_leaves_the_old_folder(error: Exception, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, fill, overwrite=False)

    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise error

    with pytest.raises(OutputFolderError if isinstance(error, OSError) else RuntimeError, match=str(error)):
        write_folder(out, fail, overwrite=True)
    assert (out / "model.safetensors").read_text() == "new"
    assert names(tmp_path) == {"out"}


def test_a_signal_between_the_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rename = tmp_path / "out", Path.rename
    write_folder(out, fill, overwrite=False)

    def interrupted(path: Path, target: Path) -> Path:
        if path.suffix == ".due" and target.suffix != ".new":  # the way back is free
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(out, fill, overwrite=True)
    assert names(out) == {"model.safetensors", "README.md"}
    assert names(tmp_path) == {"out"}


def test_what_an_earlier_version_left(tmp_path: Path) -> None:
    """Killed between its two renames: the new folder, which was whole, gets the name."""
    out = tmp_path / "out[1]"
    write_folder(out, fill, overwrite=False)
    out.rename(tmp_path / ".out[1].0123abcd.new")
    (tmp_path / ".out[1].0123abcd.old").mkdir()
    (tmp_path / ".out[1].0123abcd.old" / "notes.txt").write_text("mine")
    (tmp_path / ".out[1].other.old").mkdir()  # none of ours
    with (
        pytest.warns(UserWarning, match="was killed: .*finished"),
        pytest.raises(OutputFolderError, match="already holds"),
    ):
        check_output_folder(out, overwrite=False)
    assert names(tmp_path) == {"out[1]", ".out[1].other.old"}
    assert names(out) == {"model.safetensors", "README.md", "notes.txt"}


def test_a_replaced_model_never_comes_back(tmp_path: Path) -> None:
    """Killed before the old folder was deleted; then the new one was moved elsewhere."""
    old = tmp_path / ".out.0123abcd.old"
    fill_of(old)
    with pytest.warns(UserWarning, match=r"0123abcd\.old holds the model that it replaced"):
        check_output_folder(tmp_path / "out", overwrite=False)
    assert names(tmp_path) == {old.name}
    with pytest.warns(UserWarning, match="holds the model that it replaced"):
        write_folder(tmp_path / "out", fill, overwrite=False)
    with pytest.warns(UserWarning, match="was deleted"):
        recover(tmp_path / "out")
    assert names(tmp_path) == {"out"}


def test_a_model_put_in_the_place_stays(tmp_path: Path) -> None:
    for name in ("out", ".out.0123abcd.old", ".out.0123abcd.due"):
        fill_of(tmp_path / name)
        (tmp_path / name / "model.safetensors").write_text(name)
    with pytest.warns(UserWarning, match=r"0123abcd\.due stays there, as another was put in its place"):
        recover(tmp_path / "out")
    assert names(tmp_path) == {"out", ".out.0123abcd.old", ".out.0123abcd.due"}
    assert (tmp_path / "out" / "model.safetensors").read_text() == "out"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    (tmp_path / "out").symlink_to("there")
    (tmp_path / "dangling").symlink_to(tmp_path / "deep" / "new")
    for name in ("out", "dangling"):
        write_folder(tmp_path / name, fill, overwrite=False)
        assert (tmp_path / name).is_symlink()
    assert names(tmp_path / "there") == {"model.safetensors", "README.md", "notes.txt"}
    assert names(tmp_path / "deep" / "new") == {"model.safetensors", "README.md"}
    assert names(tmp_path) == {"out", "there", "dangling", "deep"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputFolderError, match="out is a file; name a folder"):
        check_output_folder(tmp_path / "out", overwrite=True)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputFolderError, match="cannot be written .*choose another folder"):
        write_folder(tmp_path / "file" / "out", fill, overwrite=False)
