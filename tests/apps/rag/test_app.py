"""Documents added, questions asked, answers with citations that slice back: the App over a model that repeats."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from parrot_backend import ParrotBackend, WordEmbedder

from lapilli.apps.backend.call import Call
from lapilli.apps.rag.answering import NOT_FOUND
from lapilli.apps.rag.app import App, Cited, Stream
from lapilli.apps.rag.shapes import source_id
from lapilli.errors import InputError, PromptError

from .conftest import LIGHTS, Make, asked_of

BUILT = "Who built the lighthouse on Crow Island?"


def sliced(app: App, answer: Cited) -> list[str]:
    """The words of each citation, cut out of its document again."""
    texts = [app.document(citation.source).text[citation.start : citation.end] for citation in answer.citations]
    assert texts == [citation.text for citation in answer.citations]
    return texts


def test_an_answer_cites_what_bears_it_out(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder)
    answer = app.ask(BUILT)
    assert answer.text == "Anna Berg built it [1]."
    assert answer.found
    [citation] = answer.citations
    assert citation.source == str(folder / "lights.md")
    assert citation.number == 1
    assert "Anna Berg" in sliced(app, answer)[0]
    assert answer.hits[0].passage.source == citation.source
    assert "[1] " in answer.prompt
    assert answer.prompt.endswith(f"Question: {BUILT}")
    assert str(answer) == answer.text


def test_a_citation_that_is_none_is_replaced_by_the_passage_that_fits(make: Make, folder: Path) -> None:
    app = make(lambda call: "Anna Berg built the lighthouse [7].")
    app.add(folder)
    assert "Anna Berg" in sliced(app, app.ask(BUILT))[0]


def test_an_answer_that_nothing_bears_out_cites_nothing(make: Make, folder: Path) -> None:
    app = make(lambda call: "Napoleon Bonaparte, emperor of the French.")
    app.add(folder)
    answer = app.ask(BUILT)
    assert answer.found
    assert answer.citations == ()


@pytest.mark.parametrize("gone", [True, False])
def test_a_document_that_is_replaced_while_it_is_asked_is_not_cited(make: Make, folder: Path, gone: bool) -> None:
    def says(call: Call) -> str:
        if gone:
            app.delete(folder)
        else:
            (folder / "lights.md").write_text("Nothing is left of it.")
            app.add(folder)
        return "Anna Berg built it [1]."

    app = make(says)
    app.add(folder)
    answer = app.ask(BUILT)
    assert answer.text == "Anna Berg built it [1]."
    assert answer.citations == ()


def test_what_is_not_there_is_said_and_no_model_is_asked(make: Make, folder: Path) -> None:
    app = make()
    assert app.ask(BUILT).text == NOT_FOUND  # nothing was added at all
    app.add(folder)
    answer = app.ask("Which volcano erupted yesterday?")
    assert (answer.text, answer.found, answer.citations) == (NOT_FOUND, False, ())
    assert isinstance(app.backend, ParrotBackend)
    assert app.backend.calls == []


def test_a_model_that_admits_it_is_believed(make: Make, folder: Path) -> None:
    app = make(lambda call: "Not in your documents.")
    app.add(folder)
    answer = app.ask("Who painted the lighthouse on Crow Island?")
    assert (answer.found, answer.citations) == (False, ())
    assert answer.hits


def test_the_same_again_changes_nothing_and_what_changed_is_replaced(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder)
    before = app.sources()
    assert app.add_all([folder]).added == ()
    assert app.sources() == before
    (folder / "lights.md").write_text(LIGHTS.replace("Anna Berg", "Otto Lind"))
    added = app.add_all([folder])
    assert added.added == (str(folder / "lights.md"),)
    assert len(added.unchanged) == 2
    assert len(app.sources()) == 3
    assert "Otto Lind" in app.search(BUILT)[0]["context"]
    assert not any("Anna Berg" in found["context"] for found in app.search(BUILT, num_documents=10))


def test_a_text_is_a_document_and_added_once(make: Make) -> None:
    app = make()
    first = app.add("The ferry to Crow Island leaves at noon.", metadata={"year": 2024})
    assert app.add("The ferry to Crow Island leaves at noon.") == first
    [entry] = app.get_data_sources()
    assert entry["id"] == first
    assert entry["data_type"] == "text"
    assert app.search("When does the ferry leave?")[0]["metadata"]["year"] == 2024


def test_other_sizes_of_passages_cut_again(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder / "lights.md")
    few = app.sources()[0].passages
    app.add(folder / "lights.md", chunker={"chunk_size": 60, "chunk_overlap": 0})
    assert app.sources()[0].passages > few
    assert len(app.sources()) == 1


def test_one_that_cannot_be_read_ends_no_other(make: Make, folder: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing")
    app = make()
    steps: list[tuple[str, int, int]] = []
    added = app.add_all([folder], tell=lambda step: steps.append((step.outcome, step.done, step.total)))
    assert len(added.added) == 3
    assert [name for name, _ in added.failed] == [str(folder / "broken.pdf")]
    assert sorted(outcome for outcome, _, _ in steps) == ["added"] * 3 + ["failed"]
    assert [(done, total) for _, done, total in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(InputError):
        app.add(folder / "broken.pdf")


def test_only_what_lies_in_the_roots(make: Make, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("The safe opens at midnight.")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    app = make()
    named = [folder / "office.txt", tmp_path / "secret.txt", folder / "link.txt", str(folder / ".." / "secret.txt")]
    added = app.add_all(named, roots=[folder])
    assert added.added == (str(folder / "office.txt"),)
    assert len(added.failed) == 3
    assert not any("safe" in found["context"] for found in app.search("safe midnight"))


def test_where_narrows_what_is_found(make: Make) -> None:
    app = make()
    app.add("The tower of Sallow was built by Ida Moor.", metadata={"town": "Sallow"})
    app.add("The tower of Fennel was built by Jon Hale.", metadata={"town": "Fennel"})
    assert app.search("Who built the tower?", where={"town": "Fennel"})[0]["context"].endswith("Jon Hale.")
    assert [hit.passage.meta["town"] for hit in app.ask("Who built the tower?", where={"town": "Sallow"}).hits] == [
        "Sallow"
    ]
    assert app.query("Who built the tower?", where={"town": "Elsewhere"}) == NOT_FOUND


def test_query_in_embedchain_s_shapes(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder)
    assert app.query(BUILT) == "Anna Berg built it [1]."
    prompt = app.query(BUILT, dry_run=True)
    assert "Anna Berg in 1871" in prompt.replace("was built in 1871 by Anna Berg", "Anna Berg in 1871")
    assert prompt.endswith(BUILT)
    answer, contexts = app.query(BUILT, citations=True)
    assert answer == "Anna Berg built it [1]."
    [(text, metadata)] = contexts
    assert "Anna Berg" in text
    assert metadata["url"] == str(folder / "lights.md")
    assert metadata["doc_id"] == source_id(metadata["url"])
    assert app.document(metadata["url"]).text[metadata["start"] : metadata["end"]] == text
    usage = app.query(BUILT, token_usage=True)
    assert usage["answer"] == "Anna Berg built it [1]."
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + usage["usage"]["completion_tokens"] > 0


def test_a_stream_is_pieces_and_its_text_is_the_whole(make: Make, folder: Path) -> None:
    app = make(lambda call: "  Anna Berg\n built it [1]. \n", config={"llm": {"config": {"stream": True}}})
    app.add(folder)
    stream = app.query(BUILT)
    assert isinstance(stream, Stream)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.text == str(stream) == "Anna Berg\n built it [1]."
    assert sliced(app, stream.cited)
    assert app.query(BUILT).text == stream.text  # without having been listened to
    assert app.query(BUILT, stream=False) == stream.text
    assert app.query(BUILT, citations=True)[0] == stream.text


def test_a_session_remembers_and_pointing_back_finds(make: Make, folder: Path) -> None:
    app = make(lambda call: f"Anna Berg, asked {len(call.messages)} [1].")
    app.add(folder)
    assert app.chat("Who built the lighthouse?", session_id="one").startswith("Anna Berg, asked 2")
    assert app.chat("Who lives there?", session_id="other") == NOT_FOUND  # nobody said where
    assert app.chat("Who lives there?", session_id="one").startswith("Anna Berg, asked 4")
    assert app.chat("Who built the lighthouse?", session_id="two").startswith("Anna Berg, asked 2")
    assert "1871" in asked_of(app)
    [first, second] = app.get_history(session_id="one")
    assert (first["human"], second["human"]) == ("Who built the lighthouse?", "Who lives there?")
    assert first["ai"].startswith("Anna Berg")
    assert first["metadata"]["citations"][0]["source"] == str(folder / "lights.md")
    assert len(app.get_history(fetch_all=True)) == 4
    app.delete_session_chat_history("one")
    assert app.get_history(session_id="one") == []
    app.delete_all_chat_history()
    assert app.get_history(fetch_all=True) == []


def test_a_stream_that_is_given_up_joins_no_session(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder)
    stream = app.stream(BUILT, session="s")
    next(stream)
    stream.close()
    assert app.get_history(session_id="s") == []


def test_deleting_by_source_id_or_folder(make: Make, folder: Path) -> None:
    app = make()
    identity = app.add(folder)
    single = app.add(folder / "office.txt")
    assert app.delete(single)
    assert not app.delete(single)
    assert not app.delete("nothing")
    assert app.delete(str(folder / "garden.txt"))
    assert [entry.source for entry in app.sources()] == [str(folder / "lights.md")]
    assert app.delete(identity)
    assert app.sources() == []


def test_reset_empties_everything(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder)
    app.chat(BUILT)
    app.reset()
    assert app.sources() == []
    assert app.get_history() == []
    app.add(folder)
    assert app.ask(BUILT).found


def test_collections_are_apart(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder)
    app.set_collection_name("others")
    assert app.sources() == []
    app.set_collection_name("documents")
    assert len(app.sources()) == 3


def test_a_prompt_that_does_not_fit_leaves_out_and_says_so(make: Make) -> None:
    app = make(lambda call: "It is long [1].", config={"llm": {"config": {"number_documents": 4, "max_tokens": 64}}})
    for number in range(4):
        app.add(f"Tower {number}: " + f"the tower of place{number} is long. " * 20)
    whole = app.ask("Which tower is long?")
    assert whole.notes == ()
    app.backend.context = app.backend.count(Call.of("x" * 10)) and (whole.prompt_tokens or 0) // 2 + 64
    answer = app.ask("Which tower is long?")
    assert answer.notes
    assert "passages left out: the context has no room" in answer.notes[0]
    assert len(answer.hits) == 4
    app.backend.context = 20
    with pytest.raises(PromptError, match=r"a prompt with one passage takes \d+ tokens, the context of .* is 20"):
        app.ask("Which tower is long?")


def test_a_server_that_does_not_count_is_asked_what_fits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make(lambda call: "It is long [1].")
    for number in range(3):
        app.add(f"Tower {number}: " + f"the tower of place{number} is long. " * 20)
    monkeypatch.setattr(app.backend, "count", lambda call: None)
    assert app.ask("Which tower is long?").notes == ()
    app.backend.context = 700
    answer = app.ask("Which tower is long?")
    assert "passages left out: the context has no room" in answer.notes[0]
    assert isinstance(app.backend, ParrotBackend)
    letters = len("".join(message.text for message in app.backend.calls[-1].messages))
    assert letters / 2.5 + app.backend.calls[-1].max_tokens <= 701


def test_full_text_alone_answers_too(make: Make, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make(embedder=None)
    app.add(folder)
    assert app.ask(BUILT).citations
    # Begun without vectors, it goes on without, whatever could make them now.
    monkeypatch.setattr("lapilli.apps.rag.opening.open_vectors", lambda part: WordEmbedder())
    again = App({"vectordb": {"provider": "sqlite"}}, folder=tmp_path / "documents", backend=app.backend)
    assert again.ask(BUILT).citations
    assert again.embedder is None


def test_other_vectors_than_the_store_has_are_refused(make: Make, folder: Path) -> None:
    make().add(folder)
    other = make(embedder=WordEmbedder(size=32))
    with pytest.raises(InputError, match=r"keeps vectors of \d+ values, the embedder makes vectors of 32"):
        other.ask(BUILT)


def test_options_of_one_question(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder)
    assert isinstance(app.backend, ParrotBackend)
    app.query(BUILT, temperature=1, max_tokens=7, system_prompt="Be kind.")
    call = app.backend.calls[-1]
    assert (call.temperature, call.max_tokens) == (1.0, 7)
    assert call.messages[0].text.startswith("Be kind.")
    app.query(BUILT, config={"prompt": "Given $context, what of $query?"})
    assert asked_of(app).endswith(f"what of {BUILT}?")
    app.query(BUILT)
    assert app.backend.calls[-1].temperature == 0.0
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        app.query(BUILT, temprature=1)
    with pytest.raises(InputError, match="model: the model of an App is chosen when the App is made"):
        app.query(BUILT, config={"model": "other"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"config_path": "a.yaml", "config": {}}, "config_path or config, not both"),
        ({"config": {}, "auto_deploy": True}, "auto_deploy"),
        ({"config": []}, "must be a dictionary"),
        ({"config_path": "none.yaml"}, "No such file"),
    ],
)
def test_from_config_refuses(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        App.from_config(**given)


def test_an_app_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text(f"vectordb:\n  provider: sqlite\n  config:\n    dir: {tmp_path / 'here'}\ncache: {{}}\n")
    app = App.from_config(path)
    assert app.folder == tmp_path / "here"
    assert app.notes == ("cache: every answer is asked for anew, none is kept",)
    assert app.sources() == []
    assert not (tmp_path / "here").exists()


def test_the_folder_of_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAPILLI_DOCUMENTS", str(tmp_path / "set"))
    assert App().folder == tmp_path / "set"


def test_the_twins_that_are_awaited(make: Make, folder: Path) -> None:
    app = make()

    async def all_of_them() -> None:
        await app.aadd(folder)
        found, answer, said, told = await asyncio.gather(
            app.asearch(BUILT), app.aask(BUILT), app.aquery(BUILT), app.achat(BUILT, session_id="s")
        )
        assert found[0]["metadata"]["url"] == str(folder / "lights.md")
        assert answer.text == said == told
        stream = await app.aquery(BUILT, stream=True)
        pieces = [piece async for piece in stream]
        assert len(pieces) > 1
        assert "".join(pieces) == stream.text == told

    asyncio.run(all_of_them())


def test_many_threads_ask_one_app(make: Make, folder: Path) -> None:
    app = make()
    app.add(folder)
    answers: list[Cited] = []
    threads = [threading.Thread(target=lambda: answers.append(app.ask(BUILT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(answer.text, answer.citations) for answer in answers}) == 1
    assert len(answers) == 8


def test_dry_run_of_add_shows_the_passages(make: Make, folder: Path) -> None:
    app = make()
    shown = app.add(folder / "lights.md", dry_run=True, chunker={"chunk_size": 100, "chunk_overlap": 0})
    assert shown["count"] == len(shown["chunks"]) == len(shown["metadata"]) > 1
    assert app.sources() == []


def test_what_other_stores_and_loaders_take_is_refused(make: Make) -> None:
    app = make()
    with pytest.raises(InputError, match="raw_filter"):
        app.search("x", raw_filter={})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="loader"):
        app.add("x", loader=object())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the question is empty"):
        app.ask("  ")
