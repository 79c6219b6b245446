"""One registry as it is spoken to: where it is, who may be asked for a token, and which redirects are followed.

Follows https://distribution.github.io/distribution/spec/api/ and https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from lapilli.errors import FetchError, RegistryError
from lapilli.ground.door import REDIRECTS, Answer, Door, Patience
from lapilli.ground.urls import Url, is_loopback
from lapilli.store.naming import ModelName
from lapilli.store.transfer import TransferSettings

_MOST_REDIRECTS = 5
_LONGEST_TOKEN = 1 << 16
_CHALLENGE = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)
_GONE = (400, 401, 403, 404, 410)


class Remote:
    """The registry of a model's name. Close it, or use it in a `with`; many threads may ask at once."""

    def __init__(self, name: ModelName, *, insecure: bool, actions: str, settings: TransferSettings) -> None:
        if name.scheme == "http" and not insecure:
            raise RegistryError("insecure protocol http: say --insecure to talk to this registry unprotected", 400)
        self.name = name
        try:
            self.base = Url.parse(f"{'http' if insecure else 'https'}://{name.host}/v2/{name.namespace}/{name.model}/")
        except FetchError as error:
            raise RegistryError(str(error), error.status) from None
        self._scope = f"repository:{name.namespace}/{name.model}:{actions}"
        self._settings = settings
        self._loopback = insecure and settings.trust_loopback
        self._token = ""
        self._lock = threading.Lock()
        self._door = Door(
            may_be_private=self._may_be_private,
            patience=Patience(read=settings.stall),
            network=settings.network,
            connections=settings.streams + 2,
        )

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()

    def hang_up(self) -> None:
        """Break off what is under way; nothing can be asked any more."""
        self._door.hang_up()

    @contextmanager
    def ask(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Iterator[Answer]:
        """Ask once, with a token if the registry wants one; redirects come back as they are. Raises FetchError."""
        with ExitStack() as stack:
            token = self._token
            answer = stack.enter_context(self._request(method, url, headers, content, token))
            replayable = content is None or isinstance(content, bytes)
            if answer.status == 401 and url.origin == self.base.origin and replayable:
                challenge = answer.headers.get("www-authenticate", "")
                stack.close()
                token = self._new_token(challenge, token)
                answer = stack.enter_context(self._request(method, url, headers, content, token))
            yield answer

    @contextmanager
    def get(self, url: Url, headers: Mapping[str, str] | None = None) -> Iterator[tuple[Answer, Url]]:
        """Ask for what is at a URL, over at most 5 redirects; with the answer comes where it was given.

        Raises FetchError: each hop is vetted like the first, and none goes from https to http.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            with self.ask("GET", url, headers) as answer:
                if answer.status not in REDIRECTS or "location" not in answer.headers:
                    yield answer, url
                    return
                url = url.follow(answer.headers["location"])
        raise FetchError(f"more than {_MOST_REDIRECTS} redirects", 403)

    @contextmanager
    def _request(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str] | None,
        content: bytes | Iterable[bytes] | None,
        token: str,
    ) -> Iterator[Answer]:
        told = dict(headers or {})
        if token and url.origin == self.base.origin:
            told["Authorization"] = f"Bearer {token}"
        with self._door.request(method, url, told, content) as answer:
            yield answer

    def _may_be_private(self, host: str, port: int) -> bool:
        if self._is_allowed(host, port):
            return True
        # The person at this machine asked for it by name; where it redirects to is another matter.
        near = is_loopback(host) or host == "localhost"
        return self._loopback and near and (host, port) == (self.base.host, self.base.port)

    def _new_token(self, challenge: str, used: str) -> str:
        """A token for anybody, from the place that the registry names, if that is its own."""
        with self._lock:
            if self._token != used:
                return self._token  # another thread was quicker
            kind, _, rest = challenge.strip().partition(" ")
            told = {name.lower(): value for name, value in _CHALLENGE.findall(rest)}
            if kind.lower() != "bearer" or "realm" not in told:
                raise RegistryError(f"{self.base.host} wants to know who asks, and says no way to tell it", 401)
            realm = self.base.join(told["realm"])
            safe = realm.scheme == "https" or self.base.scheme == "http"
            if realm.origin != self.base.origin and not (safe and self._is_allowed(realm.host, realm.port)):
                raise RegistryError(f"{self.base.host} names another host, {realm.host}, to ask for a token", 403)
            asked = {"service": told.get("service", ""), "scope": told.get("scope") or self._scope}
            mark = "&" if "?" in realm.target else "?"
            query = urllib.parse.urlencode({name: value for name, value in asked.items() if value})
            with self._door.request("GET", realm.join(f"{realm.target}{mark}{query}")) as answer:
                if answer.status != 200:
                    raise RegistryError(f"{self.base.host} gives no token to those without an account", 401)
                self._token = _read_token(answer)
            return self._token

    def _is_allowed(self, host: str, port: int) -> bool:
        names = {host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
        return not names.isdisjoint(name.lower() for name in self._settings.allowed_registries)


class RemoteBlob:
    """A blob of a registry, asked for by ranges; where it redirects to is asked once, without the token."""

    def __init__(self, remote: Remote, digest: str, size: int) -> None:
        self._remote = remote
        self._origin = remote.base.join(f"{remote.base.target}blobs/{digest}")
        self._size = size
        self._at = self._origin

    @contextmanager
    def open(self, start: int, stop: int) -> Iterator[Answer]:
        """Ask for bytes `start` to `stop` (not included). Raises FetchError."""
        headers = {} if (start, stop) == (0, self._size) else {"Range": f"bytes={start}-{stop - 1}"}
        at = self._at
        with ExitStack() as stack:
            answer, where = stack.enter_context(self._remote.get(at, headers))
            if at != self._origin and answer.status in _GONE:
                # Where a redirect leads to is often signed, and good for minutes only.
                stack.close()
                answer, where = stack.enter_context(self._remote.get(self._origin, headers))
            if answer.status in (200, 206):
                self._at = where
            yield answer


def read_body(answer: Answer, limit: int) -> bytes:
    """The whole body of an answer that is not packed. Raises FetchError."""
    coding = answer.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise FetchError(f"the answer is packed as {coding[:20]!r}, which was not asked for")
    return answer.read(limit)


def _read_token(answer: Answer) -> str:
    try:
        values = json.loads(read_body(answer, _LONGEST_TOKEN))
        token = values.get("token") or values.get("access_token")
    except (ValueError, RecursionError, AttributeError):
        token = None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryError("the registry's token cannot be read")
    return token
