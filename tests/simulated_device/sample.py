"""A plugin: of the tests that any device can run, a sample; of those that need a simulated one, all."""

import random

import pytest

ONE_IN = 16


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The same sample every time, in the order of the tests."""
    others = [item for item in items if "simulated_device" not in item.path.parts]
    left_out = set(others) - set(random.Random(0).sample(others, len(others) // ONE_IN))
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]
