"""The page about Python is run as it is written, with a tiny model in the place of the large one."""

import re
from pathlib import Path

import pytest

from optimum_sleb.hub.companions import is_companion

from .conftest import ROOT
from .hub.local_hub import LocalHub

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_page_runs(
    model_folder: Path, text_file: Path, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    code = code.replace("HuggingFaceTB/SmolLM2-135M", str(model_folder))
    code = code.replace('dataset="wikitext2"', f'dataset="{text_file}", window_length=20')
    names: dict = {}
    exec(compile(code, "python.md", "exec"), names)
    assert (tmp_path / "losses.png").is_file()
    assert names["report"] == names["pruner"].report
    assert names["recipe"].num_blocks_to_remove == 2
    columns = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE)))
    assert [*columns] == names["table"].columns.tolist()


def test_the_files_are_those_of_the_list() -> None:
    for name in (
        "tokenizer.model",
        "tekken.json",
        "generation_config.json",
        "LICENSE",
        "NOTICE",
        "COPYING",
        "USE_POLICY",
    ):
        assert f"`{name}`" in PAGE
        assert is_companion(name)
    assert not is_companion("params.json")
