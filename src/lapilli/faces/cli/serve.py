"""`lapilli serve`: Ollama's API, OpenAI's and Anthropic's, and a web page, until told to stop."""

from __future__ import annotations


def serve() -> None:
    """Serve the models of this machine.

    Where it listens and what it allows is set by variables or in config.toml (docs/settings.md). It answers at
    http://127.0.0.1:11434 unless told otherwise, and lets in nobody from elsewhere without LAPILLI_API_KEYS. SIGTERM
    and Ctrl-C let who is being answered finish; a second one ends it at once.
    """
    from lapilli.faces.serving import serve_until_stopped
    from lapilli.ground.settings import Settings

    serve_until_stopped(Settings())
