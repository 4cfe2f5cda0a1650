"""The card says what the report says, whatever the names and numbers are."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from optimum_sleb import SLEBConfig
from optimum_sleb.card.base_card import BaseCardFields
from optimum_sleb.card.card import address_card, name_origin, render_card
from optimum_sleb.card.format import format_number
from optimum_sleb.report.records import EvaluationRecord, StepRecord, TargetRecord
from optimum_sleb.report.report import PruningReport

from ..conftest import make_tokenizer
from ..families import tiny_model
from ..report.sets import make_set_report
from ..report.test_report import make_report

FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", flags=re.DOTALL)


def front_matter_of(content: str) -> dict:
    return yaml.safe_load(FRONT_MATTER.match(content)[1])


def table_of(card: ModelCard) -> dict[str, list[str]]:
    rows = [line for line in card.text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    assert all(len(row) == 4 for row in cells), cells
    return {row[0]: row[1:] for row in cells[1:]}


def test_limits_and_targets_are_told() -> None:
    assert "protected" not in render_card(make_report(), "me/pruned").text
    target = TargetRecord("max_memory", 16e9, 2e10, 15.5e9, "the weights and the cache of 1 x 9 tokens in float32")
    recipe = SLEBConfig(max_memory="16GB", protected_blocks="0,3")
    text = render_card(replace(make_report(), recipe=recipe, target=target), "me/pruned").text
    assert "\n\nThe recipe named blocks: protected, so never candidates: blocks 0,3.\n\n" in text
    assert (
        "its target was met: max\\_memory=16.000 GB: 20.000 GB before, 15.500 GB after (the weights and the " in text
    )
    assert "a hatched one is one that the recipe kept; a number is" in text


def test_card_says_what_the_report_says() -> None:
    report = replace(
        make_report(),
        weight_bytes_before=2_000_000,
        weight_bytes_after=1_400_000,
        size_on_disk=1_400_500,
        evaluations=(EvaluationRecord("perplexity", "wikitext2", "8 windows of 20 tokens", 1234.5, 21.25),),
    )
    card = render_card(report, "me/small", BaseCardFields(license="apache-2.0", language=["en", "de"]))
    calibration = "calibration text, on which the blocks were chosen: 2 windows of 20 tokens, in float32"
    assert front_matter_of(card.content) == {
        "base_model": "me/dense",
        "base_model_relation": "finetune",
        "datasets": ["Salesforce/wikitext"],
        "language": ["en", "de"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["sleb", "pruned", "depth-pruning"],
        "model-index": [
            {
                "name": "small",
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {
                            "name": "wikitext2",
                            "type": "Salesforce/wikitext",
                            "config": "wikitext-2-raw-v1",
                            "split": "test",
                        },
                        "metrics": [
                            {"type": "perplexity", "value": 1234.5, "args": {"protocol": "8 windows of 20 tokens"}}
                        ],
                    }
                ],  # and not the perplexity of the calibration text, which is no evaluation
            }
        ],
    }
    assert table_of(card) == {
        "decoder blocks": ["8", "5", ""],
        "parameters": ["1,000", "700", ""],
        "size of the weights": ["2.0 MB", "1.4 MB", "sum over all tensors"],
        "size on disk": ["", "1.4 MB", "files of weights in this repository"],
        "perplexity, wikitext2": ["7.39", "9.49", calibration],
    } | {"perplexity, wikitext2": table_of(card)["perplexity, wikitext2"]}
    assert "| perplexity, wikitext2 | 21.25 | 1,234.50 | 8 windows of 20 tokens |" in card.text
    assert f"| perplexity, wikitext2 | 7.39 | 9.49 | {calibration} |" in card.text
    assert "[me/dense](https://huggingface.co/me/dense) with 3 of its 8 decoder blocks removed" in card.text
    assert "by their numbers in the dense model: 2, 4, 1." in card.text
    assert "0   ■  3  1  ■  2  ■  ■  ■\n" in card.text
    assert "](sleb_loss.png)" in card.text
    assert "The licence is that of the dense model: apache-2.0." in card.text


def test_a_mixture_names_its_data_sets_on_the_hub(tmp_path: Path) -> None:
    report = make_report()
    source = f"me/chat:2+c4:1+{tmp_path}/mine.jsonl:1+{tmp_path}/folder/:1"
    report = replace(report, calibration=replace(report.calibration, source=source))
    card = render_card(report, "small")
    assert front_matter_of(card.content)["datasets"] == ["me/chat", "allenai/c4"]
    assert "me/chat:2+c4:1+mine.jsonl:1+folder/:1" in card.text
    assert str(tmp_path) not in card.content


def test_a_local_path_never_leaves_this_machine(tmp_path: Path) -> None:
    report = make_report()
    report = replace(
        report,
        base_model=str(tmp_path / "gone since"),
        calibration=replace(report.calibration, source=str(tmp_path / "text.txt")),
        recipe=replace(report.recipe, dataset=str(tmp_path / "text.txt")),
    )
    card = render_card(report, "small")
    assert str(tmp_path) not in card.content
    assert "base_model" not in card.content
    assert "datasets" not in front_matter_of(card.content)
    assert "This is a LlamaForCausalLM with 3 of its 8" in card.text
    assert "--model 'gone since' --num-blocks 3 --dataset text.txt" in card.text


def test_what_was_not_measured_is_absent() -> None:
    by_order = replace(make_report(), steps=(StepRecord(2),), search=None, calibration=None, recipe=None)
    card = render_card(by_order, "small")
    assert set(table_of(card)) == {"decoder blocks", "parameters"}
    assert "model-index" not in card.content
    assert "sleb_loss.png" not in card.content
    assert "removed as listed, without a search" in card.text
    assert "optimum-cli sleb remove --model me/dense --blocks 2 --output small" in card.text
    assert "No quality was measured on this model." in card.text
    for nothing in ("None", "N/A", "nan", "undefined"):
        assert nothing not in card.content


def test_over_two_runs_the_dense_model_stays_the_measure() -> None:
    first = make_report((2, 4))
    card = render_card(make_report((5, 3), previous=first), "small")
    assert table_of(card)["decoder blocks"][:2] == ["8", "4"]
    assert table_of(card)["perplexity, wikitext2"][0] == format_number(first.perplexity_before)
    # On other tokens, the dense model was not measured.
    other = replace(first, calibration=replace(first.calibration, fingerprint="cd" * 32))
    card = render_card(make_report((5, 3), previous=other), "small")
    assert table_of(card)["perplexity, wikitext2"][0] == ""
    # The report of the first run was lost.
    lost = replace(make_report((5, 3)), original_num_blocks=10)
    assert table_of(render_card(lost, "small"))["parameters"][0] == ""


def test_remote_code_is_not_hidden() -> None:
    card = render_card(replace(make_report(), loading={"trust_remote_code": "True"}), "small")
    address_card(card, "me/small")
    assert card.text.count('"me/small", trust_remote_code=True)') == 2
    assert "no remote code" not in card.text


def test_a_missing_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    template = tmp_path / "template.md"
    template.write_text("---\n{{ card_data }}\n---\n{{ no_such_thing }}\n")
    monkeypatch.setattr("optimum_sleb.card.card.TEMPLATE", template)
    with pytest.raises(UndefinedError, match="'no_such_thing' is undefined"):
        render_card(make_report(), "small")


def test_a_perplexity_too_large_for_a_float_is_left_out() -> None:
    report = make_report()
    steps = tuple(replace(step, candidate_losses={step.block: 1e9}) for step in report.steps)
    card = render_card(replace(report, steps=steps), "small")
    assert "inf" not in card.content
    assert "model-index" not in card.content


ODD_NAMES = st.text(min_size=1, max_size=30) | st.sampled_from(
    [
        "{{ card_data }}",
        "{% raw %}",
        "a|b",
        'say "hi"',
        "it's",
        "line\nbreak\n---\nlicense: mit",
        "```",
        "---",
        "<script>alert(1)</script>",
        "[x](javascript:y)",
        "日本語/モデル",
        "\\",
        "# title",
        "- item: &anchor *alias !!python/object",
        "\u2028\x85\r",
        "$x$",
        "null",
        "2.0",
    ]
)
PERPLEXITIES = st.floats(min_value=1, max_value=1e12)


@st.composite
def reports(draw: st.DrawFn) -> PruningReport:
    original = draw(st.integers(3, 40))
    removed = draw(st.lists(st.integers(1, original - 2), unique=True, max_size=original - 2, min_size=1))
    num_tokens = draw(st.integers(1, 10**7))
    losses = st.floats(min_value=0, max_value=1e6) | st.sampled_from([float("inf"), float("nan")])
    steps = tuple(StepRecord(block, {block: draw(losses), original - 1: draw(losses)}, 1.0) for block in removed)
    template = make_report((1,))
    source = draw(st.sampled_from(["wikitext2", "c4"]) | ODD_NAMES)
    return replace(
        template,
        base_model=draw(st.none() | st.sampled_from(["me/dense", "gpt2"]) | ODD_NAMES),
        architecture=draw(ODD_NAMES),
        original_num_blocks=original,
        blocks_before=tuple(range(original)),
        parameters_before=draw(st.integers(1, 10**12)),
        parameters_after=draw(st.integers(1, 10**12)),
        steps=steps,
        versions=draw(st.dictionaries(ODD_NAMES, ODD_NAMES, max_size=2)),
        recipe=replace(template.recipe, num_blocks_to_remove=len(removed), dataset=source),
        calibration=replace(template.calibration, source=source, num_tokens=num_tokens),
        search=replace(template.search, loss_before=draw(losses)),
        weight_bytes_before=draw(st.none() | st.integers(1, 10**13)),
        weight_bytes_after=draw(st.none() | st.integers(1, 10**13)),
        size_on_disk=draw(st.none() | st.integers(1, 10**13)),
        evaluations=tuple(
            draw(
                st.lists(
                    st.builds(
                        EvaluationRecord,
                        metric=ODD_NAMES,
                        dataset=st.sampled_from(["wikitext2", "c4"]) | ODD_NAMES,
                        protocol=ODD_NAMES,
                        after=PERPLEXITIES,
                        before=st.none() | PERPLEXITIES,
                    ),
                    max_size=3,
                )
            )
        ),
    )


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(report=reports(), load_from=ODD_NAMES)
def test_every_number_is_the_reports(report: PruningReport, load_from: str) -> None:
    content = render_card(report, load_from).content
    # The front matter parses, by itself and by huggingface_hub's own rules, and comes back as it was.
    data = front_matter_of(content)
    card = ModelCard(content)
    assert isinstance(card.data, ModelCardData)
    assert card.data.to_dict() == data
    assert not re.search(r"\.nan|\.inf", FRONT_MATTER.match(content)[1].lower().replace("name", ""))
    # Its measurements are the report's, to the last digit.
    values = [result.metric_value for result in card.data.eval_results or []]
    assert sorted(values) == sorted(one.after for one in report.evaluations)
    on_calibration = report.perplexity_after is not None and report.perplexity_after < float("inf")
    # So are those of the table, to the digits that it shows: every row has four cells, whatever the names are.
    rows = [line for line in card.text.splitlines() if line.startswith("| ")][1:]
    shown = [[cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", row)[1:-1]] for row in rows]
    assert all(len(row) == 4 for row in shown)
    assert shown[0][1:3] == [str(report.original_num_blocks), str(len(report.blocks_after))]
    assert shown[1][1:3] == [f"{report.parameters_before:,}", f"{report.parameters_after:,}"]
    shown_evaluations = shown[len(shown) - len(values) - on_calibration :]
    for row, evaluation in zip(shown_evaluations, report.evaluations, strict=False):
        assert float(row[2].replace(",", "")) == pytest.approx(evaluation.after, abs=0.0051)
        assert row[1:3] == [format_number(evaluation.before), format_number(evaluation.after)]
    # The strip tells when each block went.
    strip = re.search(r"```text\n(.*?)\n```", card.text, flags=re.DOTALL)[1]
    cells = [cell for line in strip.splitlines() for cell in line.split()[1:]]
    order = {int(cell): block for block, cell in enumerate(cells) if cell != "■"}
    assert tuple(order[step] for step in sorted(order)) == report.removed_blocks
    # Names stay names: nothing is rendered twice, and no line of a name begins a block of Markdown.
    prose = re.sub(r"^```.*?^```$", "", card.text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)(\\\\)*<", prose), "HTML"
    found = re.search(r"AutoModelForCausalLM\.from_pretrained\((.*)\)", card.text)
    assert json.loads(found[1]).split() == "".join(c for c in " ".join(load_from.split()) if c.isprintable()).split()
    fences = [line for line in card.text.splitlines() if line.startswith("```")]
    assert len(fences) % 2 == 0


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(report=reports(), load_from=ODD_NAMES)
def test_a_card_is_addressed_anew(report: PruningReport, load_from: str) -> None:
    card = render_card(report, load_from)
    address_card(card, "me/small")
    assert 'AutoModelForCausalLM.from_pretrained("me/small")' in card.text
    assert 'AutoTokenizer.from_pretrained("me/small")' in card.text
    again = ModelCard(card.content)
    assert isinstance(again.data, ModelCardData)
    assert again.data.model_name in ("small", None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_cannot_be_recorded(value: float) -> None:
    with pytest.raises(ValueError, match="which is no result; record finite numbers only"):
        EvaluationRecord("perplexity", "wikitext2", "8 windows", after=value)


def test_card_of_a_model_that_takes_images() -> None:
    report = replace(make_report(), architecture="LlavaForConditionalGeneration")
    card = render_card(report, "me/small")
    assert front_matter_of(card.content)["pipeline_tag"] == "image-text-to-text"
    assert 'model = AutoModelForImageTextToText.from_pretrained("me/small")' in card.text
    assert 'processor = AutoProcessor.from_pretrained("me/small")' in card.text
    assert "Only the text stack was made shallower" in card.text
    assert "AutoModelForCausalLM" not in card.text


def test_a_criterion_is_no_perplexity() -> None:
    report = make_report()
    search = replace(report.search, criterion="org.my_metrics:soft_errors", loss_before=-4.0)
    steps = tuple(replace(step, candidate_losses={step.block: -3.0}) for step in report.steps)
    report = replace(report, search=search, steps=steps)
    card = render_card(report, "me/small")
    row = table_of(card)[r"mean of org.my\_metrics:soft\_errors, wikitext2"]
    assert row[:2] == ["-2.00", "-1.50"]
    assert "model-index" not in front_matter_of(card.content)
    assert "raised the criterion org.my\\_metrics:soft\\_errors on the calibration text least" in card.text
    before_limits = card.text.partition("## Limits")[0]
    assert "erplexity" not in before_limits
    assert "The only quality above is that on the calibration text" in card.text


def test_the_divergence_is_told_with_its_unit_and_the_perplexity() -> None:
    report = make_report()
    search = replace(report.search, criterion="kl", loss_before=-1e-9, perplexity_before=7.4, perplexity_after=9.9)
    report = replace(report, search=search, recipe=replace(report.recipe, criterion="kl"))
    card = render_card(report, "me/small")
    calibration = "calibration text, on which the blocks were chosen: 2 windows of 20 tokens, in float32"
    assert table_of(card)["KL divergence from the dense model, wikitext2"] == [
        "0.0000",
        "2.25",
        f"{calibration}; in nats a token, mean over predictions",
    ]
    assert table_of(card)["perplexity, wikitext2"] == ["7.40", "9.90", calibration]
    assert list(table_of(card))[-2:] == ["KL divergence from the dense model, wikitext2", "perplexity, wikitext2"]
    assert "model-index" not in front_matter_of(card.content)
    assert "raised the KL divergence from the dense model on the calibration text least" in card.text
    assert "![KL divergence from the dense model on the calibration text against" in card.text
    assert "whoever made this model" not in card.text
    assert "--criterion kl" in card.text
    # A shallower cut was not measured again.
    assert "perplexity, wikitext2" not in table_of(render_card(report.cut(2), "me/small"))


def test_a_later_divergence_is_not_from_the_dense_model() -> None:
    first, second = make_report((2, 4)), make_report((5, 3), previous=make_report((2, 4)))
    search = replace(second.search, criterion="kl", loss_before=0.0, perplexity_before=9.0, perplexity_after=9.9)
    table = table_of(render_card(replace(second, search=search), "me/small"))
    assert table["KL divergence from the model before, wikitext2"][:2] == ["", "2.25"]
    assert table["perplexity, wikitext2"][:2] == [format_number(first.perplexity_before), "9.90"]


def test_a_search_over_sets_is_told() -> None:
    recipe = SLEBConfig(num_blocks_to_remove=3, search_space="runs", compensate="after")
    report = replace(make_set_report(), recipe=recipe)
    text = render_card(report, "me/small").text
    assert "Removed, as a set, by their numbers in the dense model: 3, 4, 5." in text
    assert "A square is a block that is left; an empty one is a block that went with its set." in text
    assert "Here 15 sets of blocks were compared instead" in text
    assert "(the best 4 of each size with one block more, and every run of neighbouring blocks), by how much" in text
    assert "| 1 | 5 | 4 | 8.37 |\n| 2 | 2 to 3 | 5 | 8.58 |\n| 3 | 3 to 5 | 6 | 8.80 |\n" in text
    assert "holds the recipe, `sleb_report.json` every set's loss at every depth." in text
    assert "that no fit had seen" not in text
    last = report.depths[-1]
    last = replace(last, sets=(replace(last.sets[0], held_back_loss=9.0), *last.sets[1:]), compensated_loss=80.0)
    text = render_card(replace(report, depths=(*report.depths[:-1], last)), "me/small").text
    assert "the one was chosen that then did best on calibration windows that no fit had seen." in text
    assert "| 3 | 3 to 5 | 6 | 7.39, compensated |\n" in text
    assert "optimum-cli sleb prune --model me/dense --num-blocks 3 --dataset wikitext2 " in text


def test_sets_after_steps_are_told() -> None:
    text = render_card(make_set_report(previous=make_report((7, 2)), best=((5,), (1, 3), (3, 4, 5))), "small").text
    assert "Removed, by their numbers in the dense model: 7, 2, 3, 4, 5." in text
    assert "a number is the step at which the block went; an empty one is a block that went with its set." in text


def test_runs_by_different_criteria_are_not_compared() -> None:
    first, second = make_report((2, 4)), make_report((5, 3), previous=make_report((2, 4)))
    assert "perplexity, wikitext2" in table_of(render_card(second, "me/small"))
    assert table_of(render_card(second, "me/small"))["perplexity, wikitext2"][0]
    search = replace(second.search, criterion="m:f")
    assert table_of(render_card(replace(second, search=search), "me/small"))["mean of m:f, wikitext2"][0] == ""
    assert first.criterion is None


@pytest.mark.parametrize("code", ["{{ 1234567 * 7 }}", "{% if true %}8641969{% endif %}", "{{ card_data }}"])
def test_a_report_is_data_and_no_template(code: str, tmp_path: Path) -> None:
    """Every text that a stranger's report can hold, as code of the template's language."""
    report = make_report()
    report = replace(
        report,
        base_model=code,
        architecture=code,
        created=code,
        versions={code: code},
        recipe=replace(report.recipe, dataset=code, text_column=code),
        calibration=replace(report.calibration, source=code, fingerprint=code),
        search=replace(report.search, method=code, reason=code, dtype=code, device=code, criterion=code),
        barred_blocks={3: code},
        loading={"revision": code, "dtype": code, "gguf_file": code},
        weights_sha256=code,
        evaluations=(EvaluationRecord(code, code, code, 2.0),),
    )
    report.save(tmp_path)
    card = render_card(PruningReport.load(tmp_path), code)
    address_card(card, f"me/{code}")
    assert "8641969" not in card.content.replace(code, "")
    assert card.content.count("library_name: transformers") == 1, "the front matter stands once"
    assert front_matter_of(card.content)["library_name"] == "transformers"


def test_what_is_given_of_a_local_dense_model() -> None:
    report = replace(make_report(), base_model="/home/me/model.gguf")
    fields = BaseCardFields(license="apache-2.0", language=["en"], base_model="me/dense_1")
    card = render_card(report, "me/small", fields)
    data = front_matter_of(card.content)
    assert (data["license"], data["language"], data["base_model"]) == ("apache-2.0", ["en"], "me/dense_1")
    assert data["base_model_relation"] == "finetune"
    assert "[me/dense\\_1](https://huggingface.co/me/dense_1) with 3 of its 8 decoder blocks removed" in card.text

    later = render_card(report, "me/small")
    later.text = later.text.replace("## Use", "Added by hand.\n\n## Use")
    name_origin(later, fields)
    assert later.text.replace("Added by hand.\n\n", "") == card.text
    assert front_matter_of(later.content) == data


def test_the_use_of_a_card_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_model().save_pretrained(tmp_path / "small")
    make_tokenizer(add_bos=False).save_pretrained(tmp_path / "small")
    card = render_card(make_report(), str(tmp_path / "small"))
    code = re.search(r"```python\n(.*?)```", card.text, flags=re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) == 5
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out
