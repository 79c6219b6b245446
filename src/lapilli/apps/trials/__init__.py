"""Structured records out of registers of clinical trials."""
