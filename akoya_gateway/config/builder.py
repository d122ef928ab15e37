"""Builds a `Config` from a document that has been checked against the schema.

Calls the readers of all sections in order, and checks what involves more than one section. The readers of access rules,
clients, secrets and server settings are in modules of their own.
"""

from __future__ import annotations

import re
from pathlib import Path as FilePath

from akoya_gateway.client_headers import LISTED, UNDERSCORE
from akoya_gateway.config.access_rules import read_rules
from akoya_gateway.config.allowed_headers import read_allowed_headers
from akoya_gateway.config.clients import ENDPOINTS, RedirectContext, read_clients, read_connectors, read_environments
from akoya_gateway.config.data_apis import check_data_rules
from akoya_gateway.config.diagnostics import quoted
from akoya_gateway.config.model import (
    AccessRule,
    Client,
    Config,
    Connector,
    Cookie,
    EncryptionKey,
    Environment,
    Identity,
    InProcess,
    Limits,
    LogFormat,
    Logging,
    Origin,
    PathVariants,
    SameSite,
    Sessions,
    Signing,
    SigningAlgorithm,
    SigningKey,
    SigningScheme,
    Tokens,
    Verify,
)
from akoya_gateway.config.own_addresses import check_own_addresses
from akoya_gateway.config.pages import read_pages
from akoya_gateway.config.reader import DocumentReader, Node
from akoya_gateway.config.secrets import read_encryption_key, read_secret, read_signing_key
from akoya_gateway.config.server import (
    UpstreamSet,
    read_identity,
    read_listeners,
    read_public_url,
    read_redirects,
    read_root_path,
    read_token_bearer,
    read_trusted_proxies,
    read_upstreams,
    warn_if_plain_http,
    warn_if_tls_ends_nowhere,
    warn_of_callbacks_outside,
)
from akoya_gateway.errors import OperatorError
from akoya_gateway.process_environment import ProcessEnvironment, read_process_environment

_HOST_PREFIX = "__Host-"


def build_config(reader: DocumentReader, source: FilePath) -> Config | None:
    """Build the configuration, and add all semantic errors to `reader.diagnostics`.

    Returns:
        The configuration, or None if essential parts are missing. It may be used only if no errors were reported,
        including those of the schema.
    """
    top = reader.top()
    public = read_public_url(top)
    warn_if_plain_http(top, public)
    warn_if_tls_ends_nowhere(top, public)
    root_path = read_root_path(top)
    variants = PathVariants(top.plain("path_variants"))
    prefix: str = root_path + top.plain("prefix")
    usable_prefix = prefix if top.get("prefix") or not top.is_present("prefix") else None
    listen, admin = read_listeners(top)
    environments_node, clients_node = top.section("environments"), top.section("clients")
    environments = read_environments(environments_node)
    upstreams = read_upstreams(top, environments)
    clients = read_clients(clients_node, environments_node, environments, RedirectContext(public, usable_prefix))
    connectors_node = top.section("connectors")
    connectors = read_connectors(connectors_node, clients_node, clients)
    access = top.get("access")
    rules = read_rules(access, connectors_node, upstreams, usable_prefix, root_path, variants) if access else ()
    check_own_addresses(top, listen, admin, public)
    proxies = read_trusted_proxies(top)
    identity = read_identity(top, proxies)
    sessions = _sessions(top.section("sessions"), public)
    signing = _signing(top.section("signing"))
    tokens = _tokens(top.section("tokens"))
    limits = _limits(top.section("limits"))
    redirects = read_redirects(top, prefix, public, root_path)
    warn_of_callbacks_outside(clients_node, clients, root_path)
    _check_used_environments(top, environments, clients, connectors, tokens)
    _check_used_upstreams(top, upstreams, rules)
    check_data_rules(access, rules, connectors)
    process_environment = _process_environment(top, clients, identity)
    if public is None or listen is None:
        return None
    return Config(
        source=source,
        public_url=public,
        prefix=prefix,
        listen=listen,
        admin=admin,
        token_bearer=read_token_bearer(top, admin),
        upstream=upstreams.default,
        upstreams=upstreams.others,
        data_apis=upstreams.data_apis,
        environments=environments,
        clients=clients,
        connectors=connectors,
        redirects=redirects,
        access=rules,
        sessions=sessions,
        identity=identity,
        trusted_proxies=proxies,
        forward_auth=top.plain("forward_auth"),
        signing=signing,
        tokens=tokens,
        limits=limits,
        logging=_logging(top.section("logging")),
        process_environment=process_environment,
        root_path=root_path,
        path_variants=variants,
        pages=read_pages(top),
        allow_underscore_headers=read_allowed_headers(top, UNDERSCORE),
        allow_client_headers=read_allowed_headers(top, LISTED),
    )


def _process_environment(top: Node, clients: dict[str, Client], identity: Identity) -> ProcessEnvironment:
    """Parse the environment variables for proxy and certificate authorities, if HTTPS is used at all.

    Their problems are reported for the file as a whole.
    """
    used = {client.environment.name: client.environment for client in clients.values()}.values()
    urls = [getattr(each, name) or "" for each in used for name in ENDPOINTS]
    if not top.reader.reads(()) or not any(each.startswith("https:") for each in (*urls, identity.jwks_uri or "")):
        return ProcessEnvironment()
    process_environment, faults, warnings = read_process_environment(top.reader.environ)
    for message, remedy in faults:
        top.error(message, remedy)
    for message, remedy in warnings:
        top.warn(message, remedy)
    return process_environment


def _sessions(node: Node, public: Origin | None) -> Sessions:
    return Sessions(_store(node), _keyring(node), _cookie(node.section("cookie"), public))


def _store(node: Node) -> str:
    below = node.get("store")
    if below is None:
        return _sqlite(node, node.plain("store"))
    if isinstance(below.value, dict):
        secret = read_secret(below)
        text = secret.reveal().strip() if secret else ""
    else:
        text = below.value
        if _has_password(text):
            below.error(
                "a secret must not be written in this file", "use {env: NAME} or {file: path} for the whole URL"
            )
            return ""
    if not text:
        return ""
    scheme = text.partition(":")[0]
    if scheme == "sqlite":
        return _sqlite(below, text)
    if scheme == "memory":
        below.warn(
            "grants are kept in memory: they are lost at a restart, and each process of a server has its own",
            "use sqlite: or redis:",
        )
    elif not re.fullmatch(r"(redis|valkey)s?(\+(sentinel|cluster))?", scheme):
        written = ", without quotes" if text[0] in "'\"" else ", in lower case" if scheme != scheme.lower() else ""
        kinds = "sqlite:, memory://, redis://, rediss://, redis+sentinel:// or redis+cluster://"
        below.error(f"a store is {kinds}{written}")
    else:
        return _redis(below, text)
    return text


def _redis(node: Node, text: str) -> str:
    """Return the URL with absolute paths, parsed as the store will, so that `check` reports the errors of `run`."""
    # Import lazily: this is the store's own parser, importing it loads the store modules, and only Redis needs it.
    from akoya_gateway.store.redis.url import check_files, parse, with_files_below  # noqa: PLC0415

    try:
        parse(text)
        text = with_files_below(text, node.reader.folder.absolute())
        if node.reader.reads(node.path):
            check_files(parse(text))
    except OperatorError as error:
        node.error(error.detail.removeprefix("sessions.store: "))
    return text


def _has_password(text: str) -> bool:
    """Return True if the URL may contain a password. The URL need not be well-formed: `redis://:a/b@host`."""
    before_host = text.partition("://")[2].rpartition("@")[0]
    return ":" in before_host or "password=" in text.lower()


_NOT_FILES = (
    (":memory:", "`:memory:` would be the name of a file", "write memory:// for a store in memory"),
    ("/:memory:", "`:memory:` would be the name of a file", "write memory:// for a store in memory"),
    ("~", "`~` is not expanded", "write the whole path"),
    ("/~", "`~` is not expanded", "write the whole path"),
    ("$", "variables are not expanded in this file", "use {env: NAME} for the whole URL"),
    ("?", "an SQLite store has no options", "remove `?` and what follows"),
)
"""Beginnings of paths that only other programs interpret, and `?` anywhere: SQLite would create files so named."""


def _sqlite(node: Node, text: str) -> str:
    """Return the URL with an absolute path: `sqlite:path` becomes `sqlite:///absolute/path`."""
    rest = text.removeprefix("sqlite:")
    if rest.startswith("//") and not rest.startswith("///"):
        node.error("`sqlite://` is followed by an absolute path", "write sqlite:///absolute or sqlite:relative")
        return ""
    path = rest.removeprefix("//")
    if not path.strip("/."):
        node.error("the store names no file", "such as sqlite:./var/grants.db")
        return ""
    for part, problem, remedy in _NOT_FILES:
        if path.startswith(part) or (part == "?" and part in path):
            node.error(problem, remedy)
            return ""
    _check_folder(node, (node.reader.folder / path).absolute())
    return f"sqlite://{(node.reader.folder / path).absolute()}"


def _check_folder(node: Node, file: FilePath) -> None:
    """Report a folder that the store cannot create, because a part of its path is a file."""
    try:
        obstacle = next((each for each in file.parents if each.exists() and not each.is_dir()), None)
    except OSError:  # This user may not look into a folder. The gateway may run as another one.
        return
    if obstacle is not None:
        node.error(f"the folder of the store cannot be created: {quoted(str(obstacle))} is not a folder")


def _keyring(node: Node) -> tuple[EncryptionKey, ...]:
    keys = node.get("keys")
    found: list[EncryptionKey] = []
    for item in keys.items() if keys else ():
        key = read_encryption_key(item)
        if key is None:
            continue
        if any(other.id == key.id for other in found):
            item.error("the same key is already in the list", "remove it here")
        else:
            found.append(key)
    return tuple(found)


def _cookie(node: Node, public: Origin | None) -> Cookie:
    secure = public is None or public.scheme == "https"
    written = node.get("name")
    name: str = written.value if written else f"{_HOST_PREFIX}akoya"
    if secure and not name.startswith(_HOST_PREFIX):
        node.error("with https the name must begin with __Host-", f"write {_HOST_PREFIX}{name}", key="name")
    if not secure and written is None and public is not None:
        # Cookies are not bound to a port: two gateways on localhost would overwrite each other's session cookie.
        name = f"akoya-{public.port}"
    elif not secure and written and name.lower().startswith(("__host-", "__secure-")):
        name = name.split("-", 1)[1] or "akoya"
        written.warn(f"public_url is plain http, where browsers refuse this name: the cookie is {name}")
    idle, lifetime = node.seconds("idle"), node.seconds("lifetime")
    if idle > lifetime:
        node.error("idle is longer than lifetime", key="idle")
    return Cookie(name, secure, SameSite(node.plain("same_site")), idle, lifetime)


def _signing(node: Node) -> Signing:
    algorithm = SigningAlgorithm(node.plain("algorithm"))
    usable = node.get("algorithm") is not None or not node.is_present("algorithm")
    keys = node.get("keys")
    found: list[SigningKey] = []
    for item in keys.items() if keys else ():
        identifier = item.get("id")
        if identifier and identifier.value in {key.id for key in found}:
            identifier.error("the same key id is already in the list", "give each key its own")
        elif usable and (key := read_signing_key(item, algorithm)):
            found.append(key)
    return Signing(
        scheme=SigningScheme(node.plain("scheme")),
        algorithm=algorithm,
        keys=tuple(found),
        expires=node.seconds("expires"),
        audience=node.plain("audience") or "",
        content_digest=node.bytes("content_digest"),
        in_process=InProcess(node.plain("in_process")),
    )


def _tokens(node: Node) -> Tokens:
    before, life = node.seconds("refresh_before", zero=True), node.seconds("assume_lifetime")
    if before >= life:
        node.error("is not shorter than assume_lifetime: tokens would never be fresh", key="refresh_before")
    leeway = node.seconds("leeway", zero=True)
    if leeway > 600:
        node.error("must be 10m or less", "correct the clock", key="leeway")
    return Tokens(before, life, Verify(node.plain("verify")), leeway, node.plain("background"))


def _limits(node: Node) -> Limits:
    lifetime = node.seconds("attempt_lifetime")
    if lifetime > 900:
        node.error("must be 15m or less", key="attempt_lifetime")
    header = node.bytes("header_bytes")
    if not 4096 <= header <= 1_048_576:
        node.error("must be 4KiB to 1MiB", key="header_bytes")
    return Limits(
        attempts_per_browser=node.plain("attempts_per_browser"),
        attempts=node.plain("attempts"),
        connects_per_minute=node.plain("connects_per_minute"),
        attempt_lifetime=lifetime,
        header_bytes=header,
        header_fields=node.plain("header_fields"),
        body_bytes=node.bytes("body_bytes"),
    )


def _logging(node: Node) -> Logging:
    return Logging(LogFormat(node.plain("format")), node.plain("level"), node.plain("access"))


def _check_used_environments(
    top: Node,
    environments: dict[str, Environment],
    clients: dict[str, Client],
    connectors: dict[str, Connector],
    tokens: Tokens,
) -> None:
    section = top.section("environments")
    used = {client.environment.name for client in clients.values()}
    for name, environment in environments.items():
        node = section.section(name)
        if name not in used:
            continue
        if environment.jwks_uri is None and tokens.verify is Verify.ALWAYS:
            node.error("tokens.verify is always, and this environment has no jwks_uri", "add it", at_key=True)
        elif environment.jwks_uri is None or tokens.verify is Verify.NEVER:
            node.warn("signatures of id_tokens are not checked", "name a jwks_uri if your environment has one")
        if environment.issuer is None:
            node.warn("the issuer of id_tokens is not checked", "name the issuer")
        if environment.revocation_endpoint is None:
            node.warn("disconnecting forgets a grant but cannot revoke it", "name the revocation_endpoint")
    bound = {connector.client.name for connector in connectors.values()}
    for name in clients:
        if name not in bound and len(connectors) == len(top.section("connectors").value):
            top.section("clients").section(name).warn("no connector uses this client")


def _check_used_upstreams(top: Node, upstreams: UpstreamSet, rules: tuple[AccessRule, ...]) -> None:
    access = top.get("access")
    if access is None or len(rules) != len(access.value):
        return
    used = {each.name for rule in rules for each in (rule.upstream, rule.data_api) if each is not None}
    nodes = {"": top.section("upstream"), **dict(upstreams.names.entries())}
    for name, upstream in (("", upstreams.default), *upstreams.others.items(), *upstreams.data_apis.items()):
        if upstream is not None and name not in used:
            nodes[name].warn("no access rule leads to this upstream")
