"""Every architecture of the installed transformers: exact, or refused with the reason, never silently wrong."""

import re

import pytest
import transformers
from packaging.version import Version

from ..conftest import ROOT
from .matrix import Architecture, Verdict, architectures, try_architecture, try_architectures
from .page import render_page

PAGE = ROOT / "docs" / "architectures.md"

# One for each mechanism: plain, lists, thresholds, index lists, periods, shared keys and values, folded constants,
# recurrent layers, values handed from block to block, a vision tower, image features by block number, refusals.
FAST = {
    Architecture("llama"): "exact",
    Architecture("gemma2"): "exact",
    Architecture("deepseek_v3"): "exact",
    Architecture("qwen2_moe"): "exact",
    Architecture("jamba"): "some blocks",
    Architecture("gemma3n_text"): "some blocks",
    Architecture("gpt2"): "exact",
    Architecture("diffllama"): "exact",
    Architecture("mamba2"): "exact",
    Architecture("zaya"): "some blocks",
    Architecture("bart"): "exact",
    Architecture("llava", with_images=True): "exact",
    Architecture("qwen3_vl", with_images=True): "some blocks",
    Architecture("rwkv"): "refused",
    Architecture("xlm"): "refused",
    Architecture("xlnet"): "refused",
    Architecture("gemma4_assistant"): "not tried",
}


@pytest.mark.long
@pytest.mark.parametrize("architecture", FAST, ids=str)
def test_one_of_each_mechanism(architecture: Architecture) -> None:
    verdict = try_architecture(architecture)
    assert verdict.status == FAST[architecture], verdict.reason
    assert bool(verdict.reason) == (verdict.status != "exact")
    assert bool(verdict.removable) == (verdict.status in ("exact", "some blocks"))


@pytest.mark.long
def test_a_fault_is_not_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without renumbering, generation with a cache would go wrong; without slicing, so would the reloaded model.
    monkeypatch.setattr("optimum_sleb.blocks.verify.reason_not_removable", lambda *_, **__: None)
    assert try_architecture(Architecture("jamba")).status == "wrong"


@pytest.mark.long
def test_several_at_once() -> None:
    verdicts = list(try_architectures([Architecture("llama"), Architecture("xlm")], jobs=2))
    assert [verdict.status for verdict in verdicts] == ["exact", "refused"]


# All architectures take ten minutes of two quiet cores; a machine that does other work needs more before it hangs.
pytestmark = pytest.mark.timeout(2400)


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return list(try_architectures(architectures(), jobs=2))


@pytest.mark.matrix
def test_no_architecture_is_wrong(verdicts: list[Verdict]) -> None:
    assert [verdict for verdict in verdicts if verdict.status == "wrong"] == []


@pytest.mark.matrix
def test_nearly_every_language_model_can_be_pruned(verdicts: list[Verdict]) -> None:
    tried = [v for v in verdicts if not v.architecture.with_images and v.status != "not tried"]
    refused = [str(verdict.architecture) for verdict in tried if verdict.status == "refused"]
    assert len(tried) >= 160
    # Before 5.18 big_bird, megatron-bert, rembert and roformer look ahead where no cache is used.
    assert len(refused) <= (6 if Version(transformers.__version__) >= Version("5.18") else 10), refused


@pytest.mark.matrix
def test_the_page_is_up_to_date(verdicts: list[Verdict]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (version,) = re.findall(r"of transformers (\S+),", page)
    if version != transformers.__version__:
        pytest.skip(f"the page is about transformers {version}, installed is {transformers.__version__}")
    fresh = render_page(verdicts)
    if rows(fresh) != rows(page):
        PAGE.write_text(fresh, encoding="utf-8")
        pytest.fail("docs/architectures.md was out of date and has been written anew; look at the changes, commit it")


def rows(page: str) -> list[str]:
    """Names, verdicts and blocks; the wording of a family's own error may differ between machines."""
    return [line.rpartition(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
