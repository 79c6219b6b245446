"""From prompts to answers: what to say next, and how long to go on."""
