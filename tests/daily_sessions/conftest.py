"""Runs each test of the main job on both databases."""

import pytest

from tests.support.world import World


@pytest.fixture
def world(each_world: World) -> World:
    """The world on each database in turn."""
    return each_world
