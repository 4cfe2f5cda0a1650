"""Licence and language that a pruned model takes over from the dense model's card."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import httpx, validate_repo_id


@dataclass(frozen=True)
class BaseCardFields:
    """Fields of the dense model's card that also hold for the pruned model; `None` where the card has none."""

    license: str | None = None  # identifier, such as "apache-2.0"
    license_name: str | None = None  # set where the identifier is "other"
    license_link: str | None = None  # address of the licence text
    language: str | list[str] | None = None


def read_base_card(base_model: str | None) -> BaseCardFields:
    """Return licence and language from the dense model's card; empty without a card or a connection to the Hub."""
    source = hub_name(base_model) or Path(base_model or "", "README.md")
    try:
        if isinstance(source, Path) and not (base_model and os.path.isfile(source)):
            return BaseCardFields()
        data: dict[str, Any] = ModelCard.load(source, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, httpx.HTTPError, yaml.YAMLError, RecursionError):
        # No card, no connection, or an unreadable card: the pruned model's card then leaves these fields out.
        return BaseCardFields()
    text = {key: data[key] for key in ("license", "license_name", "license_link") if isinstance(data.get(key), str)}
    language = data.get("language")
    many = isinstance(language, list) and all(isinstance(item, str) for item in language)
    return BaseCardFields(**text, language=language if many or isinstance(language, str) else None)


def hub_name(base_model: str | None) -> str | None:
    """Return the dense model's name on the Hub; `None` for a local path, which must not appear in a public card.

    >>> hub_name("HuggingFaceTB/SmolLM2-135M"), hub_name("/home/me/model")
    ('HuggingFaceTB/SmolLM2-135M', None)
    """
    try:
        validate_repo_id(base_model or "")
    except HFValidationError:
        return None
    return base_model
