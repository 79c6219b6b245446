"""The ground floor: files, children, fetching, settings; it knows no model."""
