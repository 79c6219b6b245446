"""Measuring models: each module is one examination."""
