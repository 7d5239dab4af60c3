"""Dead letters as a source: what a window, or a batch, ended without an answer for, ready to be asked again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.manifest import Manifest, parse_manifests
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.rows import Row
from airflow_provider_geminibatch.hooks.landing import Landing, open_landing
from airflow_provider_geminibatch.hooks.storage import open_store
from airflow_provider_geminibatch.hooks.windows import Window, as_window

if TYPE_CHECKING:
    from airflow_provider_geminibatch.core.landing import CommitManifest
    from airflow_provider_geminibatch.core.ledger import DeadLettered
    from airflow_provider_geminibatch.storage.files import Files
    from airflow_provider_geminibatch.storage.store import Store

_UNANSWERED = tuple(kind.value for kind in Outcomes if kind is not Outcomes.ANSWER)


@dataclass(frozen=True)
class DeadLetters:
    """The rows of a window, or of a batch, that have no answer, as ready-made requests for ``requests=`` of a Prepare.

    The newest commit of the window counts, accepted or rejected, and of a batch its last results. Each row has its key,
    the request that was asked, and the columns that travelled along.

    :param of: A landing, or what Prepare or Submit returned: a manifest, the URI of a seal, or a list of those.
    :param window: The window of a landing, as text, template or aware time.
    :param part: The part of the window, where it is landed in parts.
    :param outcomes: Only rows with these outcomes, such as ``("failed", "invalid")``.
    """

    of: Any
    window: Window | None = None
    part: str = ""
    outcomes: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcomes", tuple(self.outcomes))
        if unknown := [name for name in self.outcomes if name not in _UNANSWERED]:
            raise Unusable(
                f"outcomes={unknown}", "no such outcome", f"Those of dead letters: {', '.join(_UNANSWERED)}."
            )
        if isinstance(self.of, Landing) == (self.window in (None, "")):
            raise Unusable(
                "DeadLetters", "a landing needs a window, and a batch has none", "Write DeadLetters(landing, window=…)."
            )

    @property
    def name(self) -> str:
        """What messages and the fingerprint call it."""
        if isinstance(self.of, Landing):
            part = f" part {self.part}" if self.part else ""
            return f"dead letters of {self.of.name}, window {as_window(self.window)}{part}"
        return f"dead letters of {', '.join(manifest.path for manifest in parse_manifests(self.of))}"

    def serialize(self) -> dict[str, Any]:
        """What Airflow shows and compares."""
        of = self.of.serialize() if isinstance(self.of, Landing) else self.of
        window = self.window if self.window is None or isinstance(self.window, str) else as_window(self.window)
        return {"source": "DeadLetters", "of": of, "window": window, "part": self.part, "outcomes": list(self.outcomes)}

    def resolve(self, context: Mapping[str, Any]) -> DeadLetters:
        """What Airflow's templating calls: manifest, window and part rendered with the task's own Jinja environment."""
        render = context["task"].render_template
        of = self.of if isinstance(self.of, Landing) else render(self.of, context)
        window = render(self.window, context) if isinstance(self.window, str) else self.window
        return replace(self, of=of, window=window, part=render(self.part, context))

    def rows(self, files: Files) -> Iterator[Row]:
        """The requests, in the order of their batches and rows. Raises Unusable when nothing was committed."""
        from airflow_provider_geminibatch.jobs.dead_letters import DEAD_LETTER, read_dead_letters

        for store, found in self._found():
            place = f"{store.uri}/{found.path} line"
            for number, line in read_dead_letters(store, found):
                about = line.pop(DEAD_LETTER, {})
                if not self.outcomes or about.get("outcome") in self.outcomes:
                    yield Row(place, number, line)

    def _found(self) -> Iterator[tuple[Store, DeadLettered]]:
        from airflow_provider_geminibatch.jobs.dead_letters import dead_letters, last_dead_letters

        if not isinstance(self.of, Landing):
            for manifest in parse_manifests(self.of):
                store = open_store(manifest.workspace)
                yield store, last_dead_letters(store, _generation(manifest)) or self._nothing(str(manifest.uri))
            return
        for origin in self._commit(self.of).origins:
            store = open_store(origin.workspace)
            where = f"{origin.workspace}/{origin.path}"
            yield store, dead_letters(store, origin.path, origin.seal) or self._nothing(where)

    def _commit(self, landing: Landing) -> CommitManifest:
        store, window = open_landing(landing.uri), as_window(self.window)
        part = landing.place.own_part(self.part or None)
        both = (store.manifest(window, part=part, rejected=rejected) for rejected in (False, True))
        found = [manifest for manifest in both if manifest is not None]
        if not found:
            raise Unusable(self.name, "nothing was committed there", "Name a window that has landed or was rejected.")
        return max(found, key=lambda manifest: manifest.committed_at)

    def _nothing(self, where: str) -> DeadLettered:
        why = "its last commit left no dead letters on record: there was none yet, or an earlier release made it"
        raise Unusable(where, why, "Commit it first; a clear of the task that loads it does so again, at no cost.")


def _generation(manifest: Manifest) -> str:
    return manifest.path.rpartition("/builds/")[0]
