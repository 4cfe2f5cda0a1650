"""What may befall a run, where tests of several files try it; each is a row of docs/reliability.md."""

import pytest

memory_runs_out_then_an_interrupt = pytest.mark.reliability(
    "memory runs out, then an interrupt: exact, racing and reference search",
    lost="nothing: the report is identical, with the passes and the batch size",
)
journal_that_is_refused = pytest.mark.reliability(
    "a journal that is empty, damaged, edited, of another model, config, recipe, data, batch size or version, or "
    "cannot be written",
    lost="nothing; refused with what differs, or the line",
)
loss_that_is_not_finite = pytest.mark.reliability(
    "a loss that is NaN or infinite: of one candidate, of all", lost="that candidate, which is told; or the run ends"
)
model_that_is_refused = pytest.mark.reliability(
    "a model that is quantised otherwise, compiled, wrapped, brought from the disk while it runs, or shares weights "
    "that no checkpoint can tell",
    lost="nothing; refused before the search, with the remedy",
)
measuring_is_interrupted = pytest.mark.reliability(
    "an evaluation, a benchmark or a curve is interrupted, run again with the same `--progress`",
    lost="nothing that was finished: only the rest is measured",
)
kept_measurement_does_not_fit = pytest.mark.reliability(
    "what it kept is damaged, or of another model, text or setting", lost="that task, which is measured again"
)
token_at_hand = pytest.mark.reliability(
    "a token in the environment, the arguments or the Hub's answer",
    lost="it is told to nobody: no error, log, report or card",
)
