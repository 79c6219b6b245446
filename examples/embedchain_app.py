"""embedchain's App, as its users write it, on lapilli: `python examples/embedchain_app.py`.

The import line, the model and the embedder are this machine's; the rest is embedchain's. The model is asked at the
server that OLLAMA_HOST names; where none is up that has it, it is opened here.
"""

from __future__ import annotations

from lapilli.compat.embedchain import App

app = App.from_config(config={
    "llm": {
        "provider": "ollama",
        "config": {
            "model": "mini",
            "temperature": 0.5,
            "top_p": 1,
            "stream": True
        }
    },
    "embedder": {
        "provider": "lapilli",
        "config": {
            "model": None
        }
    }
})  # fmt: skip

answer = app.query("who is elon musk?")
print(answer)

# Nothing was added yet. With a document, of a person who was made up for it:
app.add("Mira Quill keeps the lighthouse on Crow Island. She came there in 1998 from Sallow.")
print(app.query("who is mira quill?"))
answer, contexts = app.query("who came from sallow in 1998?", citations=True)
print(answer)
for text, metadata in contexts:
    print(f"    {metadata['url']}, characters {metadata['start']} to {metadata['end']}: {text}")
