"""What goes over the wire: requests and answers of the HTTP dialects, for servers and clients alike."""
