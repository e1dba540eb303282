"""What all tests share: no network, one thread, the embedded model, and real GLUE data where there is some."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Last on the path: scripts/evaluate.py must not stand before the library of that name.
sys.path.append(str(Path(__file__).parent.parent / "scripts"))
# The libraries read these once, when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MINITRAIN_CACHE"] = ""  # test_token_cache.py asks for one
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
import torch

from minitrain.data.tokenizer.tokenizer import Tokenizer, load_tokenizer
from minitrain.storage.hub import demo_model_directory


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums split over threads have other last bits on another machine; small tensors are faster on one anyway."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def reports_where_they_are_asked_for() -> Iterator[None]:
    """As without matplotlib: a report takes a second, and few of a thousand runs here are about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minitrain.run.html.write.is_drawable", lambda: False)
        yield


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The folder of the embedded pretrained model."""
    return demo_model_directory()


@pytest.fixture(scope="session")
def glue() -> Path:
    """A folder with MRPC and STS-B laid out as on the Hub."""
    named = os.environ.get("MINITRAIN_GLUE_DIR")
    if named is None:
        pytest.skip("needs real GLUE data: set MINITRAIN_GLUE_DIR to a folder that `load_dataset` can read")
    return Path(named)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model with random weights and its tokenizer."""
    from test_loop import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    """The tokenizer of the tiny model."""
    return load_tokenizer(model)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a CSV file of 64 labelled reviews."""
    from test_loop import write_tiny_model
    from test_main import named_reviews, write_csv

    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    write_csv(folder / "train.csv", *named_reviews(64))
    return folder
