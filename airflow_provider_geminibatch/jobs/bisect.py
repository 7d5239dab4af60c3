"""Finding the lines that make the service refuse a file: for free where it can be told for free, else by real creates.

A refused create costs nothing. An accepted one is cancelled at once and its input file deleted; what may be billed until then
is counted at the upper bound of its lines, and that an ended job without results costs nothing is `assumed`. What is made bears
a mark and is on record before it is made, so that whoever goes on after a crash can clean it up.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec

from airflow_provider_geminibatch.core.budget import upper_bound
from airflow_provider_geminibatch.core.errors import (
    GeminiBatchError,
    KeyRefused,
    ModelUnknown,
    ServiceBusy,
    ServiceError,
    Unusable,
)
from airflow_provider_geminibatch.core.poison import Search, search_of
from airflow_provider_geminibatch.core.prices import BATCH_SHARE, Price
from airflow_provider_geminibatch.gemini.gateway import Ambiguous, Created, CreateReply, Gateway, Refused
from airflow_provider_geminibatch.gemini.wire import is_key_refusal
from airflow_provider_geminibatch.jobs.lookup import pages
from airflow_provider_geminibatch.jobs.request_lines import Found, Lines

MARK = "gbbisect-"
TRIES = 6
"""How often a busy service is asked again, with pauses that double from two seconds on."""

_CONTROL = {
    "generate": b'{"key":"control","request":{"contents":[{"role":"user","parts":[{"text":"Say yes."}]}]}}\n',
    "embed": b'{"key":"control","request":{"content":{"parts":[{"text":"Say yes."}]}}}\n',
}
"""A request that nobody objects to, of each kind."""
_NAMED = re.compile(r"\bline (\d+)")
_decode = msgspec.json.Decoder().decode
T = TypeVar("T")


class Left(msgspec.Struct, frozen=True):
    """Something of ours at the service: a create under way (by display name), a job, or an input file."""

    kind: Literal["create", "job", "file"]
    name: str

    def __str__(self) -> str:
        return f"{'a job that may be named' if self.kind == 'create' else self.kind} {self.name}"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a bisection is. ``counted`` lines were tried by countTokens; ``why`` has the service's words by row,
    ``said`` those of the last refusal."""

    v: int = 1
    digest: str
    service: str
    model: str
    kind: str = "generate"
    mark: str
    search: Search
    counted: int = 0
    why: dict[str, str] = {}
    said: str = ""
    asked: int = 0
    charged_usd: str = "0"
    control: bool = False
    left: tuple[Left, ...] = ()


def progress_of(
    lines: Lines, *, service: str, model: str, mark: str, known: Iterable[int] = (), kind: str = "generate"
) -> Progress:
    """The beginning; ``known`` rows are left out, since it is known what is wrong with them."""
    search = search_of(len(lines)).found(known)
    return Progress(digest=lines.digest, service=service, model=model, kind=kind, mark=mark, search=search)


class Stopped(Exception):
    """The search ends before it is over; the reason is its text."""


class Bisection:
    """A search on a live connection. ``save`` gets every step before and after it is done, ``say`` a line for people."""

    def __init__(
        self,
        lines: Lines,
        gateway: Gateway,
        progress: Progress,
        *,
        save: Callable[[Progress], object],
        say: Callable[[str], object],
        sleep: Callable[[float], object],
        log: logging.Logger,
    ) -> None:
        self._lines, self._gateway, self.progress = lines, gateway, progress
        self._save, self._say, self._sleep, self._log = save, say, sleep, log

    @property
    def found(self) -> list[Found]:
        """The poison lines so far."""
        return [self._lines.found(row, self.progress.why.get(str(row), "")) for row in self.progress.search.poison]

    def _note(self, **changes: Any) -> None:
        self.progress = msgspec.structs.replace(self.progress, **changes)
        self._save(self.progress)

    def _poison(self, found: dict[int, str], **more: Any) -> None:
        why = {**self.progress.why, **{str(row): text for row, text in found.items()}}
        self._note(search=self.progress.search.found(found), why=why, **more)

    def count(self, threads: int, *, first: bool = False) -> None:
        """Try every line by countTokens, which is free. That it looks at a request as closely as a batch does is `assumed`."""
        total, chunk = len(self._lines), threads * 16
        with ThreadPoolExecutor(threads) as pool:
            while self.progress.counted < total:
                begin = self.progress.counted
                known = set(self.progress.search.poison)
                rows = [row for row in range(begin, min(begin + chunk, total)) if row not in known]
                said = list(pool.map(self._counted, [self._lines.raw(row) for row in rows]))
                bad = {row: text for row, text in zip(rows, said, strict=True) if text}
                if bad and not self.progress.why and (text := self._counted(_CONTROL[self.progress.kind])):
                    raise Unusable("countTokens", f"a plain request is refused too ({text})", "Look at the connection.")
                self._poison(bad, counted=min(begin + chunk, total))
                self._say(f"{self.progress.counted:,} of {total:,} lines tried by countTokens")
                if bad and first:
                    return

    def _counted(self, line: bytes) -> str:
        """Why countTokens refuses the request of a line; empty when it takes it. Raises what is not about the request."""
        request = _decode(line)["request"]

        def ask() -> str:
            try:
                self._gateway.count_tokens(self.progress.model, request)
            except (KeyRefused, ModelUnknown, ServiceBusy):
                raise
            except ServiceError as error:
                if error.code != 400:
                    raise
                return error.text or "refused"
            return ""

        return self._patiently(ask)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while the service is busy."""
        for attempt in range(TRIES):
            try:
                return ask()
            except ServiceBusy as busy:
                if attempt == TRIES - 1:
                    raise
                self._sleep(busy.retry_after_seconds or 2.0 ** (attempt + 1))
        raise AssertionError("the last try returns or raises")

    def upper_usd(self, rows: Iterable[int], price: Price) -> Decimal:
        """The most that a job of these rows can cost."""
        total = Decimal(0)
        for row in rows:
            raw = self._lines.raw(row)
            total += upper_bound(_decode(raw)["request"], len(raw), price, BATCH_SHARE)
        return total

    def halve(self, price: Price, *, first: bool, limit_usd: Decimal | None) -> None:
        """Ask by real creates until nothing is open, or one line is found if that is enough. Raises Stopped, ServiceError."""
        begun = len(self.progress.search.poison)
        while not self.progress.search.over and not (first and len(self.progress.search.poison) > begun):
            search = self.progress.search
            rows = list(search.lines(search.ask()))
            upper = self.upper_usd(rows, price)
            refusal = self._send(map(self._lines.raw, rows), upper, limit_usd)
            self._learn(rows, refusal)
            still = sum(map(self.progress.search.count, self.progress.search.spans))
            self._say(f"{len(rows):,} lines were {'refused' if refusal else 'accepted'}; {still:,} are still open")

    def _learn(self, rows: list[int], refusal: str) -> None:
        if refusal and not self.progress.control:
            if text := self._send([_CONTROL[self.progress.kind]], Decimal(0)):
                do = "It is about the model or the account; look at its text."
                raise Unusable("the refusal", f"a file with one plain request is refused too ({text})", do)
            self._note(control=True)
        named = [int(number) for number in _NAMED.findall(refusal)]
        if named and all(1 <= number <= len(rows) for number in named):
            self._poison({rows[number - 1]: refusal for number in named})
            return
        # Of two lines one of which is poison, the second is told by the acceptance of the first: it gets the words for both.
        said = refusal or self.progress.said
        before = set(self.progress.search.poison)
        after = self.progress.search.answered(refused=bool(refusal))
        why = {**self.progress.why, **{str(row): said for row in set(after.poison) - before}}
        self._note(search=after, why=why, said=said)

    def _send(self, lines: Iterable[bytes], upper: Decimal, limit_usd: Decimal | None = None) -> str:
        """Create a job from lines and cancel it at once. The service's words when it refuses, empty when it accepts."""
        with tempfile.TemporaryFile() as file:
            size = sum(file.write(line) for line in lines)
            for attempt in range(TRIES):
                charged = Decimal(self.progress.charged_usd)
                if limit_usd is not None and charged + upper > limit_usd:
                    what = f"the next file may cost up to {upper:.4f} USD, {charged:.4f} USD are charged already"
                    raise Stopped(f"{what}, and {limit_usd} USD are allowed")
                reply = self._create(file, size, upper)
                if isinstance(reply, Created):
                    return ""
                if isinstance(reply, Refused) and reply.code not in (0, 429):
                    return self._about_lines(reply)
                pause = reply.retry_after_seconds if isinstance(reply, Refused) else None
                self._sleep(pause or 2.0 ** (attempt + 3))
        raise ServiceBusy(
            f"create of {self.progress.mark}", None, "it had no room, or gave no certain answer, six times"
        )

    def _about_lines(self, reply: Refused) -> str:
        """The words of a refusal that is about the lines. Raises those that are not."""
        doing = f"create of {self.progress.mark}"
        if is_key_refusal(reply.code, reply.text):
            raise KeyRefused(doing, reply.code, reply.text)
        if reply.code == 404:
            raise ModelUnknown(doing, reply.code, reply.text)
        if reply.code != 400:
            raise ServiceError(doing, reply.code, reply.text)
        return reply.text or "refused"

    def _create(self, file: BinaryIO, size_bytes: int, upper: Decimal) -> CreateReply:
        """One upload and one create, each on record before it is done; what came of it is ended and deleted."""
        name, charged = f"{self.progress.mark}-{self.progress.asked + 1:04d}", Decimal(self.progress.charged_usd)
        self._note(asked=self.progress.asked + 1)
        sent = self._patiently(lambda: self._upload(file, size_bytes, name))
        self._leave(Left("file", sent), charged_usd=f"{charged + upper:f}")
        self._leave(Left("create", name))
        reply = self._gateway.create(
            model=self.progress.model, file_name=sent, display_name=name, kind=self.progress.kind
        )  # fmt: skip
        if isinstance(reply, Ambiguous):
            self._log.warning("%s: the create got no certain answer (%s); looking it up", name, reply.why)
            reply = self._looked_up(name) or reply
        if isinstance(reply, Created):
            self._leave(Left("job", reply.job.name))
            self._tidy(Left("job", reply.job.name))
        if not isinstance(reply, Ambiguous):
            self._forget(Left("create", name))
        if isinstance(reply, Refused):
            self._note(charged_usd=f"{charged:f}")
        self._tidy(Left("file", sent))
        return reply

    def _upload(self, file: BinaryIO, size_bytes: int, name: str) -> str:
        file.seek(0)
        return self._gateway.upload(file, size_bytes=size_bytes, display_name=name).name

    def _looked_up(self, name: str) -> Created | None:
        job = next((job for page in pages(self._gateway, name) for job in page.jobs if job.display_name == name), None)
        return None if job is None else Created(job)

    def _leave(self, left: Left, **more: Any) -> None:
        self._note(left=(*self.progress.left, left), **more)

    def _forget(self, left: Left) -> None:
        self._note(left=tuple(each for each in self.progress.left if each != left))

    def _tidy(self, left: Left) -> None:
        """End or delete one thing; what cannot be is kept on record."""
        try:
            if left.kind == "job":
                self._gateway.cancel(left.name)
            else:
                self._gateway.delete_file(left.name)
        except GeminiBatchError as error:
            self._log.warning("%s is left: %s", left, error)
        else:
            self._forget(left)

    def resume(self) -> None:
        """End what an earlier run left. A create that is not listed by now, and whose file is gone, made no job (`assumed`)."""
        for left in self.clean_up():
            if left.kind == "create":
                self._forget(left)

    def clean_up(self) -> tuple[Left, ...]:
        """End and delete all that is left. Returns what could not be, and creates whose fate nobody knows."""
        if any(left.kind == "create" for left in self.progress.left):
            self._sweep()
        for left in self.progress.left:
            if left.kind != "create":
                self._tidy(left)
        return self.progress.left

    def _sweep(self) -> None:
        """Take every open job of this mark for ours to cancel."""
        try:
            jobs = [job for page in pages(self._gateway, f"{self.progress.mark}-*") for job in page.jobs]
        except GeminiBatchError as error:
            self._log.warning("the list of jobs could not be read: %s", error)
            return
        for job in jobs:
            if job.display_name.startswith(f"{self.progress.mark}-"):
                self._forget(Left("create", job.display_name))
                if not job.ended and Left("job", job.name) not in self.progress.left:
                    self._leave(Left("job", job.name))


__all__ = ["MARK", "Bisection", "Left", "Progress", "Stopped", "progress_of"]
