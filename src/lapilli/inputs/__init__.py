"""What people have, turned into what the model eats: chats, templates, tokens, pictures; numpy, no torch."""
