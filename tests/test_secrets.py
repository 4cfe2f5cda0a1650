"""A token is used, and told to nobody: no message, log, report or saved file has it."""

import logging
import traceback
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from optimum_sleb import SLEBError, SLEBPruner

from . import mishaps
from .hub.local_hub import TOKEN, LocalHub


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("transformers", "huggingface_hub"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    return caplog


@mishaps.token_at_hand
def test_where_all_is_well(
    hub: LocalHub,
    model_folder: Path,
    tmp_path: Path,
    everything: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    HfApi().create_repo("me/dense")
    HfApi().upload_folder(repo_id="me/dense", folder_path=model_folder)
    pruner = SLEBPruner.from_pretrained("me/dense", token=TOKEN)
    pruner.remove([2])
    folder = pruner.save_pretrained(tmp_path / "pruned")
    assert f"Bearer {TOKEN}" in hub.tokens
    assert not [path for path in folder.iterdir() if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in everything.text + "".join(capfd.readouterr()) + repr(vars(pruner))


@mishaps.token_at_hand
@pytest.mark.parametrize(
    "ending", ["", "\n", " ", "\x00", "ß"], ids=["unknown", "line break", "space", "zero", "letter"]
)
def test_in_errors(ending: str, hub: LocalHub, everything: pytest.LogCaptureFixture, capfd) -> None:
    with pytest.raises(SLEBError) as error:
        SLEBPruner.from_pretrained("me/nothing", token=f"{TOKEN}{ending}")
    told = "".join(traceback.format_exception(error.value))
    assert TOKEN not in told + everything.text + "".join(capfd.readouterr())
