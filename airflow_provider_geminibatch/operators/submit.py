"""Submit: sealed shards become jobs, each of them once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_geminibatch.core.manifest import Manifest, parse_manifests
from airflow_provider_geminibatch.core.reuse import Reuse, reuse_of
from airflow_provider_geminibatch.hooks import config
from airflow_provider_geminibatch.hooks.attempt import attempt_of, in_backfill
from airflow_provider_geminibatch.hooks.costs import note_prices, record_estimate, usd_limit
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.gateways import Gateways
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.locations import ConnIds, home_of
from airflow_provider_geminibatch.hooks.storage import AirflowFiles, open_workspace
from airflow_provider_geminibatch.jobs.wait import pause_until, utc_now

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_geminibatch.core.canary import Canary
    from airflow_provider_geminibatch.core.cost_estimate import CostEstimate
    from airflow_provider_geminibatch.core.model import Build
    from airflow_provider_geminibatch.gemini.gateway import Gateway
    from airflow_provider_geminibatch.jobs.budget import Books
    from airflow_provider_geminibatch.jobs.submit import Submitted, Waiting
    from airflow_provider_geminibatch.storage.store import Store

log = logging.getLogger(__name__)

Result = dict[str, Any]
At = Callable[[Manifest], "Gateway"]
"""The service that a batch is at."""


class GeminiBatchSubmitOperator(BaseOperator):
    """Uploads the shards of a sealed build and submits each of them as a job, once.

    A retry, a second Submit of the same build and a crash at any point find what is on record and adopt it; a create
    whose reply was lost is looked up at the service and never sent again on a guess. When the service has no room, or
    certainty needs time, the task waits without a worker.

    :param prepared: What Prepare returned: its manifest, the JSON text of one, the URI of a seal, or a list of those.
    :param gemini_conn_id: Connection of type ``geminibatch``, or several: each batch goes where it was prepared for.
    :param max_cost_usd: What the jobs may cost at most, all builds together; else nothing is sent, and the error says why.
    :param budget: ``upper_bound``: what they could cost at the very most has to fit, which is a guarantee. ``estimate``: the
        high end of an estimate has to, for which the service counts a sample (free).
    :param canary: Asks a sample first, row by row, and sends nothing when it comes back bad: ``Canary(rows=50)``.
    :param reuse: Looks for answers that the same model gave to the same requests before, in this workspace, and sends only what
        is left: ``True`` or ``Reuse(max_age=…)``.
    :param cache: Puts what the requests have in common (system instruction, tools) into a prompt cache, where that is large enough;
        on the Developer API only.
    :param deferrable: Wait in the triggerer (default) or on the worker.
    """

    template_fields: Sequence[str] = ("prepared", "gemini_conn_id")
    ui_color = "#d7e3fc"

    def __init__(
        self,
        *,
        prepared: Any,
        gemini_conn_id: ConnIds = GeminiBatchHook.default_conn_name,
        max_cost_usd: Decimal | float | str | None = None,
        budget: str = "upper_bound",
        canary: Canary | None = None,
        reuse: Reuse | bool = False,
        cache: bool = False,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prepared = prepared
        self.gemini_conn_id = gemini_conn_id
        self.max_cost_usd = max_cost_usd
        self.budget = budget
        self.canary = canary
        self.reuse = reuse
        self.cache = cache
        self.deferrable = deferrable
        self._reused: dict[str, int] = {}
        usd_limit(max_cost_usd, budget)
        reuse_of(reuse)

    def execute(self, context: Context) -> Result | list[Result]:
        """Submit all builds as far as that goes now, and wait for the rest."""
        return self._walk(context, resumed=False)

    def resume(self, context: Context, event: Any = None) -> Result | list[Result]:
        """Go on where the ledger says we are; the event only says that it is time."""
        return self._walk(context, resumed=True)

    def _walk(self, context: Context, *, resumed: bool) -> Result | list[Result]:
        from airflow_provider_geminibatch.jobs.submit import Submitted

        with airflow_errors():
            manifests = parse_manifests(self.prepared)
            while True:
                ends = self._submitted(manifests, context, resumed)
                waits = [end for end in ends if not isinstance(end, Submitted)]
                if not waits:
                    return self._result(manifests, [end for end in ends if isinstance(end, Submitted)])
                until = min(wait.until for wait in waits)
                why = "; ".join(dict.fromkeys(wait.why for wait in waits))
                log.info("waiting until %s: %s", f"{until:%Y-%m-%d %H:%M:%S %Z}", why)
                if self.deferrable:
                    self._defer_until(until)
                pause_until(until)
                resumed = True

    def _submitted(
        self, manifests: tuple[Manifest, ...], context: Context, resumed: bool
    ) -> Sequence[Submitted | Waiting]:
        from airflow_provider_geminibatch.jobs.submit import submit

        attempt = attempt_of(context)
        ledgers = [(manifest, open_workspace(manifest.workspace).store) for manifest in manifests]
        homes = {manifest.uri: home_of(manifest, store, self.gemini_conn_id) for manifest, store in ledgers}
        with Gateways(next(iter(homes.values()))) as gateways:

            def at(manifest: Manifest) -> Gateway:
                return gateways(homes[manifest.uri])

            self._check_place(ledgers)
            note_prices(ledgers, (), me=attempt.me)
            self._reused = self._look_back(ledgers, attempt.me, at)
            if self.budget == "upper_bound" and self.canary:
                self._afford(ledgers, context, at, charging=False)
            if waits := self._canaries(manifests, context, at):
                return waits
            self._afford(ledgers, context, at)
            record_estimate(context, ledgers, service=lambda manifest: str(at(manifest).identity), me=attempt.me)
            return [
                submit(
                    manifest,
                    store=store,
                    gateway=at(manifest),
                    me=attempt.me,
                    task=str(attempt.batch),
                    max_tries=attempt.max_tries,
                    later_try=resumed or attempt.try_number > 1,
                    policy=_policy(self.cache),
                    books=self._books(manifest, ledgers, attempt.me),
                    files=AirflowFiles(),
                    now=utc_now,
                    log=log,
                )
                for manifest, store in ledgers
            ]

    def _books(self, manifest: Manifest, ledgers: Sequence[tuple[Manifest, Store]], me: str) -> Books | None:
        """What keeping prompt caches of a build is charged to: what the others leave of the limit."""
        from airflow_provider_geminibatch.jobs.budget import Books, charged_usd

        limit = usd_limit(self.max_cost_usd)
        if limit is None or not self.cache:
            return None
        stores = {one.path.partition("/builds/")[0]: store for one, store in ledgers}
        mine = manifest.path.partition("/builds/")[0]
        others = (charged_usd(store, one, now=utc_now) for one, store in stores.items() if one != mine)
        return Books(stores[mine], mine, limit - sum(others, Decimal(0)), me=me, now=utc_now)

    def _check_place(self, ledgers: Sequence[tuple[Manifest, Store]]) -> None:
        """Raises Unusable for what reads every request here, where requests lie in BigQuery."""
        from airflow_provider_geminibatch.jobs.submit import read_build
        from airflow_provider_geminibatch.jobs.table_inputs import refuse_in_tables

        no = {
            "canary=": (self.canary, "Leave it out; run one small batch first."),
            "reuse=": (reuse_of(self.reuse), "Leave it out, or read the rows with BigQuerySource."),
            "cache=": (self.cache, "Leave it out: what requests begin with is paid less by itself."),
            "budget='upper_bound'": (
                self.max_cost_usd is not None and self.budget == "upper_bound",
                "Write budget='estimate', which counts a sample.",
            ),
        }
        for what, do in ((what, do) for what, (wanted, do) in no.items() if wanted):
            refuse_in_tables((read_build(store, manifest.path) for manifest, store in ledgers), what, do)

    def _afford(
        self, ledgers: Sequence[tuple[Manifest, Store]], context: Context, at: At, *, charging: bool = True
    ) -> None:
        """Charge all builds to the budget before anything of them is sent, each once."""
        from airflow_provider_geminibatch.core.steps import sends_again
        from airflow_provider_geminibatch.jobs.cost_estimate import afford, estimate_cost, note_cost

        limit, attempt = usd_limit(self.max_cost_usd), attempt_of(context)
        if limit is None:
            return
        me, gateways = attempt.me, {_build_id(manifest): at(manifest) for manifest, _ in ledgers}

        def estimating(build: Build, store: Store) -> CostEstimate:
            gateway = gateways[build.id]
            service = str(gateway.identity)
            found = estimate_cost(build, store, service=service, me=me, now=utc_now, log=log, gateway=gateway)
            note_cost(build, store, found, me=me, now=utc_now, log=log)
            return found

        by_estimate = estimating if self.budget == "estimate" else None
        again = partial(sends_again, task=str(attempt.batch), max_tries=attempt.max_tries)
        afford(ledgers, limit, me=me, now=utc_now, estimating=by_estimate, charging=charging, again=again)

    def _look_back(self, ledgers: Sequence[tuple[Manifest, Store]], me: str, at: At) -> dict[str, int]:
        """Keep what was answered before, for every build; how many rows that are, by the URI of its seal."""
        from airflow_provider_geminibatch.jobs.results import Desk
        from airflow_provider_geminibatch.jobs.reuse import reuse_answers
        from airflow_provider_geminibatch.jobs.submit import read_build

        found: dict[str, int] = {}
        if (reuse := reuse_of(self.reuse)) is not None:
            for manifest, store in ledgers:
                desk = Desk(store, at(manifest), me, utc_now, log)
                found[manifest.uri] = reuse_answers(desk, read_build(store, manifest.path), reuse).reused
        return found

    def _canaries(self, manifests: tuple[Manifest, ...], context: Context, at: At) -> list[Waiting]:
        """Let all canaries pass before anything is sent: what has to be waited for, or nothing. Without one, what an earlier
        one brought that was not finished is kept."""
        from airflow_provider_geminibatch.jobs.budget import charged_usd
        from airflow_provider_geminibatch.jobs.canary import keep_what_came, pass_canary
        from airflow_provider_geminibatch.jobs.layers import generation_of
        from airflow_provider_geminibatch.jobs.results import Desk
        from airflow_provider_geminibatch.jobs.submit import read_build

        me, limit, backfill = attempt_of(context).me, usd_limit(self.max_cost_usd), in_backfill(context)
        desks = [
            Desk(open_workspace(manifest.workspace).store, at(manifest), me, utc_now, log, files=AirflowFiles())
            for manifest in manifests
        ]
        roots = [read_build(desk.store, manifest.path) for desk, manifest in zip(desks, manifests, strict=True)]
        waits: list[Waiting | None] = []
        for desk, root in zip(desks, roots, strict=True):
            if self.canary is None:
                keep_what_came(desk, root)
                continue
            others = (
                charged_usd(its.store, generation_of(other), now=utc_now)
                for its, other in zip(desks, roots, strict=True)
                if limit is not None and other.id != root.id
            )
            left = None if limit is None else limit - sum(others, Decimal(0))
            waits.append(pass_canary(desk, root, self.canary, limit_usd=left, in_backfill=backfill))
        return [wait for wait in waits if wait]

    def _defer_until(self, until: datetime) -> NoReturn:
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        # Airflow may fail a task whose trigger fires right after the deferral.
        moment = max(until, utc_now() + config.first_event_after())
        self.defer(trigger=DateTimeTrigger(moment=moment), method_name="resume")
        raise AssertionError("defer() does not return")

    def _result(self, manifests: tuple[Manifest, ...], ends: list[Submitted]) -> Result | list[Result]:
        results = [
            manifest.as_dict(jobs=len(end.job_names), reused_rows=self._reused.get(manifest.uri))
            for manifest, end in zip(manifests, ends, strict=True)
        ]
        return results[0] if len(results) == 1 and isinstance(self.prepared, str | Mapping) else results


def _build_id(manifest: Manifest) -> str:
    """The build that a manifest names, told by its seal's place."""
    return manifest.path.rpartition("/")[2].removesuffix(".json")


def _policy(cache: bool) -> Any:
    from airflow_provider_geminibatch.core.steps import Policy

    return Policy(settle=config.settle_time(), cache=cache)
