"""The way in: a file -> `Config`, or every fault at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from akoya_gateway.config.builder import build_config
from akoya_gateway.config.diagnostics import ConfigurationError, Diagnostic, sorted_by_position
from akoya_gateway.config.document import Document, read_document
from akoya_gateway.config.model import Config
from akoya_gateway.config.reader import DocumentReader
from akoya_gateway.config.schema_validation import load_schema, validate_schema


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What is to be said of a configuration. `config` is there when nothing is wrong."""

    diagnostics: tuple[Diagnostic, ...]
    warnings: tuple[Diagnostic, ...]
    config: Config | None


def load_config(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Config:
    """The compiled configuration of a file. Raises `ConfigurationError` with every fault that was found.

    Secrets are read here, from `environ` and from files relative to the folder of `path`.
    """
    result = validate_config(path, environ)
    if result.config is None:
        raise ConfigurationError(result.diagnostics)
    return result.config


def validate_config(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ, *, secrets: bool = True
) -> ValidationResult:
    """Like `load_config`, but never raises. Without `secrets` nothing but the file itself is looked at, and `config`
    holds no keys and empty secrets: good for explaining, not for running.
    """
    source = Path(path)
    try:
        document = read_document(source)
    except ConfigurationError as error:
        return ValidationResult(error.diagnostics, (), None)
    return validate_document(document, source, environ, secrets=secrets)


def validate_document(
    document: Document, source: Path, environ: Mapping[str, str], *, secrets: bool = True
) -> ValidationResult:
    """Shape, then meaning."""
    schema = load_schema()
    shape = validate_schema(document, schema)
    reader = DocumentReader(document, schema, shape.broken, environ, source.parent, secrets)
    config = build_config(reader, source)
    faults = sorted_by_position((*shape.diagnostics, *reader.diagnostics))
    warnings = sorted_by_position(reader.warnings)
    if faults or config is None:
        return ValidationResult(faults, warnings, None)
    return ValidationResult((), warnings, replace(config, warnings=tuple(map(str, warnings))))
