"""The few operations that torch is too slow at: a plain reference of each, and versions for the processor."""
