"""Request, media types and metrics text: the wire format of every part of the server that answers."""
