"""Registers' files as trials: WHO's ICTRP (XML, CSV), ClinicalTrials.gov (legacy XML, API v2), streamed."""

from lapilli.apps.trials.readers.files import count_trials, read_trials

__all__ = ["count_trials", "read_trials"]
