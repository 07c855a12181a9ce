"""Storage: claims find volumes, volumes are made for them and taken away again."""
