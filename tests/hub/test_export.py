"""The cut as others' tools take it, checked by what these tools do with it."""

from dataclasses import replace

import pytest
import yaml

from optimum_sleb import PruningReport, ReportError
from optimum_sleb.hub.export import is_plain_cut, mergekit_yaml, prune_layers
from optimum_sleb.report.records import HealingRecord

from ..report.test_report import make_report


def merged(text: str) -> list[int]:
    """The blocks of the merge, one by one, as mergekit stacks them: each range from its first to before its last."""
    merge = yaml.safe_load(text)
    assert merge["merge_method"] == "passthrough"
    ranges = [source["layer_range"] for part in merge["slices"] for source in part["sources"]]
    return [block for first, end in ranges for block in range(first, end)]


@pytest.mark.parametrize("removed", [(2, 4, 1), (0,), (7,), (0, 7), (1, 2, 3, 4, 5, 6), (0, 2, 4, 6)])
def test_both_are_the_same_cut(removed: tuple[int, ...]) -> None:
    report = make_report(removed)
    kept = [block for block in range(8) if block not in removed]
    assert merged(mergekit_yaml(report)) == kept == list(report.blocks_after)
    listed = {int(block) for block in prune_layers(report).split(",")}
    assert [block for block in range(8) if block not in listed] == kept


def test_several_runs_are_one_cut() -> None:
    report = make_report((5, 3), previous=make_report((2, 4)))
    assert merged(mergekit_yaml(report)) == [0, 1, 6, 7]
    assert prune_layers(report) == "2,3,4,5\n"


def models(text: str) -> set[str]:
    return {source["model"] for part in yaml.safe_load(text)["slices"] for source in part["sources"]}


def test_the_dense_model_is_named() -> None:
    report = make_report()
    assert models(mergekit_yaml(report)) == {"me/dense"}
    assert models(mergekit_yaml(replace(report, loading={"revision": "v1"}))) == {"me/dense@v1"}
    assert models(mergekit_yaml(replace(report, loading={"revision": "v1"}), "other/one@v2")) == {"other/one@v2"}
    strange = "/a: b\n- {x}# 'y'"
    assert models(mergekit_yaml(replace(report, base_model=strange))) == {strange}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"base_model": None}, "names no dense model"),
        ({"loading": {"gguf_file": "x.gguf"}}, "x.gguf"),
        ({"base_model": "/models/a@b"}, "/models/a@b"),
    ],
)
def test_what_mergekit_cannot_read_is_refused(changes: dict, named: str) -> None:
    report: PruningReport = replace(make_report(), **changes)
    with pytest.raises(ReportError, match=f"{named}.*--base-model"):
        mergekit_yaml(report)
    assert models(mergekit_yaml(report, "me/dense")) == {"me/dense"}


def test_what_the_cut_lacks_is_told() -> None:
    healed = replace(make_report(), healing=(HealingRecord("LoRA", "c4", 10, 5.0),))
    assert is_plain_cut(make_report())
    assert not is_plain_cut(healed)
    assert not is_plain_cut(make_report((5,), previous=healed))
    assert "compensated or healed" in mergekit_yaml(healed).splitlines()[0]
    assert "compensated or healed" not in mergekit_yaml(make_report())
