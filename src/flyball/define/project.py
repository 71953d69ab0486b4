"""Projects: what is planned and applied as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from flyball.define.declaration import Declared
from flyball.define.mistake import mistake, user_location
from flyball.define.module import module_at
from flyball.define.secret import Secret
from flyball.define.service import Batch, Service, check_service_name
from flyball.define.source import Source


@dataclass(frozen=True, slots=True, eq=False)
class Project:
    """Everything that is reached from its services, batches and sources.

    Args:
        sources: sources that nothing else uses yet, to be taken in all the same.
        secrets: what its training code needs from the environment of the platform, by name. Their values, and those
            of secrets that its modules declare without listing them here, are masked in what a run writes.
    """

    name: str
    _: KW_ONLY
    services: Sequence[Service] = ()
    batches: Sequence[Batch] = ()
    sources: Sequence[type[Source]] = ()
    secrets: Sequence[Secret] = ()
    owner: str = ""
    module: str = field(init=False, default="")
    root: Path = field(init=False, default_factory=Path.cwd)

    def __post_init__(self) -> None:
        shown = f"project {self.name!r}"
        check_service_name(self.name, shown)
        for service in self.services:
            _check(service, Service, shown, "services", "fb.Service(…)")
        for batch in self.batches:
            _check(batch, Batch, shown, "batches", "fb.Batch(…)")
        for source in self.sources:
            item: object = source
            if not (isinstance(item, Declared) and issubclass(item, Source)):
                raise mistake(f"{shown}: {item!r} in sources is not a class that extends fb.Source")
        for secret in self.secrets:
            if not isinstance(secret, Secret):
                # What was given may be the secret itself, so it is not repeated.
                raise mistake(f"{shown}: an item of secrets is not a reference", hint='write fb.secret("NAME")')
        if not (self.services or self.batches or self.sources):
            raise mistake(f"{shown} is empty; give it services, batches or sources")
        self._remember_place()

    def _remember_place(self) -> None:
        place = user_location()
        if place is None or not Path(place.path).is_file():
            return
        object.__setattr__(self, "module", place.module)
        object.__setattr__(self, "root", module_at(Path(place.path).resolve())[0])


def _check(item: object, kind: type, shown: str, where: str, right: str) -> None:
    if not isinstance(item, kind):
        raise mistake(f"{shown}: {item!r} in {where} is not a {kind.__name__.lower()}; write {right}")
