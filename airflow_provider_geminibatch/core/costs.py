"""What windows and batches cost, summed over manifests and reports. An unknown price is said and never counted as zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from airflow_provider_geminibatch.core.landing import CommitManifest
from airflow_provider_geminibatch.core.model import Outcomes, Usage
from airflow_provider_geminibatch.core.report import BatchCost, Cost, Report, dollars, plain, together


class WindowCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one commit of a window, or of a part of it, cost. None is unknown."""

    window: str
    part: str = ""
    verdict: str
    rows: int
    answers: int
    cost_usd: str | None
    strays_cost_usd: str | None = None
    models: tuple[str, ...]


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """Several windows, or one batch, by window, by source and by model."""

    windows: tuple[WindowCost, ...]
    sources: tuple[Cost, ...]
    models: dict[str, str | None]
    tokens: Usage
    known_usd: str
    """The sum of what is known."""
    unknown: tuple[str, ...] = ()
    """What is not in it: windows whose price is not known."""
    price_sources: tuple[str, ...] = ()


def standing(manifests: Iterable[CommitManifest], windows: Sequence[str] = ()) -> list[CommitManifest]:
    """The commits to be summed, by window: what a batch brought counts once, however it was judged in between."""
    ranked = sorted(manifests, key=lambda one: (one.window, one.part, not one.passes, not one.rejected, one.commit))
    found: list[CommitManifest] = []
    seen: set[tuple[str, str, object]] = set()
    for manifest in ranked:
        if windows and manifest.window not in windows:
            continue
        names = {(manifest.window, manifest.part, (origin.batch, origin.generation)) for origin in manifest.origins}
        if not names <= seen:
            found.append(manifest)
        seen |= names
    return found


def bill_of(commits: Iterable[tuple[CommitManifest, Report | None]]) -> Bill:
    """The bill of some windows. Where a report is gone, the manifest still tells what all of it cost."""
    commits = list(commits)
    costs = together(cost for manifest, report in commits for cost in _sources(manifest, report))
    return Bill(
        windows=tuple(_window(manifest) for manifest, _ in commits),
        sources=costs,
        models=_by_model(costs),
        tokens=sum((manifest.tokens for manifest, _ in commits), Usage()),
        known_usd=_known(amount for manifest, _ in commits for amount in (manifest.cost_usd, _strays(manifest))),
        unknown=tuple(manifest.label for manifest, _ in commits if manifest.cost_usd is None or _strays(manifest) is None),
        price_sources=tuple(dict.fromkeys(source for manifest, _ in commits for source in manifest.price_sources)),
    )  # fmt: skip


def _strays(manifest: CommitManifest) -> str | None:
    return manifest.strays_cost_usd if manifest.strays else "0"


def bill_of_batch(report: Report, batch: str) -> Bill:
    """The bill of one batch of a commit."""
    mine = next(one for one in report.batches if one.batch == batch)
    costs = (*mine.costs, *_strays_of(report, mine))
    return Bill(
        windows=(),
        sources=costs,
        models=_by_model(costs),
        tokens=sum((cost.tokens for cost in costs), Usage()),
        known_usd=_known(cost.cost_usd for cost in costs),
        unknown=tuple(f"{cost.source} of {cost.model}" for cost in costs if cost.cost_usd is None),
        price_sources=report.price_sources,
    )


def _strays_of(report: Report, mine: BatchCost) -> Iterable[Cost]:
    """What stray jobs cost; of several batches that landed together nobody knows any more whose they were."""
    if report.strays_cost_usd not in (None, "0"):
        models = "+".join(dict.fromkeys(cost.model for cost in mine.costs))
        known = report.strays_cost_usd if len(report.batches) == 1 else None
        yield Cost(source="stray jobs", route="batch", model=models, cost_usd=known)


def _window(manifest: CommitManifest) -> WindowCost:
    return WindowCost(
        window=manifest.window, part=manifest.part,
        verdict=manifest.verdict.value, rows=manifest.rows, answers=manifest.counts.get(Outcomes.ANSWER, 0),
        cost_usd=manifest.cost_usd, strays_cost_usd=manifest.strays_cost_usd if manifest.strays else None,
        models=manifest.models,
    )  # fmt: skip


def _sources(manifest: CommitManifest, report: Report | None) -> Iterable[Cost]:
    models = "+".join(manifest.models)
    if report is not None:
        yield from report.costs
    else:
        yield Cost(source="all", route="", model=models, tokens=manifest.tokens, cost_usd=manifest.cost_usd)
    if manifest.strays:
        yield Cost(source="stray jobs", route="batch", model=models, cost_usd=manifest.strays_cost_usd)


def _by_model(costs: Iterable[Cost]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for cost in costs:
        known = found.get(cost.model, "0")
        both = None if known is None or cost.cost_usd is None else plain(Decimal(known) + Decimal(cost.cost_usd))
        found[cost.model] = both
    return found


def _known(amounts: Iterable[str | None]) -> str:
    return plain(sum((Decimal(amount) for amount in amounts if amount is not None), Decimal(0)))


def told(bill: Bill) -> str:
    """The bill as a few tables, for people."""
    blocks = []
    if bill.windows:
        blocks.append(_aligned(("window", "rows", "answers", "cost", ""), [_window_cells(one) for one in bill.windows]))
    cells = [
        (
            cost.source, cost.route, cost.model, f"{cost.tokens.prompt:,}",
            f"{cost.tokens.candidates + cost.tokens.thoughts:,}", _money(cost.cost_usd),
        )
        for cost in bill.sources
    ]  # fmt: skip
    blocks.append(_aligned(("source", "route", "model", "tokens in", "tokens out", "cost"), cells))
    if len(bill.models) > 1:
        blocks.append(_aligned(("model", "cost"), [(model, _money(cost)) for model, cost in bill.models.items()]))
    total = f"total {dollars(bill.known_usd)}"
    if bill.unknown:
        named = ", ".join(bill.unknown[:3]) + (f" and {len(bill.unknown) - 3} more" if len(bill.unknown) > 3 else "")
        total += f", and what no price is known for, which is not zero: {named}"
    blocks.append("\n".join([total, *(f"price: {source}" for source in bill.price_sources)]))
    return "\n\n".join(blocks)


def _money(amount: str | None) -> str:
    return "unknown" if amount is None else dollars(amount)


def _window_cells(one: WindowCost) -> tuple[str, ...]:
    label = f"{one.window} part {one.part}" if one.part else one.window
    strays = f"stray jobs {_money(one.strays_cost_usd)}" if one.strays_cost_usd not in (None, "0") else ""
    verdict = "" if one.verdict == "accepted" else one.verdict
    return label, f"{one.rows:,}", f"{one.answers:,}", _money(one.cost_usd), ", ".join(filter(None, (verdict, strays)))


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    )
    return "\n".join(lines)


__all__ = ["Bill", "WindowCost", "bill_of", "bill_of_batch", "standing", "told"]
