"""The watch cache: all objects in memory, fed by one watch of the store; answers GET, LIST and WATCH."""
