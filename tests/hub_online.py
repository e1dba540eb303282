"""A Hub on 127.0.0.1 for the process of the tests, which asks no other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hub_server import Fault, Hub, Repository, serve

from minitrain.storage import push

TOKEN = "hf_neverToBeSeenAnywhere"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hub]]:
    """Call it with repositories and faults for a Hub that this process uploads to, with its token."""
    from huggingface_hub import constants

    with ExitStack() as stack:

        def start(*repositories: Repository, faults: tuple[Fault, ...] = ()) -> Hub:
            hub = stack.enter_context(serve(*repositories, faults=faults, token=TOKEN))
            monkeypatch.setattr(constants, "ENDPOINT", hub.url)
            return hub

        # huggingface_hub reads these from the environment when it is imported.
        for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True)):
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(push, "WAITS", (0.01, 0.01, 0.01))
        yield start
