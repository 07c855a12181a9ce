"""Wire formats of the daemons we speak to, and the code generated from them.

Regenerate with ``python -m grpc_tools.protoc -I. --python_out=. protos/*.proto`` from the repository's root.
"""
