"""Go's text/template, the part of it that chat templates use: read, checked and run here, with limits."""
