"""A load that puts rows in every table."""

from datetime import datetime, timedelta

from tests.support.world import World


def load(world: World, first: str, last: str) -> None:
    """Load organizations and users, sessions of an unlisted organization, and counts that change afterwards."""
    world.configure(devin_user_ids="discover", devin_start_date="2025-03-15")
    user_id = world.source.members[0].user_id
    noon = datetime.fromisoformat(f"{last}T12:00:00Z")
    world.source.add_sessions("org-not-listed", noon - timedelta(days=14))
    assert world.run(first, last).success
    for organization in world.source.organizations[:2]:
        world.source.add_sessions(organization.org_id, noon, user_id=user_id)
    assert world.run(last, last).success
