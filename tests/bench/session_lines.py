"""The world's sessions as the list of sessions in v2 writes them, each as one JSON text."""

import json
import random
from collections.abc import Iterator

from tests.bench.world import World

SECONDS_OF_DAY = 86_400
USERS_OF_ORGANIZATION = 8


def session_lines(world: World) -> Iterator[bytes]:
    """One line for each session, oldest first: the same for the same world."""
    dice = random.Random(f"{world.seed}/sessions")
    for number, day in enumerate(world.dates):
        moments = sorted(
            (dice.randrange(SECONDS_OF_DAY), org_id)
            for org_id, row in zip(world.org_ids, world.counts, strict=True)
            for _ in range(row[number])
        )
        for second, org_id in moments:
            name = f"{dice.getrandbits(128):032x}"
            minutes, seconds = divmod(second, 60)
            at = f"{day}T{minutes // 60:02}:{minutes % 60:02}:{seconds:02}Z"
            session = {
                "session_id": f"devin-{name}",
                "org_id": org_id,
                "user_id": f"user-{second % USERS_OF_ORGANIZATION}-of-{org_id}",
                "created_at": at,
                "updated_at": at,
                "status": "exit",
                "title": f"Session {name[:8]} of a benchmark",
                "url": f"https://devin.example/sessions/{name}",
                "tags": ["benchmark"],
                "acus_consumed": second % 100 / 10,
                "pull_requests": [{"url": f"https://git.example/pull/{second}", "state": "merged"}],
            }
            yield json.dumps(session, separators=(",", ":")).encode()
