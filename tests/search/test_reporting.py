"""What is written to a service is what the search did. The services are not installed: fakes take their places."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from optimum_sleb import ConfigError, PruningReport, SearchCallback, SLEBConfig, SLEBPruner
from optimum_sleb.search.reporting import services_of

from ..conftest import ROOT
from ..families import random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


class Service:
    """Fake modules that keep what they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.told: list[tuple[Any, ...]] = []

    def module(self, name: str, **members: Any) -> ModuleType:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(members)
        self._monkeypatch.setitem(sys.modules, name, module)
        return module

    def keep(self, name: str) -> Any:
        return lambda *args, **named: self.told.append((name, *args, named) if named else (name, *args))

    def tensorboard(self) -> None:
        def open_writer(log_dir: str) -> SimpleNamespace:
            self.told.append(("open", log_dir))
            names = {"add_text": "text", "add_scalar": "scalar", "flush": "flush", "close": "close"}
            return SimpleNamespace(**{name: self.keep(told) for name, told in names.items()})

        self.module("tensorboard")
        self.module("torch.utils.tensorboard", SummaryWriter=open_writer)

    def trackio(self) -> None:
        self.module("trackio", init=self.keep("init"), log=self.keep("log"), finish=self.keep("finish"))

    def wandb(self, run: object = None) -> None:
        config = SimpleNamespace(update=self.keep("config"))
        names = ("init", "log", "finish", "define_metric")
        self.module("wandb", run=run, config=config, **{name: self.keep(name) for name in names})

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [told[1:] for told in self.told if told[0] == name]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    for name in ("TENSORBOARD_LOGGING_DIR", "TRACKIO_PROJECT", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return Service(monkeypatch)


def prune(report_to: Any, folder: Path | None = None, callbacks: Any = (), **recipe: Any) -> PruningReport:
    pruner = SLEBPruner(tiny_model())
    config = SLEBConfig(num_blocks_to_remove=2, **recipe)
    pruner.prune(config, calibration=random_ids(6, 20), report_to=report_to, progress_dir=folder, callbacks=callbacks)
    return pruner.report


def perplexities(report: PruningReport) -> list[float | None]:
    return [report.value_of(loss) for loss in (report.search.loss_before, *(step.loss for step in report.steps))]


def test_tensorboard(service: Service, tmp_path: Path) -> None:
    service.tensorboard()
    report = prune("tensorboard", tmp_path, compensate="during")
    ((folder,),) = service.of("open")
    assert folder.startswith(f"{tmp_path}/runs/")
    scalars = {(name, step): value for name, value, step in service.of("scalar")}
    assert [scalars["sleb/perplexity", step] for step in range(3)] == perplexities(report)
    assert [scalars["sleb/blocks", step] for step in range(3)] == [6, 5, 4]
    assert [scalars["sleb/removed_block", step] for step in (1, 2)] == list(report.removed_blocks)
    assert scalars["sleb/perplexity_compensated", 2] == report.perplexity_after
    ((name, table),) = service.of("text")
    assert name == "sleb/recipe"
    assert "| compensate | during |" in table
    assert service.told[-1] == ("close",)


def test_tensorboard_elsewhere(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service.tensorboard()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    prune("tensorboard")
    assert service.of("open") == [(str(tmp_path / "logs"),)]


def test_the_divergence_has_a_short_name(service: Service) -> None:
    service.trackio()
    report = prune("trackio", criterion="kl", compensate="after")
    rows = [row for (row,) in service.of("log")]
    assert [row["sleb/kl"] for row in rows if "sleb/kl" in row] == perplexities(report)
    assert [row["sleb/kl_compensated"] for row in rows if "sleb/kl_compensated" in row] == [report.criterion_after]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_runs(service: Service, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    getattr(service, name)()
    monkeypatch.setenv(f"{name.upper()}_PROJECT", "mine")
    report = prune([name], criterion="tests.criteria:gain")
    (init,), rows = service.of("init"), [row for (row,) in service.of("log")]
    assert init[0]["project"] == "mine"
    recipe = init[0]["config"] if name == "trackio" else service.of("config")[0][0]["sleb"]
    assert recipe["num_blocks_to_remove"] == 2
    assert [row["sleb/gain"] for row in rows] == perplexities(report)
    assert [row["sleb/step"] for row in rows] == [0, 1, 2]
    assert service.told[-1] == ("finish",)


def test_a_run_that_is_open_stays_open(service: Service) -> None:
    service.wandb(run=object())
    prune("wandb")
    assert service.of("init") == service.of("finish") == []
    assert len(service.of("log")) == 3


class Broken(SearchCallback):
    """Ends the search with an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_block_removed(self, *of: Any) -> None:
        raise self.error


def fail(*_args: Any, **_named: Any) -> None:
    raise OSError("no network")


ENDS = {"tensorboard": ("close",), "trackio": ("finish",), "wandb": ("finish", {"exit_code": 1})}


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()], ids=["an error", "an interrupt"])
@pytest.mark.parametrize("name", ENDS)
def test_a_run_is_closed_after(name: str, error: BaseException, service: Service, tmp_path: Path) -> None:
    getattr(service, name)()
    with pytest.raises(type(error)) as raised:
        prune(name, tmp_path, callbacks=[Broken(error)])
    assert raised.value is error
    assert service.told[-1] == ENDS[name]
    assert len(service.of(ENDS[name][0])) == 1


def test_a_run_that_was_open_stays_open_after_an_error(service: Service) -> None:
    service.wandb(run=object())
    with pytest.raises(ValueError, match="broken"):
        prune("wandb", callbacks=[Broken(ValueError("broken"))])
    assert service.of("init") == service.of("finish") == []


def test_a_service_that_fails_to_open_leaves_none_open(service: Service) -> None:
    service.trackio()
    service.wandb()
    sys.modules["wandb"].config.update = fail  # when its run is open already
    with pytest.raises(OSError, match="no network"):
        prune(["trackio", "wandb"])
    assert service.of("finish") == [(), ({"exit_code": 1},)]


def test_what_cannot_be_closed_hides_no_error(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.trackio()
    service.wandb()
    sys.modules["trackio"].finish = fail
    with pytest.raises(ValueError, match="broken"):
        prune(["trackio", "wandb"], callbacks=[Broken(ValueError("broken"))])
    assert service.of("finish") == [({"exit_code": 1},)]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "The run of trackio could not be closed after an error (no network); close it there."
    ]


@pytest.mark.long
def test_without_a_service_no_integration_is_imported() -> None:
    """They bring PEFT and bitsandbytes, two seconds of every command."""
    code = "import sys, optimum_sleb.pruner; sys.exit('transformers.integrations.integration_utils' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_all_and_none(service: Service) -> None:
    assert services_of("all") == [name for name in ("tensorboard",) if "tensorboard" in sys.modules]
    service.trackio()
    service.wandb()
    assert services_of(["all"])[-2:] == ["trackio", "wandb"]
    assert services_of(["wandb", "trackio", "wandb"]) == ["wandb", "trackio"]
    assert services_of("none") == services_of(["none"]) == services_of(None) == services_of("") == []
    assert services_of([]) == []


@pytest.mark.parametrize(
    ("report_to", "message"),
    [
        (
            "mlflow",
            "A search cannot report_to 'mlflow'; choose from tensorboard, trackio, wandb, or all or none alone",
        ),
        (["none", "wandb"], "A search cannot report_to 'none'; choose from"),
        (["x\n"], r"A search cannot report_to 'x\\n'; choose from"),
        (3, "A search cannot report_to 3; choose from"),
        ("trackio", "report_to='trackio' needs a package that is not installed; pip install trackio"),
        ("wandb", "report_to='wandb' needs a package that is not installed; pip install wandb"),
        ("tensorboard", "report_to='tensorboard' needs a package that is not installed; pip install tensorboard"),
    ],
)
def test_refusals(report_to: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "trackio", "wandb"):
        monkeypatch.setattr(f"transformers.integrations.is_{name}_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        prune(report_to)
