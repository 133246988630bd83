"""Each database in turn: what holds of the main job holds on both."""

import pytest

from tests.support.world import World


@pytest.fixture
def world(each_world: World) -> World:
    """What holds here holds on each database."""
    return each_world
