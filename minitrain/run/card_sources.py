"""What the cards of the base model and of the dataset say, as far as this machine has them: licence, languages.

Nothing is guessed and nothing is downloaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitrain.config.train_config import TrainConfig
from minitrain.storage.download import Repository

# requirements-demo.txt says where the demo's weights and reviews come from.
DEMO_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEMO_LICENCE, DEMO_LANGUAGE = "apache-2.0", "en"
LICENCE = ("license", "license_name", "license_link")


def base_model(config: TrainConfig) -> str | None:
    """The name on the Hub of the model that was fine-tuned; of a local folder, what its card names, if it does."""
    if config.model == "demo":
        return DEMO_MODEL
    if not Path(config.model).exists():
        return config.model
    named = front_matter(config.model, "model", None).get("base_model")
    return named if isinstance(named, str) else None


def licence_of_base(config: TrainConfig) -> dict[str, str]:
    """`license` and what belongs to it, as in the card of the base model; {} if that is unknown."""
    if config.model == "demo":
        return {"license": DEMO_LICENCE}
    found = front_matter(config.model, "model", config.model_revision)
    known = {key: found[key] for key in LICENCE if isinstance(found.get(key), str)}
    return known if "license" in known else {}


def languages_of_data(config: TrainConfig) -> list[str] | None:
    """The languages that the card of the dataset names."""
    if config.train_file is not None or config.dataset is None:
        return None
    if config.dataset == "demo":
        return [DEMO_LANGUAGE]
    named = front_matter(config.dataset, "dataset", config.dataset_revision).get("language")
    named = [named] if isinstance(named, str) else named
    return named if isinstance(named, list) and named and all(isinstance(name, str) for name in named) else None


def front_matter(name: str, kind: str, revision: str | None) -> Mapping[str, Any]:
    """The metadata of the card of a local folder, or of a repository in the Hub's cache; {} if there is none."""
    from huggingface_hub import metadata_load

    try:
        folder, repository = Path(name), Repository(name=name, kind=kind, revision=revision)
        path = folder / "README.md" if folder.exists() else repository.cached("README.md")
        return (metadata_load(path) if path is not None and path.is_file() else None) or {}
    except Exception:  # what YAML's parser and its callers raise for a card that somebody else wrote
        return {}
