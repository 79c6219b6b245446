"""Who does the work of a job: this process, more processes here, or a Ray cluster. The bytes are the same."""
