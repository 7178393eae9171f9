"""Newer profiles: from models.dev into a folder, all or nothing.

Source, our augmentations and those in the folder are read, checked and merged before anything is
written. Each file is written beside its old version and then takes its place, so a reader sees the
old file or the new one, whole, and a failure leaves the old one.
"""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from ..errors import ConfigurationError, StreamfoldError
from . import augmentations, models_dev
from .augmentations import Overrides
from .store import SOURCES, Table, canonical, forget, packaged_bytes, path_in, read_table

__all__ = ["ALL", "Refreshed", "refresh"]

#: The provider name that means all that the package has.
ALL = "all"


class Refreshed(msgspec.Struct, frozen=True):
    """What a refresh did to the file of one provider.

    `changed` has the keys that differ, each with its old and new value (None: not known).
    """

    provider: str
    path: str
    models: int
    added: list[str] = []
    removed: list[str] = []
    changed: dict[str, dict[str, tuple[Any, Any]]] = {}
    #: There was no file, or none that could be read: all models are new.
    first: bool = False
    warnings: list[str] = []


def refresh(provider: str, data_dir: str | os.PathLike[str], source: str = "") -> list[Refreshed]:
    """Write the profiles of `provider` (or of "all") into `data_dir`, one file each.

    `source` is a file or an https URL with an api.json of models.dev (default: models.dev itself).
    What `profile_augmentations.toml` in `data_dir` says is merged over it and over our own
    augmentations. Returns what changed, for each file.

    Raises StreamfoldError with the reason, and the old files stay: ConfigurationError for the
    provider, the folder, the source or the augmentations, TransportError for the network.
    """
    folder = os.path.expanduser(os.fspath(data_dir))
    if not os.path.isdir(folder):
        raise ConfigurationError(f"--data-dir {folder} is not a folder: make it first")
    source = source or models_dev.URL
    said = _augmentations(folder)
    providers = models_dev.providers_in(models_dev.read(source), source)
    done: list[Refreshed] = []
    files: dict[str, bytes] = {}
    for name in _names(provider, providers):
        profiles = _source_profiles(name, providers, source)
        overrides = augmentations.overrides_for(name, said, augmentations.FILE)
        profiles = augmentations.ours(name).apply(profiles, add=False)
        table = Table.of(overrides.apply(profiles, add=True))
        path = path_in(folder, name)
        done.append(_compared(name, path, table, _warnings(overrides)))
        files[path] = table.encode()
    _write(folder, files)
    forget()
    return done


def _augmentations(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, augmentations.FILE)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    # In the package's own folder they are ours, which count anyway.
    return {} if data == packaged_bytes(augmentations.FILE) else augmentations.parse(data, path)


def _names(provider: str, providers: Mapping[str, Any]) -> list[str]:
    """The files to write: those of the package, or of any other provider that the source has."""
    if provider == ALL:
        return list(SOURCES)
    name = canonical(provider)
    known = {canonical(id) for id in providers}
    if name in SOURCES or (name in known and name.isidentifier()):
        return [name]
    near = difflib.get_close_matches(name, sorted({*SOURCES, *known, ALL}), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigurationError(
        f"provider {provider!r} is unknown: {hint}there are {', '.join(SOURCES)}, and {ALL!r}"
    )


def _source_profiles(
    name: str, providers: Mapping[str, msgspec.Raw], source: str
) -> dict[str, dict[str, Any]]:
    """The models of all providers of models.dev that fill this file; the first one's count."""
    filling = SOURCES.get(name) or [id for id in providers if canonical(id) == name]
    found = [id for id in filling if id in providers]
    if not found:
        raise ConfigurationError(f"{source} has no provider {' or '.join(map(repr, filling))}")
    profiles: dict[str, dict[str, Any]] = {}
    for id in reversed(found):
        profiles |= models_dev.models_of(id, providers[id], source)
    return profiles


def _warnings(overrides: Overrides) -> list[str]:
    warnings = []
    for key in overrides.unknown_keys():
        near = augmentations.nearest_key(key)
        hint = f": did you mean {near!r}?" if near else ""
        warnings.append(f"{augmentations.FILE}: {key!r} is not a key of profiles{hint}")
    return warnings


# ---- what changed --------------------------------------------------------------------------------


def _compared(name: str, path: str, new: Table, warnings: list[str]) -> Refreshed:
    old = None
    try:
        old = read_table(path)
    except ConfigurationError as error:
        warnings = [*warnings, f"{error}; it is replaced"]
    was: Mapping[str, dict[str, Any]] = {} if old is None else old
    changes = {id: _differences(was[id], new[id]) for id in new if id in was}
    return Refreshed(
        provider=name,
        path=path,
        models=len(new),
        added=[id for id in new if id not in was],
        removed=[id for id in was if id not in new],
        changed={id: change for id, change in changes.items() if change},
        first=old is None,
        warnings=warnings,
    )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = {**old, **new}
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


# ---- writing -------------------------------------------------------------------------------------


def _write(folder: str, files: Mapping[str, bytes]) -> None:
    """Write all files beside the old ones; once the disk has them, put them in their place."""
    beside = {path: f"{path}.{secrets.token_hex(4)}.tmp" for path in files}
    try:
        for path, data in files.items():
            _write_through(beside[path], data)
        for path in files:
            os.replace(beside[path], path)
        _sync_folder(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StreamfoldError(f"profiles cannot be written into {folder}: {reason}") from error
    finally:
        for path in beside.values():
            with suppress(OSError):
                os.unlink(path)


def _write_through(path: str, data: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    """Make the renames last. Windows cannot open folders, and needs not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
