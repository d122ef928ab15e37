"""The way in: a file -> `Config`, or every fault at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from akoya_gateway.config.builder import read_config
from akoya_gateway.config.diagnostics import ConfigurationError, Fault, in_order
from akoya_gateway.config.document import Document, read_document
from akoya_gateway.config.model import Config
from akoya_gateway.config.reader import Reading
from akoya_gateway.config.schema_validation import judge_shape, load_schema


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be said of a configuration. `config` is there when nothing is wrong."""

    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    config: Config | None


def load_config(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Config:
    """The compiled configuration of a file. Raises `ConfigurationError` with every fault that was found.

    Secrets are read here, from `environ` and from files relative to the folder of `path`.
    """
    judgement = judge_config(path, environ)
    if judgement.config is None:
        raise ConfigurationError(judgement.faults)
    return judgement.config


def judge_config(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ, *, secrets: bool = True
) -> Judgement:
    """Like `load_config`, but never raises. Without `secrets` nothing but the file itself is looked at, and `config`
    holds no keys and empty secrets: good for explaining, not for running.
    """
    source = Path(path)
    try:
        document = read_document(source)
    except ConfigurationError as error:
        return Judgement(error.faults, (), None)
    return judge_document(document, source, environ, secrets=secrets)


def judge_document(document: Document, source: Path, environ: Mapping[str, str], *, secrets: bool = True) -> Judgement:
    """Shape, then meaning."""
    schema = load_schema()
    shape = judge_shape(document, schema)
    reading = Reading(document, schema, shape.broken, environ, source.parent, secrets)
    config = read_config(reading, source)
    faults = in_order((*shape.faults, *reading.faults))
    warnings = in_order(reading.warnings)
    if faults or config is None:
        return Judgement(faults, warnings, None)
    return Judgement((), warnings, replace(config, warnings=tuple(map(str, warnings))))
