"""What goes over the wire, for every part of the server that answers: the request, media types, metrics as text."""
