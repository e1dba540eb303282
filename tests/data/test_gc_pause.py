"""`gc_paused`: no garbage is collected inside, and all is as before afterwards."""

import gc
from collections.abc import Iterator

import pytest

from minitrain.data.gc_pause import gc_paused


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    was_enabled = gc.isenabled()
    yield
    gc.unfreeze()
    if was_enabled:
        gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_collected_inside_and_the_setting_stays_what_it_was(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    with gc_paused():
        assert not gc.isenabled()
        before = [generation["collections"] for generation in gc.get_stats()]
        cycles = [[] for _ in range(100_000)]  # far more than what sets a collection off
        for one in cycles:
            one.append(one)
        assert [generation["collections"] for generation in gc.get_stats()] == before
    assert gc.isenabled() is enabled


def test_setting_is_restored_when_an_import_fails() -> None:
    gc.enable()
    with pytest.raises(ImportError), gc_paused():
        import minitrain.no_such_module  # noqa: F401
    assert gc.isenabled()


def test_what_was_imported_for_good_is_left_out_of_later_collections() -> None:
    gc.unfreeze()
    with gc_paused():
        pass
    assert gc.get_freeze_count() == 0
    with gc_paused(for_good=True):
        pass
    assert gc.get_freeze_count() > 10_000
