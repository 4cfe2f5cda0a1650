"""The layout of the page: what can be filled in, and what is shown."""

import gradio as gr
import torch
from limits import Limits
from pictures import strip

# So much text that a search of a small model takes minutes.
_WINDOWS = 32 if torch.cuda.is_available() else 4

_INTRO = """# Make a language model shallower

Whole decoder blocks go, the ones that are missed least ([SLEB](https://arxiv.org/abs/2402.09025)). What comes out is
an ordinary checkpoint with fewer layers: smaller, and faster on any hardware."""


class Form:
    """The components of the page."""

    def __init__(self, limits: Limits, *, on_space: bool) -> None:
        gr.Markdown(_INTRO, elem_id="intro")
        with gr.Row(elem_id="page"):
            with gr.Column(scale=2, min_width=320, elem_id="asked"):
                self._ask_for_model(limits)
                self._ask_for_recipe(limits)
            with gr.Column(scale=3, min_width=320, elem_id="shown"):
                self.message = gr.HTML(elem_id="message")
                self.empty = gr.HTML(_EMPTY, elem_id="empty")
                self.progress = gr.HTML(elem_id="progress")
                with gr.Row(visible=False, elem_id="ways-out") as self.ways_out:
                    self.stop = gr.Button("Stop here", size="sm", min_width=100, elem_id="stop")
                    self.cancel = gr.Button("Cancel", size="sm", min_width=100, elem_id="cancel")
                self.strip = gr.HTML(elem_id="strip")
                self.chart = gr.HTML(elem_id="chart")
                with gr.Column(visible=False, elem_id="result") as self.result:
                    self._show_result(on_space=on_space)

    def _ask_for_model(self, limits: Limits) -> None:
        gr.Markdown("### 1. Model")
        self.model = gr.Textbox(
            label="Name on the Hub" + (", or a folder" if limits.folders else ""),
            placeholder="HuggingFaceTB/SmolLM2-135M", max_lines=1, elem_id="model",
        )  # fmt: skip
        with gr.Accordion("Or upload one", open=False, elem_id="upload-model"):
            self.archive = gr.File(
                label=f"A zip of the model's folder, up to {limits.gigabytes:g} GB", file_types=[".zip"], height=110,
                elem_id="archive",
            )  # fmt: skip
        self.check = gr.Button("Check which blocks may go", elem_id="check")

    def _ask_for_recipe(self, limits: Limits) -> None:
        gr.Markdown("### 2. How much, and how")
        self.by = gr.Radio([("Share of the blocks", "share"), ("Number", "number")], value="share", show_label=False)
        self.share = gr.Slider(2, 60, value=20, step=1, label="Blocks to remove, %", elem_id="share")
        self.number = gr.Number(
            value=4, precision=0, minimum=1, label="Blocks to remove", visible=False, elem_id="number"
        )
        self.preset = gr.Radio(
            [("Published", "published"), ("Best quality, slower", "best")], value="published",
            label="Recipe", elem_id="preset",
        )  # fmt: skip
        self.text = gr.Textbox(
            label="Calibration text", placeholder="Text of the kind that the model is for. Left empty: WikiText-2.",
            lines=3, max_lines=6, elem_id="text",
        )  # fmt: skip
        with gr.Accordion("A text file, and how much is read of it", open=False):
            self.text_file = gr.File(
                label="Text, JSON lines, CSV or Parquet", height=110,
                file_types=[".txt", ".jsonl", ".csv", ".parquet"],
                elem_id="text-file",
            )  # fmt: skip
            with gr.Row():
                self.length = gr.Number(
                    value=256, precision=0, minimum=2, label="Tokens of a window", min_width=120, elem_id="length"
                )
                self.windows = gr.Number(
                    value=_WINDOWS, precision=0, minimum=1, label="Windows", min_width=120, elem_id="windows"
                )
        self.prune = gr.Button("Search and prune", variant="primary", elem_id="prune")
        gr.Markdown(
            f"One visitor is served at a time, the others wait. A search may take {limits.minutes:g} minutes; what it "
            "has found by then is kept.", elem_id="limits",
        )  # fmt: skip

    def _show_result(self, *, on_space: bool) -> None:
        gr.Markdown("### 3. Take any depth of this search")
        self.depth = gr.Slider(1, 2, value=1, step=1, label="Blocks removed", elem_id="depth")
        self.numbers = gr.HTML(elem_id="numbers")
        with gr.Row():
            self.make = gr.Button("Make this model", variant="primary", min_width=140, elem_id="make")
            self.download = gr.DownloadButton("Download", visible=False, min_width=140, elem_id="download")
        with gr.Accordion("Push to the Hub", open=False, elem_id="push-part"):
            if on_space:
                self.sign_in: gr.LoginButton | None = gr.LoginButton()
            else:
                self.sign_in = None
            self.token = gr.Textbox(
                label="Token that may write to your models", type="password", visible=not on_space,
                info="Used for this push alone; neither stored nor logged.", max_lines=1, elem_id="token",
            )  # fmt: skip
            self.repository = gr.Textbox(
                label="Repository", placeholder="me/my-model-sleb", max_lines=1, elem_id="repository"
            )
            self.private = gr.Checkbox(label="Private", value=True, elem_id="private")
            self.push = gr.Button("Push this depth", elem_id="push")

    def busy(self, progress: str) -> dict:
        """Return the page while work runs."""
        return {
            **{button: gr.update(interactive=False) for button in self._starts},
            self.ways_out: gr.update(visible=True),
            self.empty: gr.update(visible=False),
            self.message: "",
            self.progress: progress,
        }

    def idle(self, message: str = "", kind: str = "error") -> dict:
        """Return the page when no work runs, with a message where there is one."""
        from html import escape

        box = f'<div class="sleb-message sleb-{kind}" role="alert">{escape(message)}</div>' if message else ""
        return {
            **{button: gr.update(interactive=True) for button in self._starts},
            self.ways_out: gr.update(visible=False),
            self.message: box,
            self.progress: "",
        }

    @property
    def _starts(self) -> list:
        return [self.check, self.prune, self.make, self.push]

    @property
    def outputs(self) -> list:
        """Return all that an event may change."""
        shown = [self.message, self.empty, self.progress, self.strip, self.chart, self.result, self.ways_out]
        return [*shown, *self._starts, self.depth, self.numbers, self.download, self.token]


_EMPTY = f"""<div class="sleb-empty"><p>Name a model and press <b>Check</b>: in seconds you see which of its blocks may
go. Then <b>Search</b>: each candidate's loss appears here as it is measured, and one search gives every depth,
such as this one of another model:</p>
{strip(range(24), (9, 10, 17, 18, 20))}</div>"""
