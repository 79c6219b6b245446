"""The HTTP face: Ollama's API, OpenAI's and Anthropic's, and a web page."""
