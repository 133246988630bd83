"""Measures runs that are Kubernetes Jobs: a node lost, PostgreSQL restarted, a key revoked, many runs queued.

The cluster is the stand-in of `tests.platform`, PostgreSQL is Debian's with TLS. With PLATFORM_IMAGE, the directory of
the image's files, each pod is a container of that image: without rights, with a read-only root and its own volumes.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from pipelines.loading.block_size import DAYS_PER_BLOCK
from resources.database import Database
from tests.bench.calls import LATENCY
from tests.bench.databases import cells_wrong
from tests.bench.sizes import Sizes
from tests.bench.source import KEY, Source
from tests.bench.table import Row, describe, screen
from tests.bench.world import World
from tests.platform import postgresql_tls
from tests.platform.company import Company, company
from tests.platform.containers import as_container
from tests.platform.kubernetes_api import as_process
from warehouse import migrations

ACME, GLOBEX = "devin-acme", "devin-globex"
PER_MINUTE = 12_000
AT_ONCE = 2
PATIENCE_SECONDS = 1500


@dataclass
class _Site:
    """A company's Dagster with two enterprises, which ask one source with keys of their own."""

    company: Company
    server: postgresql_tls.Server
    source: Source
    warehouses: dict[str, Database]

    def wrong(self, location: str) -> int:
        """How many counts are wrong; the other's tables have the password that this process is told here."""
        os.environ["WAREHOUSE_URL"] = self.company.cluster.secrets[location]["WAREHOUSE_URL"]
        return cells_wrong(self.warehouses[location], self.source.world)

    def launch(self, location: str, days: int) -> list[str]:
        """Launch runs of so many days each over the whole world."""
        dates = self.source.world.dates
        firsts = range(0, len(dates), days)
        return [self.company.launch(location, f"{dates[n]}", f"{dates[n : n + days][-1]}") for n in firsts]

    def settle(self, launched: list[str]) -> list[dg.DagsterRun]:
        """Wait until each run, or the last one in its place, has ended. Returns these."""
        return [self.company.wait_for(run_id, PATIENCE_SECONDS)[-1] for run_id in launched]


@contextmanager
def _site(world: World, *, revoked: bool = False) -> Iterator[_Site]:
    image = os.environ.get("PLATFORM_IMAGE")
    with (
        tempfile.TemporaryDirectory(prefix="platform-", dir="/var/tmp") as name,
        tempfile.NamedTemporaryFile(prefix="platform-", suffix=".pem", dir="/tmp") as authority,
        Source(world, latency=LATENCY) as source,
    ):
        directory = Path(name)
        directory.chmod(0o755)
        starts = as_container(Path(image).resolve(), [Path(authority.name)]) if image else as_process
        with postgresql_tls.server(directory / "postgresql", Path(authority.name)) as server:
            record = server.database("dagster", "postgresql+psycopg2")
            urls = {location: server.database(location[6:], "postgresql+psycopg") for location in (ACME, GLOBEX)}
            shown = {location: url.render_as_string(hide_password=False) for location, url in urls.items()}
            warehouses = {location: Database(url=url) for location, url in shown.items()}
            for location, warehouse in warehouses.items():
                os.environ["WAREHOUSE_URL"] = shown[location]
                with warehouse.transaction() as connection:
                    migrations.migrate(connection)
            variables = {
                "DEVIN_API_URL": source.url,
                "DEVIN_START_DATE": f"{world.dates[0]}",
                "DEVIN_SCHEMA": "public",
                "DEVIN_PUBLISH_URL": "",
                "DEVIN_CATCH_UP_DAYS": "0",
                "DEVIN_REQUESTS_PER_MINUTE": f"{PER_MINUTE}",
            }
            deployments = {location: variables | {"DEVIN_ASSET_PREFIX": location[6:]} for location in (ACME, GLOBEX)}
            keys = {ACME: KEY, GLOBEX: "apk_user_revoked" if revoked else KEY}
            secrets = {
                location: {"DEVIN_API_KEY": keys[location], "WAREHOUSE_URL": shown[location]} for location in keys
            }

            def adjust(values: dict[str, dict[str, dict[str, int]]]) -> None:
                values["concurrency"]["pools"]["defaultLimit"] = AT_ONCE  # so that both nodes have work

            with company(directory / "company", record, deployments, secrets, starts=starts, adjust=adjust) as running:
                yield _Site(running, server, source, warehouses)


def platform(sizes: Sizes) -> list[Row]:
    """All of it, or a row that says why this machine can't."""
    if reason := postgresql_tls.missing():
        return [Row(f"runs as Kubernetes Jobs: skipped, {reason}", "", "skipped", None)]
    return [*_node_lost(sizes), *_key_revoked(sizes), *_queued(sizes)]


def _node_lost(sizes: Sizes) -> list[Row]:
    world = sizes.world(sizes.clustered)
    began = time.monotonic()
    with _site(world) as site:
        calls = _undisturbed(world, site)
        launched = site.launch(ACME, DAYS_PER_BLOCK)
        site.source.wait_for_calls(calls // 3, PATIENCE_SECONDS)
        site.server.control("restart")
        site.source.wait_for_calls(calls * 2 // 3, PATIENCE_SECONDS)
        lost = site.company.cluster.lose("node-2")
        ended = site.settle(launched)
        failed = [run.run_id for run in ended if run.status is not dg.DagsterRunStatus.SUCCESS]
        why = [line for run_id in failed for line in site.company.failures(run_id)]
        seen, wrong = site.source.counters(), site.wrong(ACME)
        families = [site.company.family(run_id) for run_id in launched]
        refused = site.company.cluster.refused
    again = sum(len(family) - 1 for family in families)
    what = f"{len(launched)} runs on two nodes, {describe(world)}, a node lost, PostgreSQL restarted"
    notes = [
        f"{len(lost)} pods lost with the node; {again} runs started again; {time.monotonic() - began:.0f} s in all",
        f"{seen.calls:,} calls, {seen.repeated:,} of them repeated; a run's block takes {calls / len(launched):,.0f}",
    ]
    return [
        Row(f"{what}: cells lost, doubled or wrong", "0", f"{wrong}", wrong == 0, notes, is_wrong=wrong > 0),
        Row("the same: runs that stay failed", "0", f"{len(failed)}", not failed, why),
        Row(
            "the same: calls repeated ÷ blocks of runs that were started again",
            "≤ 1 block",
            f"{seen.repeated / (calls / len(launched)) / max(again, 1):.2f}",
            seen.repeated <= calls / len(launched) * max(again, 1),
        ),
        Row(
            f"the same: questions in the fullest 60 s, R = {PER_MINUTE:,}/min",
            f"≤ {PER_MINUTE:,}",
            f"{seen.fullest_minute:,}",
            seen.fullest_minute <= PER_MINUTE,
        ),
        Row("the same: Jobs that Kubernetes' schema refuses", "0", f"{len(refused)}", not refused, refused),
    ]


def _undisturbed(world: World, site: _Site) -> int:
    """How many calls the world takes without a disturbance: those of one block, for each."""
    days = world.dates[:DAYS_PER_BLOCK]
    site.settle([site.company.launch(GLOBEX, f"{days[0]}", f"{days[-1]}")])
    calls = site.source.counters().calls
    site.source.reset()
    return calls * -(-world.days // DAYS_PER_BLOCK)


def _key_revoked(sizes: Sizes) -> list[Row]:
    world = sizes.world((sizes.several[0], 2 * DAYS_PER_BLOCK))
    with _site(world, revoked=True) as site:
        mine, other = site.launch(ACME, DAYS_PER_BLOCK), site.launch(GLOBEX, DAYS_PER_BLOCK)
        fine = [run.status is dg.DagsterRunStatus.SUCCESS for run in site.settle(mine)]
        refused = [run.status is dg.DagsterRunStatus.FAILURE for run in site.settle(other)]
        wrong = site.wrong(ACME)
    what = f"two enterprises, {describe(world)}, one key revoked"
    return [
        Row(f"{what}: the other's cells lost or wrong", "0", f"{wrong}", wrong == 0, is_wrong=wrong > 0),
        Row(f"{what}: the other's runs that succeed", f"{len(mine)}", f"{sum(fine)}", all(fine)),
        Row(f"{what}: its own runs that fail", f"{len(other)}", f"{sum(refused)}", all(refused)),
    ]


def _queued(sizes: Sizes) -> list[Row]:
    world = sizes.world((sizes.runs_killed[0], sizes.queued))
    with _site(world) as site:
        began = time.monotonic()
        mine = site.launch(ACME, 1)
        other = site.company.launch(GLOBEX, f"{world.dates[0]}", f"{world.dates[0]}")
        (neighbour,) = site.settle([other])
        waited = time.monotonic() - began
        answers = []
        while any(not site.company.family(run_id)[-1].is_finished for run_id in mine):
            asked = time.monotonic()
            site.company.workspace.reload_code_location(GLOBEX)
            assert site.company.assets(GLOBEX)
            answers.append(time.monotonic() - asked)
            time.sleep(1)  # the runs need the processor
        failed = [run for run in site.settle(mine) if run.status is not dg.DagsterRunStatus.SUCCESS]
        wrong, seconds = site.wrong(ACME), time.monotonic() - began
    screen.print(f"{len(mine)} runs in {seconds:.0f} s", style="dim")
    what = f"{len(mine)} queued runs, {AT_ONCE} at a time, {describe(world)}"
    answered = f"{max(answers):.1f} s" if answers else "no need"
    return [
        Row(f"{what}: runs that fail", "0", f"{len(failed)}", not failed, [f"{seconds:.0f} s"]),
        Row(f"{what}: cells lost or wrong", "0", f"{wrong}", wrong == 0, is_wrong=wrong > 0),
        Row(
            f"{what}: the neighbour's run, launched last",
            "succeeds",
            f"{neighbour.status.value}, {waited:.0f} s",
            neighbour.status is dg.DagsterRunStatus.SUCCESS,
        ),
        Row(f"{what}: the neighbour's code location answers", "≤ 10 s", answered, not answers or max(answers) <= 10),
    ]
