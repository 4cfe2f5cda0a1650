"""Evaluation texts from local files, against the published ones."""

import gzip
from pathlib import Path

from optimum_sleb.calibration import evaluation_texts as texts


def test_wikitext2_from_its_file_is_the_published_text(tmp_path: Path) -> None:
    (tmp_path / "wikitext-2-raw").mkdir()
    (tmp_path / "wikitext-2-raw" / "wiki.test.raw").write_text(" \n = Title = \n \n Words . \n")
    text, source = texts.local_evaluation_text("wikitext2", tmp_path)
    # The rows on the Hub, joined as the official code joins them.
    assert text == "\n\n".join(["", " = Title = \n", "", " Words . \n"])
    assert source == "wikitext2"


def test_c4_from_the_published_shard_or_from_another_sample(tmp_path: Path) -> None:
    (tmp_path / "c4").mkdir()
    rows = "".join(f'{{"text": "document {number}"}}\n' for number in range(1101))
    (tmp_path / "c4" / "sample.jsonl").write_text(rows.replace("document", "other"))
    text, source = texts.local_evaluation_text("c4", tmp_path)
    assert (text[:17], source) == ("other 0 other 1 o", str(tmp_path / "c4" / "sample.jsonl"))
    with gzip.open(tmp_path / "c4" / "c4-validation.00000-of-00008.json.gz", "wt") as file:
        file.write(rows)
    text, source = texts.local_evaluation_text("c4", tmp_path)
    assert (text.count("document"), text[:21], source) == (1100, "document 0 document 1", "c4")


def test_real_wikitext2(shared_data: Path) -> None:
    text, _ = texts.local_evaluation_text("wikitext2", shared_data)
    assert text.count("\n\n") == 4357
    assert len(text.split()) == 241_211
