"""Loads a configuration file: returns a `Config`, or all errors at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from akoya_gateway.config.builder import build_config
from akoya_gateway.config.diagnostics import ConfigurationError, Diagnostic, Path, sorted_by_position
from akoya_gateway.config.document import Document, read_document
from akoya_gateway.config.model import Config
from akoya_gateway.config.reader import ALL_SECRETS, DocumentReader
from akoya_gateway.config.schema_validation import load_schema, validate_schema


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Result of validation. `config` is None if there are errors."""

    diagnostics: tuple[Diagnostic, ...]
    warnings: tuple[Diagnostic, ...]
    config: Config | None


def load_config(
    path: str | os.PathLike[str],
    environ: Mapping[str, str] = os.environ,
    *,
    secrets: tuple[Path, ...] = ALL_SECRETS,
) -> Config:
    """Load the configuration file, including its secrets.

    Args:
        path: the file. Names of secret files are relative to its folder.
        environ: the environment variables from which secrets are read.
        secrets: the paths below which secrets are read, such as `("sessions",)`, so that a command works without the
            others. These are empty in the result.

    Raises:
        ConfigurationError: the configuration is invalid. It has all errors that were found.
    """
    result = validate_config(path, environ, secrets=secrets)
    if result.config is None:
        raise ConfigurationError(result.diagnostics)
    return result.config


def validate_config(
    path: str | os.PathLike[str],
    environ: Mapping[str, str] = os.environ,
    *,
    secrets: tuple[Path, ...] = ALL_SECRETS,
) -> ValidationResult:
    """Validate a configuration file. Like `load_config`, but returns errors and warnings instead of raising.

    Args:
        path: the file.
        environ: the environment variables from which secrets are read.
        secrets: the paths below which secrets are read. With `NO_SECRETS` only the file itself is read. `config` then
            has no keys and empty secrets, which is enough for `explain` but not for running the gateway.
    """
    source = FilePath(path)
    try:
        document = read_document(source)
    except ConfigurationError as error:
        return ValidationResult(error.diagnostics, (), None)
    return validate_document(document, source, environ, secrets=secrets)


def validate_document(
    document: Document, source: FilePath, environ: Mapping[str, str], *, secrets: tuple[Path, ...] = ALL_SECRETS
) -> ValidationResult:
    """Validate a parsed document: against the schema first, then its meaning.

    Args:
        document: the parsed document.
        source: the file it came from. Names of secret files are relative to its folder.
        environ: the environment variables from which secrets are read.
        secrets: the paths below which secrets are read.
    """
    schema = load_schema()
    shape = validate_schema(document, schema)
    reader = DocumentReader(document, schema, shape.broken, environ, source.parent, secrets)
    config = build_config(reader, source)
    faults = sorted_by_position((*shape.diagnostics, *reader.diagnostics))
    warnings = sorted_by_position(reader.warnings)
    if faults or config is None:
        return ValidationResult(faults, warnings, None)
    return ValidationResult((), warnings, replace(config, warnings=tuple(map(str, warnings))))
