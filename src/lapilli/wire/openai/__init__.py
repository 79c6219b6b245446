"""OpenAI's dialect: chats, completions and vectors, responses.

The contract is what Ollama honours of https://platform.openai.com/docs/api-reference; `docs/openai.md` lists what is
refused by name because it would change the answer, and what is told beyond it.
"""
