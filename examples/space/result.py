"""What a visitor takes away: a depth of the search, as numbers, as an archive, or pushed to the Hub."""

import shutil
import zipfile
from pathlib import Path

from job import Job
from limits import PageError
from pictures import shown
from search import Found, make


def numbers(found: Found, depth: int) -> str:
    """Return metric and size at a depth, beside those of the dense model."""
    view, (before, bytes_before), (after, bytes_after) = found.view, found.sizes[0], found.sizes[depth]
    value = view.steps[depth - 1].value
    rows = [
        ("Blocks", f"{len(view.blocks) - depth}", f"of {len(view.blocks)}"),
        (view.metric.capitalize(), shown(value, view.metric), f"before {shown(view.before, view.metric)}"),
        ("Parameters", f"{after / 1e6:,.1f} M" if after > 1e6 else f"{after:,}", f"-{1 - after / before:.1%}"),
        ("Size", size_in_words(bytes_after), f"before {size_in_words(bytes_before)}"),
    ]
    report = found.report
    if report.criterion and depth == len(view.steps) and report.perplexity_before and report.perplexity_after:
        rows.insert(2, ("Perplexity", f"{report.perplexity_after:,.2f}", f"before {report.perplexity_before:,.2f}"))
    cells = "".join(
        f'<div class="sleb-number"><span>{name}</span><b>{now}</b><span>{then}</span></div>'
        for name, now, then in rows
    )
    return f'<div class="sleb-numbers">{cells}</div>'


def size_in_words(size: int) -> str:
    """Return a number of bytes as a reader takes it in."""
    unit, one = next((pair for pair in (("GB", 1e9), ("MB", 1e6)) if size >= pair[1]), ("kB", 1e3))
    return f"{size / one:,.3g} {unit}"


def archive(job: Job, found: Found, depth: int, folder: Path) -> Path:
    """Return a zip with the model of a depth: weights, config, tokenizer, report and card."""
    name = f"{found.source.shown.rpartition('/')[2]}-sleb-{depth}"
    pruner = make(job, found, depth)
    job.tell("Saving and checking the folder")
    saved = pruner.save_pretrained(folder / name, overwrite=True)
    job.tell("Packing it")
    for earlier in folder.glob("*-sleb-*.zip"):  # as large as models, and the page offers the last one alone
        earlier.unlink()
    target = folder / f"{name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:  # weights do not get smaller
        for file in sorted(path for path in saved.rglob("*") if path.is_file()):
            packed.write(file, Path(name, file.relative_to(saved)))
    shutil.rmtree(saved)
    return target


def push(job: Job, found: Found, depth: int, repository: str, private: bool, token: str | None) -> str:
    """Push the model of a depth with the visitor's own token, which is used for this alone, and return its address."""
    if not token:
        raise PageError("There is no token; sign in, or paste one that may write to your models.")
    if not repository.strip():
        raise PageError("There is no repository yet; name one, such as me/my-model-sleb.")
    pruner = make(job, found, depth)
    job.tell("Pushing to the Hub")
    return pruner.push_to_hub(repository.strip(), private=private or None, token=token.strip())
