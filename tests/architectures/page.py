"""The page docs/architectures.md, written from the verdicts on all architectures."""

from collections import Counter
from collections.abc import Sequence

import torch
import transformers

from .matrix import Verdict
from .sizes import NUM_BLOCKS

_MAX_REASON = 240

_HEAD = """# Architectures

Every decoder-only language model of transformers {transformers}, tried as a tiny random model of {num_blocks} blocks
with every per-layer mechanism of its config switched on (torch {torch}, CPU, float32). Written by

```bash
make matrix
```

Removed were the first block, one in the middle, the last, two neighbours and a scattered third. *Exact* means: the
logits of the pruned model in memory, of the saved and reloaded one, and of the dense one with these blocks skipped are
the same; generation with a cache gives what it gives without (where it does in the dense model); no weight is missing,
left over or of another shape; and the search's loss of a candidate is the loss of the model that was really pruned so.
*Some blocks*: exact for the blocks named, the others are barred before the search. *Refused*: said before any search.
*Not tried*: no tiny model could be built or run here.

In half precision a few let fewer blocks go, because constants that depend on a block's depth are folded into its
weights only where that is exact: gpt2 and gpt-sw3 (with `scale_attn_by_inverse_layer_idx`) and diffllama keep all but
the last.
"""


def render_page(verdicts: Sequence[Verdict]) -> str:
    """Return the page as Markdown."""
    lines = [_HEAD.format(transformers=transformers.__version__, torch=torch.__version__, num_blocks=NUM_BLOCKS)]
    for title, with_images in (("Language models", False), ("Language models with a vision tower", True)):
        chosen = [verdict for verdict in verdicts if verdict.architecture.with_images == with_images]
        if not chosen:
            continue
        counts = Counter(verdict.status for verdict in chosen)
        lines.append(f"## {title}\n")
        lines.append(", ".join(f"{number} {status}" for status, number in counts.most_common()) + ".\n")
        lines.append("| architecture | status | blocks that can go | why not all |\n|---|---|---|---|")
        lines += [_row(verdict) for verdict in chosen]
        lines.append("")
    return "\n".join(lines)


def _row(verdict: Verdict) -> str:
    blocks = "all" if len(verdict.removable) == NUM_BLOCKS else " ".join(map(str, verdict.removable)) or "none"
    if verdict.status == "not tried":
        blocks = ""
    reason = verdict.reason.replace("|", "\\|")
    if len(reason) > _MAX_REASON:
        reason = reason[:_MAX_REASON].rsplit(" ", 1)[0] + " ..."
    return f"| {verdict.architecture.model_type} | {verdict.status} | {blocks} | {reason} |"
