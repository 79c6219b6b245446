"""The HTTP server on a Ray cluster, as many times as told, behind Ray Serve's own door.

    serve run lapilli.faces.replicas:build replicas=4 gpus=1

Each replica is a whole server, with its models in processes of its own; its settings are read where it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette

from lapilli.errors import InputError

_DEFAULTS: Mapping[str, float] = {"replicas": 1, "cpus": 1, "gpus": 0, "requests": 64}


def build(arguments: Mapping[str, Any]) -> Any:
    """A Ray Serve application: `replicas`, `cpus` and `gpus` of each, and how many `requests` one takes at once.

    Raises InputError for another argument, a value that is no number, and where Ray is not installed.
    """
    chosen = {**_DEFAULTS, **{name: _number(name, value) for name, value in arguments.items()}}
    try:
        from ray import serve
    except ImportError:
        raise InputError("replicas need Ray: pip install 'lapilli[scale]'") from None
    deployment: Any = serve.deployment(serve.ingress(open_server)(_Replica))
    return deployment.options(
        name="lapilli",
        num_replicas=int(chosen["replicas"]),
        max_ongoing_requests=int(chosen["requests"]),
        ray_actor_options={"num_cpus": chosen["cpus"], "num_gpus": chosen["gpus"]},
    ).bind()


def open_server() -> Starlette:
    """The server as one replica has it, by the settings of its node; who is not on that node needs a key."""
    from lapilli.faces.residents import Residents
    from lapilli.faces.server.app import build_app
    from lapilli.ground.settings import Settings
    from lapilli.store.library import Library

    settings = Settings()
    library = Library(settings.models, settings.other_models)
    return build_app(library, Residents(library, settings), settings)


class _Replica:
    """What Ray Serve makes an actor of."""


def _number(name: str, value: Any) -> float:
    if name not in _DEFAULTS:
        raise InputError(f"{name[:40]!r} is not known: give {', '.join(_DEFAULTS)}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1
    least = 0 if name in ("cpus", "gpus") else 1
    if not least <= number < 1e6:
        raise InputError(f"{name} is {str(value)[:40]!r}: a number from {least} on is needed")
    return number
