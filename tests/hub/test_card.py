import yaml

from optimum_sleb.hub.card import render_card

from ..test_report import make_report


def test_card_says_what_the_report_says() -> None:
    report = make_report()
    card = render_card(report, "me/small")
    front_matter = yaml.safe_load(card.content.split("---")[1])
    assert front_matter == {
        "base_model": "me/dense",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sleb", "pruned", "depth-pruning"],
    }
    assert "| decoder blocks | 8 | 5 |" in card.text
    assert "| perplexity on the calibration text | 7.39 | 9.49 |" in card.text
    assert "`me/dense` with 3 of its 8 decoder blocks removed" in card.text
    assert "in order (numbers of the dense model): 2, 4, 1." in card.text


def test_a_local_path_never_leaves_this_machine(tmp_path) -> None:
    from dataclasses import replace

    card = render_card(replace(make_report(), base_model=str(tmp_path)), "small")
    assert str(tmp_path) not in card.content
    assert "base_model" not in card.content


def test_what_was_not_measured_is_absent() -> None:
    from dataclasses import replace

    from optimum_sleb.report import StepRecord

    by_order = replace(make_report(), steps=(StepRecord(2),), search=None, calibration=None, recipe=None)
    card = render_card(by_order, "small")
    assert "perplexity on" not in card.text
    assert "removed as listed, without a search" in card.text
    assert "None" not in card.content
