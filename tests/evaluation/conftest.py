from collections.abc import Callable
from typing import Any

import pytest

from optimum_sleb.evaluation.store import MeasurementStore


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Interrupts one of the measurements that are made from now on; gives the names of all."""
    get_or_measure = MeasurementStore.get_or_measure

    def interrupt(number: int) -> list[str]:
        measured: list[str] = []

        def interrupting(
            store: MeasurementStore, name: str, conditions: Any, kind: Any, measure: Callable[[], Any]
        ) -> Any:
            def counted() -> Any:
                measured.append(name)
                if len(measured) == number:
                    raise KeyboardInterrupt
                return measure()

            return get_or_measure(store, name, conditions, kind, counted)

        monkeypatch.setattr(MeasurementStore, "get_or_measure", interrupting)
        return measured

    return interrupt
