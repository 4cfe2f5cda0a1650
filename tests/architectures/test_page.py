from .matrix import Architecture, Verdict
from .page import render_page

VERDICTS = [
    Verdict(Architecture("llama"), "exact", tuple(range(8))),
    Verdict(Architecture("jamba"), "some blocks", (0, 7), "not block 1: a | b"),
    Verdict(Architecture("xlm"), "refused", (), "it has four lists"),
    Verdict(Architecture("llava", with_images=True), "not tried", (), "no tiny model runs: " + "long " * 100),
]


def test_rows() -> None:
    page = render_page(VERDICTS)
    assert "| llama | exact | all |  |" in page
    assert "| jamba | some blocks | 0 7 | not block 1: a \\| b |" in page
    assert "| xlm | refused | none | it has four lists |" in page
    assert "| llava | not tried |  | no tiny model runs: long" in page
    assert all(len(line) < 320 for line in page.splitlines())


def test_counts() -> None:
    page = render_page(VERDICTS)
    assert "1 exact, 1 some blocks, 1 refused." in page
    assert page.index("## Language models\n") < page.index("## Language models with a vision tower\n")
    assert "vision tower\n" not in render_page(VERDICTS[:3])
