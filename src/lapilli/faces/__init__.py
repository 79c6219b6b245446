"""Where people meet lapilli: thin rooms that translate, call one thing, and translate back."""
