"""How a recipe is written to a file and read again."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigError, ReportError
from ..runtime.hub import find_or_download
from ..runtime.json import read_json, shown

RECIPE_FILE_NAME = "sleb_config.json"


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the object in the file of a recipe, its values unchecked."""
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} is not valid JSON ({error}); write the recipe again.") from error
    if not isinstance(values, dict):
        raise ReportError(f"{path} must hold a JSON object, got a {type(values).__name__}; write the recipe again.")
    return values


@dataclass(frozen=True)
class StoredRecipe:
    """The part of `SLEBConfig` that turns it into plain values and JSON, and back."""

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values.

        Returns:
            A dictionary that `from_dict` takes and that can be written as JSON.

        Example:
            >>> from optimum_sleb import SLEBConfig
            >>> SLEBConfig(num_blocks_to_remove=4).to_dict()["num_blocks_to_remove"]
            4
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build a recipe from plain values.

        Args:
            values: Field names and values, as `to_dict` gives them. Fields left out take their defaults.

        Returns:
            The recipe.

        Raises:
            ConfigError: If a key is unknown or a value is not allowed.

        Example:
            >>> from optimum_sleb import SLEBConfig
            >>> SLEBConfig.from_dict({"sparsity": 0.2}).sparsity
            0.2
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"Unknown key {shown(unknown[0])} in the recipe; known keys: {', '.join(known)}.")
        return cls(**values)

    def save_pretrained(self, save_directory: str | Path) -> Path:
        """Write the recipe into a folder, as `sleb_config.json`.

        Args:
            save_directory: The folder; it is created if it does not exist.

        Returns:
            The path of the file.

        Example:
            ```python
            SLEBConfig(sparsity=0.2, dataset="c4").save_pretrained("recipes/twenty")
            ```
        """
        path = Path(save_directory) / RECIPE_FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """Read the recipe of a pruned model, from its folder or from the Hub.

        Args:
            name_or_path: A folder that holds `sleb_config.json`, or the name of a model on the Hub.
            revision: Branch, tag or commit on the Hub; `None` is the main branch.
            token: A token of the Hub; `None` uses the one of the login.
            cache_dir: Folder of the cache; `None` is that of `huggingface_hub`.
            force_download: Download the file again where it is in the cache.
            local_files_only: Ask nobody, and take what is in the cache.

        Returns:
            The recipe.

        Raises:
            ReportError: If there is no such file, or the file is not a JSON object.
            ConfigError: If a key is unknown or a value is not allowed.

        Example:
            ```python
            config = SLEBConfig.from_pretrained("me/smollm2-sleb-20")
            ```
        """
        options = {"cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
        path = find_or_download(name_or_path, RECIPE_FILE_NAME, revision=revision, token=token, **options)
        try:
            return cls.from_dict(read_recipe(path))
        except ConfigError as error:
            raise ConfigError(f"{path} cannot be used; write the recipe again. {error}") from error
