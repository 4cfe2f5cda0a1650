"""What a card says of the dense model: taken from the dense model's own card, or given by whoever saves."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import httpx, validate_repo_id

from ..errors import ConfigError
from ..runtime.json import shown

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,59}", re.ASCII)
# ISO 639, and the two words that the Hub knows beside it.
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*|multilingual|code", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class BaseCardFields:
    """Fields of the dense model's card that also hold for the pruned model; `None` where the card has none."""

    license: str | None = None  # identifier, such as "apache-2.0"
    license_name: str | None = None  # set where the identifier is "other"
    license_link: str | None = None  # address of the licence text
    language: str | list[str] | None = None
    base_model: str | None = None  # name on the Hub that was given for a local dense model

    def or_else(self, other: "BaseCardFields") -> "BaseCardFields":
        """Return these fields, and what they do not say from others. A licence brings its name and address along."""
        licence = self if self.license else other
        return BaseCardFields(
            license=licence.license,
            license_name=licence.license_name,
            license_link=licence.license_link,
            language=self.language or other.language,
            base_model=self.base_model or other.base_model,
        )


def given_fields(
    license: str | None = None, base_model: str | None = None, language: str | Sequence[str] | None = None
) -> BaseCardFields:
    """Return what somebody gave for the card; raise ConfigError for what the Hub would not take."""
    if license is not None and not (isinstance(license, str) and _LICENCE.fullmatch(license)):
        raise ConfigError(
            f"license={shown(license)} is no identifier of the Hub; give one such as 'apache-2.0', 'mit' or 'other'."
        )
    if base_model is not None and not (isinstance(base_model, str) and hub_name(base_model)):
        raise ConfigError(
            f"base_model={shown(base_model)} is no name on the Hub; give one such as 'HuggingFaceTB/SmolLM2-135M'."
        )
    languages = [language] if isinstance(language, str) else language
    if languages is not None:
        is_list = isinstance(languages, list | tuple) and languages
        if not is_list or not all(isinstance(one, str) and _LANGUAGE.fullmatch(one) for one in languages):
            raise ConfigError(f"language={shown(language)} must be codes of ISO 639, such as ['en', 'de'].")
    return BaseCardFields(license=license, base_model=base_model, language=list(languages) if languages else None)


def read_base_card(base_model: str | None) -> BaseCardFields:
    """Return licence and language from the dense model's card; empty without a card or a connection to the Hub."""
    return replace(read_own_card(base_model), base_model=None)  # that is what the dense model was made of


def read_own_card(model: str | None) -> BaseCardFields:
    """Return all that a pruned model's card says of the dense model."""
    source = hub_name(model) or Path(model or "", "README.md")
    try:
        if isinstance(source, Path) and not (model and os.path.isfile(source)):
            return BaseCardFields()
        data: dict[str, Any] = ModelCard.load(source, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, httpx.HTTPError, yaml.YAMLError, RecursionError):
        # No card, no connection, or an unreadable card: the pruned model's card then leaves these fields out.
        return BaseCardFields()
    text = {key: data[key] for key in ("license", "license_name", "license_link") if isinstance(data.get(key), str)}
    language = data.get("language")
    many = isinstance(language, list) and all(isinstance(item, str) for item in language)
    named = data.get("base_model")
    return BaseCardFields(
        **text,
        language=language if many or isinstance(language, str) else None,
        base_model=hub_name(named) if isinstance(named, str) else None,
    )


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
