"""Questions answered from your own documents, with what bears each answer out.

    app = lapilli.App()                      # mini, and a store in the user's data folder
    app.add("manual.pdf")
    answer = app.ask("How is the filter cleaned?")
    answer.text, answer.citations[0].source, answer.citations[0].text

The names are embedchain's: `App.from_config`, `add`, `query`, `chat`, `search`; `ask` and `stream` are the typed way.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapilli.apps.rag.cited import Citation as Citation
from lapilli.apps.rag.cited import Cited as Cited
from lapilli.apps.rag.cited import Stream as Stream
from lapilli.apps.rag.config import AppConfig, LlmOptions, part_of
from lapilli.apps.rag.shapes import citation_metadata, hit_metadata
from lapilli.apps.rag.shelf import Shelf
from lapilli.errors import InputError

if TYPE_CHECKING:
    from lapilli.apps.rag.asking import Asking
    from lapilli.apps.rag.rows import Hit

Where = Mapping[str, Any]
_TURNS = 10  # of a session, that a question is asked after


class App(Shelf):
    """Documents, and a model that answers from them; nothing is opened before it is needed.

    `config` is embedchain's tree (`lapilli.apps.rag.config`). `folder` is where documents lie, before
    `vectordb.config.dir` and the setting LAPILLI_DOCUMENTS. `backend`, `embedder` (None: full text alone) and `store`
    take the place of what the configuration says. May be used by several threads. Raises InputError.
    """

    @classmethod
    def from_config(
        cls,
        config_path: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
        auto_deploy: bool = False,
        yaml_path: str | Path | None = None,
        **given: Any,
    ) -> App:
        """An App as a dictionary says, or a file of YAML or JSON; further arguments are those of `App`."""
        path = config_path if config_path is not None else yaml_path
        if path is not None and config is not None:
            raise InputError("give config_path or config, not both")
        if auto_deploy:
            raise InputError("auto_deploy: there is nothing to deploy to; leave it out, the App works here")
        read = AppConfig.read(Path(path)) if path is not None else AppConfig.of({} if config is None else config)
        return cls(config=read, **given)

    def ask(
        self, question: str, *, session: str | None = None, count: int | None = None, where: Where | None = None
    ) -> Cited:
        """The answer with its citations; with a `session` what was said in it counts, and the answer joins it.

        `count` is how many passages are shown, `where` what their metadata must be. Raises LapilliError.
        """
        return self._run(question, session, self._options(count=count, where=where), streamed=False).cited

    def stream(
        self, question: str, *, session: str | None = None, count: int | None = None, where: Where | None = None
    ) -> Stream:
        """The same, in pieces as they are written."""
        return self._run(question, session, self._options(count=count, where=where), streamed=True)

    def query(
        self,
        input_query: str,
        config: LlmOptions | Mapping[str, Any] | None = None,
        dry_run: bool = False,
        where: Where | None = None,
        citations: bool = False,
        **more: Any,
    ) -> Any:
        """Answer a question: a str, or with `stream` a `Stream` of pieces that prints as its text.

        With `citations` it is `(answer, [(text, metadata)])`, with `dry_run` the prompt that would be asked, with the
        option `token_usage` a dictionary with `usage`. `config`, and any option of `llm.config` by name, count for this
        question alone.
        """
        return self._reply(input_query, None, self._options(config, where, **more), dry_run, citations)

    def chat(
        self,
        input_query: str,
        config: LlmOptions | Mapping[str, Any] | None = None,
        dry_run: bool = False,
        session_id: str = "default",
        where: Where | None = None,
        citations: bool = False,
        **more: Any,
    ) -> Any:
        """The same as `query`, as a part of a session, which is kept."""
        return self._reply(input_query, session_id, self._options(config, where, **more), dry_run, citations)

    def search(
        self,
        query: str,
        num_documents: int = 3,
        where: Where | None = None,
        raw_filter: None = None,
        namespace: None = None,
    ) -> list[dict[str, Any]]:
        """The passages that fit best, as embedchain gives them: `context` and `metadata`."""
        if raw_filter is not None or namespace is not None:
            raise InputError("raw_filter and namespace belong to other stores: use `where`, or another collection")
        return [
            {"context": hit.passage.text, "metadata": hit_metadata(hit)}
            for hit in self.find(query, num_documents, where)
        ]

    def find(self, query: str, count: int = 5, where: Where | None = None) -> list[Hit]:
        """The passages that fit best, best first."""
        from lapilli.apps.rag.asking import find

        return find(self.store, self.embedder, query, count, where)

    def get_history(
        self,
        num_rounds: int = 10,
        display_format: bool = True,
        session_id: str | None = "default",
        fetch_all: bool = False,
    ) -> list[dict[str, Any]]:
        """The last turns of a session, oldest first; all of all sessions with `fetch_all`."""
        entries = self.history.last(None if fetch_all else session_id, None if fetch_all else num_rounds)
        return [
            {
                "session_id": entry.session, "human": entry.question, "ai": entry.answer,
                "metadata": dict(entry.extra), "timestamp": entry.at,
            }
            for entry in entries
        ]  # fmt: skip

    def delete_session_chat_history(self, session_id: str = "default") -> None:
        """Forget a session."""
        self.history.clear(session_id)

    def delete_all_chat_history(self) -> None:
        """Forget all sessions."""
        self.history.clear()

    async def aadd(self, *given: Any, **named: Any) -> Any:
        """`add`, in a thread."""
        return await asyncio.to_thread(self.add, *given, **named)

    async def aask(self, *given: Any, **named: Any) -> Cited:
        """`ask`, in a thread."""
        return await asyncio.to_thread(self.ask, *given, **named)

    async def aquery(self, *given: Any, **named: Any) -> Any:
        """`query`, in a thread."""
        return await asyncio.to_thread(self.query, *given, **named)

    async def achat(self, *given: Any, **named: Any) -> Any:
        """`chat`, in a thread."""
        return await asyncio.to_thread(self.chat, *given, **named)

    async def asearch(self, *given: Any, **named: Any) -> list[dict[str, Any]]:
        """`search`, in a thread."""
        return await asyncio.to_thread(self.search, *given, **named)

    def _run(self, question: str, session: str | None, options: LlmOptions, *, streamed: bool) -> Stream:
        asking = self._asking(question, session, options)
        return Stream(self._kept(asking.pieces(streamed=streamed), question, session))

    def _asking(self, question: str, session: str | None, options: LlmOptions) -> Asking:
        from lapilli.apps.rag.answering import Turn
        from lapilli.apps.rag.asking import Asking

        told = self.history.last(session, _TURNS) if session is not None else ()
        return Asking(
            question=question,
            options=options,
            store=self.store,
            embedder=self.embedder,
            backend=lambda: self.backend,
            turns=[Turn(question=entry.question, answer=entry.answer) for entry in told],
            quoting=self.config.llm.quotes and (not self._given_backend or bool(self.config.llm.config.quote)),
        )

    def _kept(
        self, pieces: Generator[str, None, Cited], question: str, session: str | None
    ) -> Generator[str, None, Cited]:
        """The same pieces; the answer joins its session when it is whole."""
        answer = yield from pieces
        if session is not None:
            extra = {"citations": [dataclasses.asdict(citation) for citation in answer.citations]}
            self.history.add(session, question, answer.text, extra)
        return answer

    def _reply(self, question: str, session: str | None, options: LlmOptions, dry_run: bool, citations: bool) -> Any:
        if dry_run:
            return self._asking(question, session, options).prompt
        stream = self._run(question, session, options, streamed=options.stream and not citations)
        if options.stream and not citations and not options.token_usage:
            return stream
        answer = stream.cited
        contexts = [(citation.text, citation_metadata(citation)) for citation in answer.citations]
        if options.token_usage:
            usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens}
            usage["total_tokens"] = sum(part or 0 for part in usage.values())
            return {"answer": answer.text, **({"contexts": contexts} if citations else {}), "usage": usage}
        return (answer.text, contexts) if citations else answer.text

    def _options(
        self,
        config: LlmOptions | Mapping[str, Any] | None = None,
        where: Where | None = None,
        *,
        count: int | None = None,
        **more: Any,
    ) -> LlmOptions:
        """The options of one question: the App's, with what was said beside it."""
        own = self.config.llm.config
        told = part_of(LlmOptions, config, LlmOptions())
        said = {name: getattr(told, name) for name in told.model_fields_set} | more
        if where is not None:
            said["where"] = dict(where)
        if count is not None:
            said["number_documents"] = count
        fixed = {"model", "model_name", "base_url", "endpoint", "api_key", "quantize", "device"}
        for name in sorted(fixed & set(said)):
            if said[name] != getattr(own, name):
                raise InputError(f"{name}: the model of an App is chosen when the App is made; make another one")
        base = {name: getattr(own, name) for name in own.model_fields_set}
        for first, second in (("template", "prompt"), ("prompt", "template")):
            if said.get(first) is not None:
                base.pop(second, None)
        return AppConfig.of({"llm": {"config": base | said}}).llm.config
