"""Whoever answers, for applications: a model in this process, or a server of Ollama's or OpenAI's kind."""
