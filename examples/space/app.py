"""A page in the browser that makes a causal language model shallower: `make space`, or a Space on Hugging Face."""

import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from events import Events
from form import Form
from limits import Limits

HERE = Path(__file__).parent
LIMITS = Limits.of_environment()
ON_SPACE = "SPACE_ID" in os.environ

with gr.Blocks(title="optimum-sleb", analytics_enabled=False, delete_cache=(3600, 7200)) as page:
    form = Form(LIMITS, on_space=ON_SPACE)
    events = Events(form, LIMITS)
    one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "job", "show_progress": "hidden"}
    quiet = {"api_visibility": "private"}
    # Where the page is one column, what is shown lies below what is asked.
    down = "() => { if (innerWidth < 800) document.getElementById('shown').scrollIntoView({behavior: 'smooth'}) }"
    for button in (form.check, form.prune):
        button.click(None, js=down, api_visibility="private")
    work = {"outputs": form.outputs, **one_at_a_time, **quiet}
    model, recipe = [form.model, form.archive], [form.preset, form.by, form.share, form.number]
    data = [form.text, form.text_file, form.length, form.windows]
    at_once = {"concurrency_limit": None, "show_progress": "hidden", **quiet}
    asked = {"fn": events.on_ask, "inputs": None, "outputs": form.outputs, **at_once}
    form.check.click(**asked).then(events.on_check, model, **work)
    form.prune.click(**asked).then(events.on_prune, [*model, *recipe, *data], **work)
    form.make.click(**asked).then(events.on_make, [form.depth], **work)
    pushed = [form.depth, form.repository, form.private]
    if ON_SPACE:
        form.push.click(**asked).then(events.on_push_signed_in, pushed, **work)
    else:
        form.push.click(**asked).then(events.on_push, [*pushed, form.token], **work)
    form.depth.change(events.on_depth, [form.depth], form.outputs, trigger_mode="always_last", **at_once)
    form.by.change(
        lambda by: (gr.update(visible=by == "share"), gr.update(visible=by == "number")),
        form.by, [form.share, form.number], **at_once,
    )  # fmt: skip
    form.stop.click(events.on_stop, None, None, **at_once)
    form.cancel.click(events.on_cancel, None, None, **at_once)
    page.unload(events.on_leave)

if __name__ == "__main__":
    page.queue(max_size=20)
    theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"])
    page.launch(
        theme=theme, css_paths=HERE / "style.css", max_file_size=int(LIMITS.gigabytes * 1e9), footer_links=["gradio"]
    )
