"""What models are used for; an app asks a model, whatever that model is."""
