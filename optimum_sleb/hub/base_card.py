"""What a pruned model inherits from the dense model's card: licence and language."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import httpx, validate_repo_id


@dataclass(frozen=True)
class Inherited:
    """What the dense model's card says that holds for the pruned model as well.

    Attributes:
        license: The licence's identifier, such as `"apache-2.0"`.
        license_name: Its name, where the identifier is `"other"`.
        license_link: Where its text stands.
        language: The languages.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: str | list[str] | None = None


def inherited_from(base_model: str | None) -> Inherited:
    """Read the dense model's card: in its folder, or on the Hub.

    Args:
        base_model: Name or path of the dense model.

    Returns:
        Licence and language; nothing where there is no card, it does not say, or the Hub cannot be reached.

    Example:
        ```python
        inherited_from("HuggingFaceTB/SmolLM2-135M").license  # "apache-2.0"
        ```
    """
    place = hub_name(base_model) or Path(base_model or "", "README.md")
    if isinstance(place, Path) and not (base_model and place.is_file()):
        return Inherited()
    try:
        data: dict[str, Any] = ModelCard.load(place, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, httpx.HTTPError, yaml.YAMLError):
        # No card, no network, or a card that cannot be read: then the pruned model's card says nothing of it either.
        return Inherited()
    text = {key: data[key] for key in ("license", "license_name", "license_link") if isinstance(data.get(key), str)}
    language = data.get("language")
    many = isinstance(language, list) and all(isinstance(item, str) for item in language)
    return Inherited(**text, language=language if many or isinstance(language, str) else None)


def hub_name(base_model: str | None) -> str | None:
    """The dense model's name on the Hub. A path of this machine means nothing to a reader, and is nobody's business.

    Args:
        base_model: Name or path of the dense model, as a report has it: paths are absolute.

    Returns:
        The name, or `None` for a local folder or a model without a name.

    Example:
        >>> hub_name("HuggingFaceTB/SmolLM2-135M"), hub_name("/home/me/model")
        ('HuggingFaceTB/SmolLM2-135M', None)
    """
    try:
        validate_repo_id(base_model or "")
    except HFValidationError:
        return None
    return base_model
